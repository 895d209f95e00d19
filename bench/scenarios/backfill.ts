/**
 * How fast existing rows are copied: Ibex with one and two jobs, beside the bare pipe of COPY into COPY, native logical
 * replication and programs that clone databases, on the same servers, in turns. What is measured, and why so, is in
 * the README beside this directory.
 */
import { findDifferences } from '../equality.ts';
import { checkpoint, type Databases, type Pair, settle } from '../pair.ts';
import { NATIVE, PG_DUMP, PGCOPYDB, PIPE } from '../peers.ts';
import { startRedisOrThrow } from '../redis.ts';
import { REDIS, REPEAT, type Scenario, say } from '../scenario.ts';
import { type CaseRuns, type Run, report } from './backfill-report.ts';
import { CASES, type Case, type CaseName, clone, many, narrow, wide } from './backfill-tables.ts';
import { ibexWay, nativeWay, pgcopydbWay, pgDumpWay, pipeWay, type Way } from './backfill-ways.ts';

const options = {
  cases: { kind: 'list', of: CASES, help: 'what to copy' },
  rows: { kind: 'number', default: 5_000_000, help: 'rows of the case narrow' },
  wide: { kind: 'number', default: 100_000, help: 'rows of the case wide' },
  tables: { kind: 'number', default: 200, help: 'tables of the case many' },
  clone: { kind: 'number', default: 5_000_000, help: 'rows of the case clone' },
  repeat: REPEAT,
  redis: REDIS,
} as const;

export const backfill: Scenario<typeof options> = {
  name: 'backfill',
  summary: 'rows/s of the copy of existing rows',
  options,
  peers: [PIPE, NATIVE, PGCOPYDB, PG_DUMP],
  sizes: {
    smoke: [{ options: { cases: ['narrow'], rows: 20_000, repeat: 1 }, minutes: 0.15 }],
    all: [
      { options: { cases: ['narrow', 'clone'] }, minutes: 6 },
      { options: { cases: ['wide', 'many'], repeat: 1 }, minutes: 4.5 },
    ],
    full: [{ options: { rows: 10_000_000, wide: 200_000, tables: 2_000 }, minutes: 60 }],
  },
  run: async ({ cases, repeat, redis, ...sizes }, { peers, servers: start }) => {
    await using queue = redis ? await startRedisOrThrow() : undefined;
    const chosen = CASES.filter((name) => cases.includes(name)).map((name) => caseOf(name, sizes));
    const all: CaseRuns[] = [];
    let servers: object | undefined;
    const plain = chosen.filter(({ name }) => name !== 'clone');
    if (plain.length > 0) {
      await using pair = await start();
      servers = await pair.describe();
      const ways = [...ibexWays(queue?.url), ...(peers.has('pipe') ? [pipeWay] : [])];
      if (peers.has('native')) ways.push(nativeWay());
      if (peers.has('pgcopydb')) ways.push(pgcopydbWay('rows'));
      for (const tables of plain) all.push(await runCase(pair, tables, ways, repeat));
    }
    for (const tables of chosen.filter(({ name }) => name === 'clone')) {
      await using pair = await start('distribution');
      servers ??= await pair.describe();
      // An empty target has nothing to start up with.
      const ways: Way[] = [{ ...ibexWay({ who: 'ibex, 2 jobs', jobs: 2 }), startUp: false }];
      if (peers.has('pgcopydb')) ways.push(pgcopydbWay('clone'));
      if (peers.has('pg_dump')) ways.push(pgDumpWay);
      all.push(await runCase(pair, tables, ways, repeat));
    }
    return report(servers as object, all);
  },
};

function caseOf(name: CaseName, sizes: Record<'rows' | 'wide' | 'tables' | 'clone', number>): Case {
  switch (name) {
    case 'narrow':
      return narrow(sizes.rows);
    case 'wide':
      return wide(sizes.wide);
    case 'many':
      return many(sizes.tables);
    case 'clone':
      return clone(sizes.clone);
  }
}

function ibexWays(redisUrl: string | undefined): Way[] {
  const ways = [1, 2].map((jobs) => ibexWay({ who: `ibex, ${jobs} ${jobs === 1 ? 'job' : 'jobs'}`, jobs }));
  if (redisUrl === undefined) return ways;
  const through = [1, 2, 4].map((workers) =>
    ibexWay({
      who: `ibex, redis, ${workers} ${workers === 1 ? 'worker' : 'workers'}`,
      jobs: 1,
      workers,
      redisUrl,
    }),
  );
  return [...ways, ...through];
}

/** The same tables twice on each server: with their rows, and without, for what is to be paid before the first row. */
async function runCase(pair: Pair, tables: Case, ways: readonly Way[], repeat: number): Promise<CaseRuns> {
  say(`${tables.name}: ${tables.title}`);
  const { postgresql } = (await pair.describe()) as { postgresql: string };
  const full = await create(pair, `${tables.name}_rows`, tables);
  const bare = await create(pair, `${tables.name}_bare`, tables);
  try {
    await tables.fill(full);
    await settle(full);
    await warmUp(full, tables, ways);
    const runs: Run[] = [];
    for (let round = 1; round <= repeat; round++) {
      for (const way of ways) {
        say(`${tables.name}: round ${round} of ${repeat}: ${way.who}`);
        runs.push({ who: way.who, round, ...(await copyOnce(way, tables, full, bare)) });
      }
    }
    const { name, title, rows } = tables;
    return { name, title, rows, postgresql, setUpFirst: name === 'many', runs };
  } finally {
    await full.drop();
    await bare.drop();
  }
}

/**
 * One copy more that counts for nobody: the target's server makes the files of its log, which all later copies use
 * again. Without it whoever comes first would pay for all.
 */
async function warmUp(full: Databases, tables: Case, ways: readonly Way[]): Promise<void> {
  const way = ways.find(({ who }) => who === pipeWay.who) ?? (ways[0] as Way);
  say(`${tables.name}: a first copy that does not count: ${way.who}`);
  await way.copy(full, tables);
  await way.leave?.(full);
  await tables.empty(full);
}

async function create(pair: Pair, name: string, tables: Case): Promise<Databases> {
  const databases = await pair.create(name);
  for (const side of [databases.source, databases.target]) await tables.create(side);
  return databases;
}

async function copyOnce(way: Way, tables: Case, full: Databases, bare: Databases) {
  let startUp: number | null = null;
  if (way.startUp && tables.name !== 'many') {
    startUp = (await way.copy(bare, tables)).seconds;
    await way.leave?.(bare);
  }
  await checkpoint(full);
  const { seconds, peakMib, setUp } = await way.copy(full, tables);
  startUp ??= setUp ?? null;
  const differences = [
    ...(await findDifferences(full, tables.tables)),
    ...((await tables.check?.(full)) ?? []),
  ];
  say(
    differences.length > 0
      ? `  NOT EQUAL: ${differences.slice(0, 3).join('; ')}`
      : `  equal after ${seconds.toFixed(2)} s${startUp === null ? '' : ` (start-up ${startUp.toFixed(2)} s)`}`,
  );
  await way.leave?.(full);
  await tables.empty(full);
  return { seconds, peakMib, startUp, differences };
}
