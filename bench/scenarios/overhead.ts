/** What capture costs the application: TPC-B with and without it. */
import { type WithAndWithout, withAndWithout } from '../capture-cost.ts';
import { runLoad } from '../load.ts';
import { type Databases, type Pair, settle } from '../pair.ts';
import { findPgbench, makePgbenchTemplates } from '../pgbench.ts';
import { serverCpuSeconds } from '../proc.ts';
import { type Outcome, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { range, ratioText, type Summary, summarise } from '../statistics.ts';

/** Three updates and an insert. */
const CHANGES_OF_A_TRANSACTION = 4;

const options = {
  repeat: REPEAT,
  scale: SCALE,
  seconds: { kind: 'number', default: 15, help: 'of TPC-B a run' },
} as const;

interface Measured {
  readonly tps: number;
  /** CPU milliseconds of the server for one transaction; 0 where nobody tells. */
  readonly cpu: number;
  /** Bytes of WAL for one changed row. */
  readonly wal: number;
}

export const overhead: Scenario<typeof options> = {
  name: 'overhead',
  summary: 'transactions, CPU and WAL of pgbench with and without capture',
  options,
  peers: [],
  sizes: {
    smoke: [{ options: { repeat: 1, seconds: 1, scale: 1 }, minutes: 0.15 }],
    all: [{ options: { repeat: 7, seconds: 6 }, minutes: 2 }],
    full: [{ options: { repeat: 5, seconds: 60 }, minutes: 12 }],
  },
  run: async ({ repeat, seconds, scale }, { servers }) => {
    findPgbench();
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    const measured = await withAndWithout({ pair, templates, repeat }, (databases, round) =>
      measure(pair, databases, { seconds, round }),
    );
    return report(await pair.describe(), scale, measured);
  },
};

async function measure(
  { source }: Pair,
  databases: Databases,
  { seconds, round }: { seconds: number; round: number },
): Promise<Measured> {
  await settle(databases);
  const cpu = () => serverCpuSeconds(source);
  const before = { cpu: cpu(), wal: await walPosition(databases) };
  const { tps, transactions } = await runLoad(databases.source.login, { seconds, seed: round });
  const after = { cpu: cpu(), wal: await walPosition(databases) };
  return {
    tps,
    cpu: (1000 * (after.cpu - before.cpu)) / transactions,
    wal: (after.wal - before.wal) / (transactions * CHANGES_OF_A_TRANSACTION),
  };
}

/** In bytes. */
async function walPosition({ source }: Databases): Promise<number> {
  const { rows } = await source.superuser.query<{ bytes: string }>(
    `select pg_current_wal_insert_lsn() - '0/0' as bytes`,
  );
  return Number(rows[0]?.bytes);
}

function report(
  servers: object,
  scale: number,
  { plain: without, armed: captured }: WithAndWithout<Measured>,
): Outcome {
  const figures = {
    tps: compare(without, captured, 'tps'),
    cpu: compare(without, captured, 'cpu'),
    wal: compare(without, captured, 'wal'),
  };
  const row = (name: string, figure: typeof figures.tps, digits: number) => [
    name,
    range(figure.without, digits),
    range(figure.captured, digits),
    ratioText(figure.ratio),
  ];
  return {
    servers,
    figures: { scale, ...figures, runs: { without, captured } },
    content: [
      `source of scale ${scale}, eight clients, no daemon; median (min-max)`,
      '',
      [
        ['', 'without', 'with capture', 'with / without'],
        row('TPC-B, transactions/s', figures.tps, 0),
        row('server CPU, ms a transaction', figures.cpu, 3),
        row('WAL, bytes a change', figures.wal, 0),
      ],
    ],
    plots: [
      {
        kind: 'bars',
        name: 'ratios',
        title: 'What capture costs the source',
        subtitle: 'TPC-B with capture / without, in turns on one server; 1 costs nothing',
        unit: 'x',
        bars: [
          { label: 'time of a transaction', value: 1 / figures.tps.ratio, ours: true },
          { label: 'its server CPU', value: figures.cpu.ratio, ours: true },
          { label: 'WAL of a change', value: figures.wal.ratio, ours: true },
        ].filter(({ value }) => Number.isFinite(value)),
        reference: { value: 1, label: 'without capture' },
      },
    ],
    contract: [{ row: 'tps', value: figures.tps.ratio }],
    ok: true,
  };
}

function compare(without: readonly Measured[], captured: readonly Measured[], what: keyof Measured) {
  const of = (all: readonly Measured[]): Summary => summarise(all.map((one) => one[what]));
  const [plain, armed] = [of(without), of(captured)];
  return { without: plain, captured: armed, ratio: armed.median / plain.median };
}
