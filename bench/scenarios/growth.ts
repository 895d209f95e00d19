/**
 * What a change costs as its table grows, and as more of them wait: one transaction changes rows all over a table, and
 * from its commit until the target has it time and CPU are taken. Nothing else happens.
 */
import { type Arrival, timeArrival } from '../arrival.ts';
import { totalCpu } from '../cpu.ts';
import type { Databases } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { type Outcome, REPEAT, type Scenario, say } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';
import { streamsOf } from '../streams.ts';
import { byWho, equalityOf, inTurns, type Stage, type Turn } from '../while-streaming.ts';

/** Times the number of changes. */
const TABLES = [1, 10, 100];
/** The larger backlog meets the largest table, which alone has rows enough to spread it. */
const LARGE_BACKLOG = 10;

const options = {
  changes: { kind: 'number', default: 20_000, help: 'rows to change, and rows of the smallest table' },
  repeat: REPEAT,
} as const;

/** What a change costs, in one of the sizes. */
interface Cost {
  /** Times the smallest. */
  readonly table: number;
  readonly backlog: number;
  /** Microseconds for each change, in each repetition. */
  readonly wall: readonly number[];
  readonly cpu: readonly number[];
}

export const growth: Scenario<typeof options> = {
  name: 'growth',
  summary: 'cost of a change as the table grows x10 and x100, and the backlog x10',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [],
    all: [{ options: {}, minutes: 3 }],
    full: [{ options: { changes: 100_000, repeat: 5 }, minutes: 20 }],
  },
  run: async ({ changes, repeat }, { peers, servers }) => {
    await using pair = await servers();
    const turns: Turn<Cost[]>[] = [];
    for (const table of TABLES) {
      say(`${table * changes} rows`);
      const tables = { names: ['grown'], create: (to: Databases) => create(to, table * changes) };
      const measured = await inTurns({ pair, tables, repeat: 1 }, streamsOf(peers), (stage) =>
        measure(stage, { table, changes, repeat }),
      );
      turns.push(...measured);
    }
    return report(await pair.describe(), changes, turns);
  },
};

/** Pages have room for another version of each row: rows stay where they are however often they change. */
async function create({ source, target }: Databases, rows: number): Promise<void> {
  for (const { owner } of [source, target]) {
    await owner.query(
      'create table grown (id bigint primary key, value int not null, filler text) with (fillfactor = 50)',
    );
  }
  await source.owner.query(
    `insert into grown select i, 0, repeat('x', 20) from generate_series(1, ${rows}) i`,
  );
}

async function measure(
  stage: Stage,
  { table, changes, repeat }: { table: number; changes: number; repeat: number },
): Promise<Cost[]> {
  // Writes each page to the WAL as a whole, once after the checkpoint: the first of the others would pay for it.
  await timeArrival(stage, 'update grown set value = value + 1');
  const backlogs = table === Math.max(...TABLES) ? [1, LARGE_BACKLOG] : [1];
  const costs: Cost[] = [];
  for (const backlog of backlogs) {
    const arrivals: Arrival[] = [];
    const every = table / backlog;
    for (let time = 1; time <= repeat; time++) {
      const statement = `update grown set value = value + 1 where id % ${every} = ${time % every}`;
      arrivals.push(await timeArrival(stage, statement));
    }
    const perChange = (seconds: number) => (1e6 * seconds) / (changes * backlog);
    costs.push({
      table,
      backlog,
      wall: arrivals.map(({ arrival }) => perChange(arrival)),
      cpu: arrivals.map(({ cpu }) => perChange(totalCpu(cpu))),
    });
  }
  return costs;
}

interface Figures {
  readonly who: string;
  readonly table: number;
  readonly backlog: number;
  readonly wall: Summary;
  readonly cpu: Summary;
  /** Times the cost of a change in the smallest table, for the larger backlog in the same table. */
  readonly wallRatio: number;
  readonly cpuRatio: number;
}

function report(servers: object, changes: number, turns: readonly Turn<Cost[]>[]): Outcome {
  const figures = [...byWho(turns)].flatMap(([who, costs]) => figuresOf(who, costs.flat()));
  const equality = equalityOf(turns);
  return {
    servers,
    figures: { unit: 'us', changes, figures, runs: turns },
    content: [
      `${changes} changes in a table of ${changes} rows, and multiples; microseconds for each change, median (min-max)`,
      '',
      [
        ['', 'wall', '/ smaller', 'CPU', '/ smaller'],
        ...figures.map(({ who, table, backlog, ...cost }) => [
          `${who}: table x${table}, backlog x${backlog}`,
          range(cost.wall, 1),
          cost.wallRatio.toFixed(2),
          range(cost.cpu, 1),
          cost.cpuRatio.toFixed(2),
        ]),
      ],
      '',
      equality.line,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'cpu',
        title: 'What a change costs as table and backlog grow',
        subtitle: 'CPU of daemon and both servers for a change / the same for the smaller one',
        unit: 'x',
        bars: figures
          .filter(({ table, cpuRatio }) => table > 1 && Number.isFinite(cpuRatio))
          .map(({ who, table, backlog, cpuRatio }) => ({
            label: `${who}: table x${table}, backlog x${backlog}`,
            value: cpuRatio,
            ours: who === 'ibex',
          })),
        reference: { value: 1, label: 'no dearer' },
      },
    ],
    contract: contractOf(figures),
    ok: equality.ok,
  };
}

function figuresOf(who: string, costs: readonly Cost[]): Figures[] {
  return costs.map(({ table, backlog, wall, cpu }) => {
    // A larger table is compared with the smallest, a larger backlog with the small one in the same table.
    const least = costs.find((one) => one.backlog === 1 && one.table === (backlog === 1 ? 1 : table));
    const ratio = (kind: 'wall' | 'cpu', own: readonly number[]) =>
      summarise(own).median / summarise(least?.[kind] ?? own).median;
    return {
      who,
      table,
      backlog,
      wall: summarise(wall),
      cpu: summarise(cpu),
      wallRatio: ratio('wall', wall),
      cpuRatio: ratio('cpu', cpu),
    };
  });
}

/** In time and in CPU: the dearer of both counts. */
function contractOf(figures: readonly Figures[]): NonNullable<Outcome['contract']> {
  return figures
    .filter(({ who, table }) => who === 'ibex' && table === Math.max(...TABLES))
    .flatMap(({ backlog, wallRatio, cpuRatio }) =>
      [wallRatio, cpuRatio]
        .filter(Number.isFinite)
        .map((value) => ({ row: backlog === 1 ? 'growth-table' : 'growth-backlog', value }) as const),
    );
}
