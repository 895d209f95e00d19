/**
 * What a daemon costs while nothing happens: CPU time of its process and of its server sessions, over a while, as
 * a share of one core. Linux only.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Ibex } from '../ibex.ts';
import { type Databases, type Side, settle } from '../pair.ts';
import { cpuSeconds, requireProc } from '../proc.ts';
import { type Outcome, REPEAT, type Scenario, say } from '../scenario.ts';
import { percentile } from '../statistics.ts';

/** For pauses between looks to have grown to their longest. */
const CALM_MS = 3_000;

const options = {
  seconds: { kind: 'number', default: 20, help: 'how long to watch' },
  tables: { kind: 'number', default: 200, help: 'tables' },
  repeat: { ...REPEAT, default: 1, help: 'times to watch' },
} as const;

/** CPU seconds used so far, by process, for each part that is watched. */
type Usage = Readonly<Record<'daemon' | 'source' | 'target', ReadonlyMap<number, number>>>;

interface Watched {
  readonly seconds: number;
  /** CPU seconds used in that time. */
  readonly cpu: Readonly<Record<keyof Usage, number>>;
  readonly sessions: { readonly source: number; readonly target: number };
}

export const idle: Scenario<typeof options> = {
  name: 'idle',
  summary: 'CPU that a streaming daemon uses while nothing happens',
  options,
  peers: [],
  sizes: {
    smoke: [],
    all: [{ options: {}, minutes: 1 }],
    full: [{ options: { seconds: 60, repeat: 3 }, minutes: 4 }],
  },
  run: async ({ seconds, tables, repeat }, { servers }) => {
    requireProc();
    await using pair = await servers();
    const databases = await pair.create('idle');
    await createTables(databases, tables);
    say(`copying ${tables} tables`);
    const daemon = await Ibex.oneWay(databases).daemon();
    try {
      await settle(databases);
      await sleep(CALM_MS);
      const runs: Watched[] = [];
      for (let round = 1; round <= repeat; round++) {
        say(`watching for ${seconds} s`);
        runs.push(await watch(databases, daemon.pid, seconds));
      }
      return report(await pair.describe(), tables, runs);
    } finally {
      await daemon.stop();
      await databases.drop();
    }
  },
};

async function createTables({ source, target }: Databases, count: number): Promise<void> {
  for (const [side, rows] of [
    [source, 10],
    [target, 0],
  ] as const) {
    await side.owner.query(
      `do $$ begin
         for i in 1 .. ${count} loop
           execute format('create table small_%s (id int primary key, value text)', i);
           execute format('insert into small_%s select n, n from generate_series(1, ${rows}) n', i);
         end loop;
       end $$`,
    );
  }
}

async function readUsage({ source, target }: Databases, daemon: number): Promise<Usage> {
  return {
    daemon: usageOf([daemon]),
    source: await readSessions(source),
    target: await readSessions(target),
  };
}

async function readSessions({ superuser }: Side): Promise<Map<number, number>> {
  const { rows } = await superuser.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name like 'ibex%' and datname = current_database()`,
  );
  return usageOf(rows.map(({ pid }) => pid));
}

function usageOf(pids: readonly number[]): Map<number, number> {
  return new Map(pids.map((pid) => [pid, cpuSeconds(pid) ?? 0]));
}

async function watch(databases: Databases, daemon: number, seconds: number): Promise<Watched> {
  const [before, startedAt] = [await readUsage(databases, daemon), performance.now()];
  await sleep(seconds * 1000);
  const after = await readUsage(databases, daemon);
  const used = (part: keyof Usage) =>
    [...after[part]].reduce((sum, [pid, cpu]) => sum + cpu - (before[part].get(pid) ?? 0), 0);
  const cpu = { daemon: used('daemon'), source: used('source'), target: used('target') };
  const sessions = { source: after.source.size, target: after.target.size };
  return { seconds: (performance.now() - startedAt) / 1000, cpu, sessions };
}

function report(servers: object, tables: number, runs: readonly Watched[]): Outcome {
  const [first] = runs as [Watched];
  const median = (of: (run: Watched) => number) => percentile(runs.map(of), 50);
  const total = ({ cpu }: Watched) => cpu.daemon + cpu.source + cpu.target;
  const row = (name: string, processes: number, cpu: (run: Watched) => number) => [
    name,
    String(processes),
    median(cpu).toFixed(2),
    `${(100 * median((run) => cpu(run) / run.seconds)).toFixed(2)} %`,
  ];
  const { source, target } = first.sessions;
  return {
    servers,
    figures: { unit: 's', tables, ofOneCore: median((run) => total(run) / run.seconds), runs },
    content: [
      `${tables} tables, streaming, nothing to do, ${first.seconds.toFixed(1)} s, ${runs.length} times; medians`,
      '',
      [
        ['', 'processes', 'CPU s', 'of one core'],
        row('daemon', 1, ({ cpu }) => cpu.daemon),
        row('sessions on the source', source, ({ cpu }) => cpu.source),
        row('sessions on the target', target, ({ cpu }) => cpu.target),
        row('all', 1 + source + target, total),
      ],
    ],
    ok: true,
  };
}
