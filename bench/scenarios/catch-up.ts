/**
 * How long a target that fell behind takes to have everything: Ibex against native logical replication, on the
 * same servers, in turns. What is measured, and why so, is in the README beside this directory.
 */
import { performance } from 'node:perf_hooks';
import { requireSuccess } from '../children.ts';
import { findDifferences } from '../equality.ts';
import { Ibex } from '../ibex.ts';
import { setMark, whenMarked } from '../mark.ts';
import { NativeReplication } from '../native.ts';
import { type Databases, type Pair, settle, type Templates } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES, runTransactions } from '../pgbench.ts';
import { cpuSeconds, hasProc, readUntilEnd, serverCpuSeconds } from '../proc.ts';
import { startRedisOrThrow } from '../redis.ts';
import { REDIS, REPEAT, type Scenario, say } from '../scenario.ts';
import { type Run, report, type Times } from './catch-up-report.ts';

const SCALE = 10;
const NATIVE_PATIENCE_MS = 30 * 60_000;

const options = {
  transactions: { kind: 'number', default: 55_000, help: 'TPC-B transactions to fall behind' },
  repeat: REPEAT,
  redis: REDIS,
} as const;

/** Catches up once with what is there, up to the mark. */
type CatchUp = (mark: string) => Promise<Omit<Times, 'cpu'> & { readonly daemonCpu: number }>;

export const catchUp: Scenario<typeof options> = {
  name: 'catch-up',
  summary: 'time to catch up with a backlog of pgbench transactions, beside native logical replication',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [{ options: { transactions: 500, repeat: 1 }, minutes: 0.3 }],
    all: [{ options: { redis: true }, minutes: 10 }],
    full: [{ options: { redis: true, repeat: 5 }, minutes: 20 }],
  },
  run: async ({ transactions, repeat, redis }, { peers, servers }) => {
    findPgbench();
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await servers();
    say(`filling pgbench tables of scale ${SCALE}`);
    const templates = await makePgbenchTemplates(pair, SCALE);
    const runs: Run[] = [];
    for (let round = 1; round <= repeat; round++) {
      const once = (who: string, body: (databases: Databases, measure: Measure) => Promise<Run>) =>
        inFreshDatabases(pair, templates, async (databases) => {
          say(`round ${round} of ${repeat}: ${who}`);
          const measure = (catchUp: CatchUp) =>
            fallBehind({ pair, databases }, { who, round, transactions }, catchUp);
          runs.push(await body(databases, measure));
        });
      await once('ibex', (databases, measure) => runIbex(databases, measure));
      if (peers.has('native')) await once('native', runNative);
      if (queue !== undefined)
        await once('ibex, redis', (databases, measure) => runIbex(databases, measure, queue.url));
    }
    return report(await pair.describe(), { scale: SCALE, transactions }, runs);
  },
};

type Measure = (catchUp: CatchUp) => Promise<Run>;

async function inFreshDatabases(
  pair: Pair,
  templates: Templates,
  body: (databases: Databases) => Promise<void>,
): Promise<void> {
  const databases = await pair.create('catch_up', templates);
  try {
    await body(databases);
  } finally {
    await databases.drop();
  }
}

/** In step already, and stopped: measures an empty catch-up, makes the backlog, measures the real one, compares. */
async function fallBehind(
  { pair, databases }: { pair: Pair; databases: Databases },
  { who, round, transactions }: { who: string; round: number; transactions: number },
  catchUp: CatchUp,
): Promise<Run> {
  await settle(databases);
  await setMark(databases, 'start-up');
  const startUp = await withCpu(pair, () => catchUp('start-up'));
  say(`  ${transactions} transactions`);
  await runTransactions(databases.source.login, transactions, round);
  await setMark(databases, 'backlog');
  const backlog = await withCpu(pair, () => catchUp('backlog'));
  const differences = await findDifferences(databases, PGBENCH_TABLES);
  say(
    differences.length > 0
      ? `  NOT EQUAL: ${differences.join('; ')}`
      : `  equal after ${backlog.equal.toFixed(3)} s (start-up ${startUp.equal.toFixed(3)} s)`,
  );
  return { who, round, startUp, backlog, differences };
}

async function withCpu(pair: Pair, catchUp: () => ReturnType<CatchUp>): Promise<Times> {
  const read = (server: Pair['source']) => (hasProc ? serverCpuSeconds(server) : 0);
  const before = { source: read(pair.source), target: read(pair.target) };
  const { equal, exit, daemonCpu } = await catchUp();
  const source = read(pair.source) - before.source;
  const target = read(pair.target) - before.target;
  return { equal, exit, cpu: { daemon: daemonCpu, source, target } };
}

async function runIbex(databases: Databases, measure: Measure, redisUrl?: string): Promise<Run> {
  const ibex = new Ibex(databases, redisUrl);
  await ibex.run('backfill');
  return measure(async (mark) => {
    const process = await ibex.start('run', '--until-caught-up');
    const cpu = readUntilEnd(process, cpuSeconds);
    const seen = await whenMarked(databases, mark, () => process.running);
    const ended = requireSuccess('ibex run --until-caught-up', await process.ended);
    if (seen === undefined)
      throw new Error('ibex run --until-caught-up ended before the target had everything');
    const since = (time: number) => (time - process.startedAt) / 1000;
    return { equal: since(seen), exit: since(ended.at), daemonCpu: await cpu };
  });
}

async function runNative(databases: Databases, measure: Measure): Promise<Run> {
  const native = await NativeReplication.create(databases, PGBENCH_TABLES);
  try {
    await native.disable();
    return await measure(async (mark) => {
      const startedAt = performance.now();
      await native.enable();
      const deadline = Date.now() + NATIVE_PATIENCE_MS;
      const seen = await whenMarked(databases, mark, () => Date.now() < deadline);
      if (seen === undefined) throw new Error('native logical replication did not catch up');
      await native.disable();
      return { equal: (seen - startedAt) / 1000, exit: null, daemonCpu: 0 };
    });
  } finally {
    await native.drop();
  }
}
