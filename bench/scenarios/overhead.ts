/**
 * What capture costs the application: the same work in two databases of one server, one of them armed, in turns.
 * No daemon runs, so nothing but the triggers differs.
 */
import { performance } from 'node:perf_hooks';
import type { Cluster } from '../../src/embedded/cluster.ts';
import { Ibex } from '../ibex.ts';
import { type Databases, type Pair, settle } from '../pair.ts';
import { findPgbench, makePgbenchTemplates, measureTps } from '../pgbench.ts';
import { serverCpuSeconds } from '../proc.ts';
import { type Outcome, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';

/** The UPDATE that the contract is about. */
const CONTRACT_ROWS = 200_000;

const options = {
  repeat: REPEAT,
  scale: SCALE,
  seconds: { kind: 'number', default: 15, help: 'of TPC-B a run' },
  rows: { kind: 'number', default: CONTRACT_ROWS, help: 'of the large UPDATE, at most 100000 x scale' },
} as const;

interface Measured {
  readonly tps: number;
  /** Seconds of the large UPDATE. */
  readonly update: number;
  /** CPU milliseconds of the server for one transaction, and seconds for the UPDATE; 0 where nobody tells. */
  readonly tpsCpu: number;
  readonly updateCpu: number;
}

export const overhead: Scenario<typeof options> = {
  name: 'overhead',
  summary: 'pgbench and a large UPDATE with and without capture',
  options,
  peers: [],
  sizes: {
    smoke: [{ options: { repeat: 1, scale: 1, seconds: 1, rows: 5_000 }, minutes: 0.1 }],
    all: [{ options: {}, minutes: 4 }],
    full: [{ options: { repeat: 5, seconds: 60 }, minutes: 15 }],
  },
  run: async ({ repeat, scale, seconds, rows }, { servers }) => {
    findPgbench();
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    const plain = await pair.create('plain', templates);
    const armed = await pair.create('armed', templates);
    await new Ibex(armed).run('setup');
    const without: Measured[] = [];
    const captured: Measured[] = [];
    for (let round = 1; round <= repeat; round++) {
      for (const [databases, all] of [
        [plain, without],
        [armed, captured],
      ] as const) {
        say(`round ${round} of ${repeat}: ${databases.name}`);
        all.push(await measure(pair, databases, { seconds, rows, round }));
      }
    }
    for (const databases of [plain, armed]) await databases.drop();
    return report(await pair.describe(), { scale, rows }, without, captured);
  },
};

async function measure(
  { source }: Pair,
  databases: Databases,
  { seconds, rows, round }: { seconds: number; rows: number; round: number },
): Promise<Measured> {
  const { login, owner } = databases.source;
  await settle(databases);
  const load = await timed(source, () => measureTps(login, seconds, round));
  await settle(databases);
  const update = await timed(source, () =>
    owner.query('update pgbench_accounts set abalance = abalance + 1 where aid <= $1', [rows]),
  );
  return {
    tps: load.result,
    update: update.seconds,
    tpsCpu: (1000 * load.cpu) / (load.result * seconds),
    updateCpu: update.cpu,
  };
}

async function timed<T>(server: Cluster, work: () => Promise<T>) {
  const cpu = () => serverCpuSeconds(server);
  const [before, startedAt] = [cpu(), performance.now()];
  const result = await work();
  const seconds = (performance.now() - startedAt) / 1000;
  return { result, seconds, cpu: cpu() - before };
}

function report(
  servers: object,
  { scale, rows }: { scale: number; rows: number },
  without: readonly Measured[],
  captured: readonly Measured[],
): Outcome {
  const figures = {
    tps: compare(without, captured, 'tps'),
    tpsCpu: compare(without, captured, 'tpsCpu'),
    update: compare(without, captured, 'update'),
    updateCpu: compare(without, captured, 'updateCpu'),
  };
  const row = (name: string, figure: typeof figures.tps, digits: number) => [
    name,
    range(figure.without, digits),
    range(figure.captured, digits),
    figure.ratio.toFixed(2),
  ];
  return {
    servers,
    figures: { scale, rows, ...figures, runs: { without, captured } },
    content: [
      `source of scale ${scale}, eight clients, no daemon; median (min-max)`,
      '',
      [
        ['', 'without', 'with capture', 'with / without'],
        row('TPC-B, transactions/s', figures.tps, 0),
        row('  server CPU, ms a transaction', figures.tpsCpu, 3),
        row(`UPDATE of ${rows} rows, s`, figures.update, 3),
        row('  server CPU, s', figures.updateCpu, 3),
      ],
    ],
    plots: [
      {
        kind: 'bars',
        name: 'ratios',
        title: 'What capture costs the source',
        subtitle: 'with capture / without, in turns on one server; 1 costs nothing',
        unit: 'x',
        bars: [
          { label: 'time of a TPC-B transaction', value: 1 / figures.tps.ratio, ours: true },
          { label: 'its server CPU', value: figures.tpsCpu.ratio, ours: true },
          { label: `time of an UPDATE of ${rows} rows`, value: figures.update.ratio, ours: true },
          { label: 'its server CPU', value: figures.updateCpu.ratio, ours: true },
        ].filter(({ value }) => Number.isFinite(value)),
        reference: { value: 1, label: 'without capture' },
      },
    ],
    contract: [
      { row: 'tps', value: figures.tps.ratio },
      ...(rows === CONTRACT_ROWS ? [{ row: 'bulk-update' as const, value: figures.update.ratio }] : []),
    ],
    ok: true,
  };
}

function compare(without: readonly Measured[], captured: readonly Measured[], what: keyof Measured) {
  const of = (all: readonly Measured[]): Summary => summarise(all.map((one) => one[what]));
  const [plain, armed] = [of(without), of(captured)];
  return { without: plain, captured: armed, ratio: armed.median / plain.median };
}
