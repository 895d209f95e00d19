/**
 * How long a target that fell behind takes to have everything: Ibex beside native logical replication and Bucardo, on
 * the same servers, in turns. What is measured, and why so, is in the README beside this directory.
 */
import { performance } from 'node:perf_hooks';
import { findDifferences } from '../equality.ts';
import { setMark, whenMarked } from '../mark.ts';
import { type Databases, type Pair, settle } from '../pair.ts';
import { BUCARDO, NATIVE } from '../peers.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES, runTransactions } from '../pgbench.ts';
import { serverCpuSeconds } from '../proc.ts';
import { startRedisOrThrow } from '../redis.ts';
import { REDIS, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { CONTRACT_TRANSACTIONS, type Run, report } from './catch-up-report.ts';
import { bucardoWay, coldWay, ibexWay, nativeWay, twoWayWays, type Way } from './catch-up-ways.ts';

const PATIENCE_MS = 30 * 60_000;

const options = {
  transactions: { kind: 'number', default: CONTRACT_TRANSACTIONS, help: 'TPC-B transactions to fall behind' },
  scale: SCALE,
  repeat: REPEAT,
  cold: { kind: 'flag', help: "once also the daemon's start from nothing" },
  redis: REDIS,
  'two-way': { kind: 'flag', help: 'also what it costs that both sides may be written' },
} as const;

export const catchUp: Scenario<typeof options> = {
  name: 'catch-up',
  summary: 'time to catch up with a backlog of pgbench transactions',
  options,
  peers: [NATIVE, BUCARDO],
  sizes: {
    smoke: [{ options: { transactions: 500, scale: 1, repeat: 1 }, minutes: 0.15 }],
    all: [{ options: { cold: true, redis: true, 'two-way': true }, minutes: 10.5 }],
    full: [{ options: { cold: true, redis: true, 'two-way': true, repeat: 5 }, minutes: 20 }],
  },
  run: async ({ transactions, scale, repeat, cold, redis, 'two-way': twoWay }, { peers, servers }) => {
    findPgbench();
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    const ways = [ibexWay('ibex')];
    if (peers.has('native')) ways.push(nativeWay);
    if (queue !== undefined) ways.push(ibexWay('ibex, redis', queue.url));
    if (peers.has('bucardo')) ways.push(bucardoWay);
    if (twoWay) ways.push(...twoWayWays);
    const runs: Run[] = [];
    for (let round = 1; round <= repeat; round++) {
      for (const way of cold && round === 1 ? [...ways, coldWay] : ways) {
        say(`round ${round} of ${repeat}: ${way.who}`);
        const databases = await pair.create('catch_up', templates);
        try {
          runs.push({ who: way.who, round, ...(await fallBehind(pair, databases, way, transactions)) });
        } finally {
          await databases.drop();
        }
      }
    }
    return report(await pair.describe(), { scale, transactions }, runs);
  },
};

/** In step and held back: makes the backlog, measures until it is gone, compares. */
async function fallBehind(
  pair: Pair,
  databases: Databases,
  way: Way,
  transactions: number,
): Promise<Omit<Run, 'who' | 'round'>> {
  const held = await way.hold(databases);
  try {
    await settle(databases);
    say(`  ${transactions} transactions`);
    await runTransactions(databases.source.login, transactions, 1);
    await setMark(databases, 'backlog');
    const cpu = () => held.cpu() + serverCpuSeconds(pair.source) + serverCpuSeconds(pair.target);
    const [before, startedAt] = [cpu(), await held.begin()];
    const alive = () => held.alive() && performance.now() - startedAt < PATIENCE_MS;
    const seen = await whenMarked(databases, 'backlog', alive);
    if (seen === undefined) throw new Error(`${way.who} did not catch up`);
    const [seconds, cpuSeconds] = [(seen - startedAt) / 1000, cpu() - before];
    const differences = await findDifferences(databases, PGBENCH_TABLES);
    say(
      differences.length > 0
        ? `  NOT EQUAL: ${differences.join('; ')}`
        : `  equal after ${seconds.toFixed(3)} s, ${cpuSeconds.toFixed(2)} s of CPU`,
    );
    return { seconds, cpu: cpuSeconds, differences };
  } finally {
    await held.leave();
  }
}
