/**
 * Large statements: what capture adds to them, in two databases of one server, one of them armed, without a daemon; and
 * how long after the commit the target has all of it, for Ibex and native logical replication.
 */
import { performance } from 'node:perf_hooks';
import { type Arrival, timeArrival } from '../arrival.ts';
import { type WithAndWithout, withAndWithout } from '../capture-cost.ts';
import { totalCpu } from '../cpu.ts';
import { checkpoint, type Databases, settle } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES } from '../pgbench.ts';
import { type Outcome, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';
import { streamsOf } from '../streams.ts';
import { byWho, equalityOf, inTurns, type Stage, type Turn } from '../while-streaming.ts';

/** The UPDATE that the contract is about. */
const CONTRACT_ROWS = 200_000;
const STATEMENTS = ['UPDATE', 'INSERT', 'DELETE'] as const;
type Statement = (typeof STATEMENTS)[number];

const options = {
  rows: {
    kind: 'number',
    default: CONTRACT_ROWS,
    help: 'of each statement, at most 100000 for each unit of --scale',
  },
  repeat: REPEAT,
  scale: SCALE,
} as const;

export const bulk: Scenario<typeof options> = {
  name: 'bulk',
  summary: 'large UPDATE, INSERT and DELETE: with and without capture, and until they are on the target',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [],
    all: [{ options: {}, minutes: 2.5 }],
    full: [{ options: { rows: 1_000_000 }, minutes: 15 }],
  },
  run: async ({ rows, repeat, scale }, { peers, servers }) => {
    findPgbench();
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    // The cheaper half, and what is compared differs by less: it has its turn twice as often.
    const costs = await withAndWithout({ pair, templates, repeat: 2 * repeat }, (databases) =>
      forEachStatement((statement) => cost(databases, textOf(statement, rows))),
    );
    const tables = { names: PGBENCH_TABLES, templates };
    const turns = await inTurns({ pair, tables, repeat }, streamsOf(peers), (stage) =>
      forEachStatement((statement) => arrive(stage, statement, rows)),
    );
    return report(await pair.describe(), { scale, rows }, costs, turns);
  },
};

type OfEach<T> = Readonly<Record<Statement, T>>;

async function forEachStatement<T>(body: (statement: Statement) => Promise<T>): Promise<OfEach<T>> {
  return { UPDATE: await body('UPDATE'), INSERT: await body('INSERT'), DELETE: await body('DELETE') };
}

/** What is inserted lies behind all rows of pgbench, and is deleted again. */
function textOf(statement: Statement, rows: number): string {
  const behind = 10_000_000;
  switch (statement) {
    case 'UPDATE':
      return `update pgbench_accounts set abalance = abalance + 1 where aid <= ${rows}`;
    case 'INSERT':
      return `insert into pgbench_accounts select ${behind} + i, 1, 0, '' from generate_series(1, ${rows}) i`;
    case 'DELETE':
      return `delete from pgbench_accounts where aid > ${behind}`;
  }
}

/** Seconds of each statement, without and with capture. */
type Costs = WithAndWithout<OfEach<number>>;

async function cost(databases: Databases, text: string): Promise<number> {
  await settle(databases);
  const startedAt = performance.now();
  await databases.source.owner.query(text);
  return (performance.now() - startedAt) / 1000;
}

async function arrive(stage: Stage, statement: Statement, rows: number): Promise<Arrival> {
  await checkpoint(stage.databases);
  const arrival = await timeArrival(stage, textOf(statement, rows));
  say(`  ${statement}: on the target ${arrival.arrival.toFixed(3)} s after its commit`);
  return arrival;
}

function report(
  servers: object,
  { scale, rows }: { scale: number; rows: number },
  costs: Costs,
  turns: readonly Turn<OfEach<Arrival>>[],
): Outcome {
  const ratios = STATEMENTS.map((statement) => {
    const of = (all: readonly OfEach<number>[]) => summarise(all.map((one) => one[statement]));
    const [plain, armed] = [of(costs.plain), of(costs.armed)];
    return { statement, plain, armed, ratio: armed.median / plain.median };
  });
  const arrivals = [...byWho(turns)].map(([who, all]) => ({
    who,
    statements: STATEMENTS.map((statement) => ({
      arrival: summarise(all.map((one) => one[statement].arrival)),
      cpu: summarise(all.map((one) => totalCpu(one[statement].cpu))),
    })),
  }));
  const equality = equalityOf(turns);
  return {
    servers,
    figures: { unit: 's', scale, rows, capture: ratios, arrivals, runs: { costs, turns } },
    content: [
      `${rows} rows in one statement, scale ${scale}; seconds, median (min-max)`,
      '',
      [
        ['the statement', 'without', 'with capture', 'with / without'],
        ...ratios.map(({ statement, plain, armed, ratio }) => [
          statement,
          range(plain, 3),
          range(armed, 3),
          ratio.toFixed(2),
        ]),
      ],
      '',
      [
        ['from commit to the target', ...STATEMENTS],
        ...arrivals.map(({ who, statements }) => cells(who, statements, 'arrival')),
      ],
      '',
      [
        ['CPU of all in that time', ...STATEMENTS],
        ...arrivals.map(({ who, statements }) => cells(who, statements, 'cpu')),
      ],
      '',
      equality.line,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'capture',
        title: 'What capture adds to a large statement',
        subtitle: `time with capture / without, ${rows} rows; 1 costs nothing`,
        unit: 'x',
        bars: ratios.map(({ statement, ratio }) => ({ label: statement, value: ratio, ours: true })),
        reference: { value: 1, label: 'without capture' },
      },
    ],
    contract: ratios
      .filter(({ statement }) => statement === 'UPDATE' && rows === CONTRACT_ROWS)
      .map(({ ratio }) => ({ row: 'bulk-update', value: ratio })),
    ok: equality.ok,
  };
}

function cells<K extends string>(
  who: string,
  statements: readonly Readonly<Record<K, Summary>>[],
  what: K,
): string[] {
  return [who, ...statements.map((one) => range(one[what], 2))];
}
