/**
 * What a daemon costs while nothing happens: CPU time of its process and of its server sessions, over a while, as
 * a share of one core. Linux only.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Ibex } from '../ibex.ts';
import { type Databases, Pair, type Side, settle } from '../pair.ts';
import { cpuSeconds, requireProc } from '../proc.ts';
import { type Outcome, type Scenario, say } from '../scenario.ts';
import { table } from '../statistics.ts';

/** For pauses between looks to have grown to their longest. */
const CALM_MS = 3_000;

const options = {
  seconds: { kind: 'number', default: 20, help: 'how long to watch' },
  tables: { kind: 'number', default: 200, help: 'tables of ten rows' },
} as const;

/** CPU seconds used so far, by process, for each part that is watched. */
type Usage = Readonly<Record<'daemon' | 'source' | 'target', ReadonlyMap<number, number>>>;

export const idle: Scenario<typeof options> = {
  name: 'idle',
  summary: 'CPU that a streaming daemon uses while nothing happens',
  options,
  run: async ({ seconds, tables }) => {
    requireProc();
    await using pair = await Pair.start();
    const databases = await pair.create('idle');
    await createTables(databases, tables);
    say(`copying ${tables} tables`);
    const daemon = await new Ibex(databases).daemon();
    try {
      await settle(databases);
      await sleep(CALM_MS);
      say(`watching for ${seconds} s`);
      const [before, startedAt] = [await readUsage(databases, daemon.pid), performance.now()];
      await sleep(seconds * 1000);
      const after = await readUsage(databases, daemon.pid);
      const watched = (performance.now() - startedAt) / 1000;
      return report(await pair.describe(), tables, watched, before, after);
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

function report(servers: object, tables: number, watched: number, before: Usage, after: Usage): Outcome {
  const used = (part: keyof Usage) =>
    [...after[part]].reduce((sum, [pid, seconds]) => sum + seconds - (before[part].get(pid) ?? 0), 0);
  const cpu = { daemon: used('daemon'), source: used('source'), target: used('target') };
  const total = cpu.daemon + cpu.source + cpu.target;
  const share = (seconds: number) => `${((100 * seconds) / watched).toFixed(2)} %`;
  const rows: [string, number, number][] = [
    ['daemon', 1, cpu.daemon],
    ['sessions on the source', after.source.size, cpu.source],
    ['sessions on the target', after.target.size, cpu.target],
    ['all', 1 + after.source.size + after.target.size, total],
  ];
  return {
    servers,
    figures: { unit: 's', tables, watched, cpu: { ...cpu, total }, ofOneCore: total / watched },
    screen: [
      `${tables} tables, streaming, nothing to do, ${watched.toFixed(1)} s`,
      '',
      ...table([
        ['', 'processes', 'CPU s', 'of one core'],
        ...rows.map(([name, count, seconds]) => [name, String(count), seconds.toFixed(2), share(seconds)]),
      ]),
    ],
    ok: true,
  };
}
