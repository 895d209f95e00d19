/**
 * How long a committed change takes to be visible on the target, on an idle system and at shares of the load that the
 * source can bear: a probe that is no part of what is measured writes on one side and looks on the other.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { readCpu, totalCpu, usedCpu } from '../cpu.ts';
import { Ibex } from '../ibex.ts';
import { runLoad } from '../load.ts';
import { type Pair, settle, type Templates } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES } from '../pgbench.ts';
import { probe } from '../probe.ts';
import { startRedisOrThrow } from '../redis.ts';
import { REDIS, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { streamsOf } from '../streams.ts';
import { inTurns, type Stage } from '../while-streaming.ts';
import { type Level, report } from './lag-report.ts';

/** Percent of the saturating load; 0 is an idle system. */
const SHARES = [0, 25, 50, 75];
const WARM_UP_SECONDS = 2;
const SATURATED_SECONDS = 5;
const PAUSE_MS = 20;
/** Without a load the pauses are such that the daemon has begun to look at the source less often. */
const IDLE_PAUSE_MS = { min: 100, max: 400 };

const options = {
  seconds: { kind: 'number', default: 10, help: 'to look at each load' },
  repeat: REPEAT,
  scale: SCALE,
  redis: REDIS,
} as const;

export const lag: Scenario<typeof options> = {
  name: 'lag',
  summary: 'time from commit to visible on the target, idle and at shares of the saturating load',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [],
    all: [{ options: { seconds: 5 }, minutes: 4 }],
    full: [{ options: { seconds: 60, redis: true }, minutes: 50 }],
  },
  run: async ({ seconds, repeat, redis, scale }, { peers, servers }) => {
    findPgbench();
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    const saturating = await saturatingLoad(pair, templates);
    say(`saturating load: ${saturating.toFixed(0)} transactions/s`);
    const turns = await inTurns(
      { pair, tables: { names: PGBENCH_TABLES, templates }, repeat },
      streamsOf(peers, queue?.url),
      (stage, round) => measureLevels(stage, { saturating, seconds, round }),
    );
    return report(await pair.describe(), { scale, seconds, saturating }, turns);
  },
};

/** What pgbench reaches with capture on and nobody who reads what was captured. */
async function saturatingLoad(pair: Pair, templates: Templates): Promise<number> {
  const databases = await pair.create('armed', templates);
  try {
    await Ibex.oneWay(databases).run('setup');
    await settle(databases);
    return (await runLoad(databases.source.login, { seconds: SATURATED_SECONDS, seed: 1 })).tps;
  } finally {
    await databases.drop();
  }
}

async function measureLevels(
  stage: Stage,
  { saturating, seconds, round }: { saturating: number; seconds: number; round: number },
): Promise<Level[]> {
  const levels: Level[] = [];
  for (const share of SHARES) {
    const rate = (saturating * share) / 100;
    levels.push({ share, ...(await measureAt(stage, { rate, seconds, seed: 100 * round + share })) });
  }
  return levels;
}

async function measureAt(
  { pair, databases, pid }: Stage,
  { rate, seconds, seed }: { rate: number; seconds: number; seed: number },
): Promise<Omit<Level, 'share'>> {
  const whole = WARM_UP_SECONDS + seconds;
  const [before, startedAt] = [readCpu(pair, pid), performance.now()];
  const idle = rate === 0;
  const load = idle
    ? sleep(1000 * whole, { tps: 0 })
    : runLoad(databases.source.login, { seconds: whole, seed, rate });
  const [{ tps }, samples] = await Promise.all([
    load,
    probe(databases, load, idle ? idlePause : loadedPause),
  ]);
  const used = totalCpu(usedCpu(before, readCpu(pair, pid)));
  return {
    tps,
    cores: (1000 * used) / (performance.now() - startedAt),
    samples: samples.filter(({ at }) => at >= WARM_UP_SECONDS),
  };
}

const loadedPause = () => PAUSE_MS;
const idlePause = () => IDLE_PAUSE_MS.min + Math.random() * (IDLE_PAUSE_MS.max - IDLE_PAUSE_MS.min);
