/**
 * How long a committed change of an idle system takes to be visible on the target: from the reply to the commit
 * on the source to the first look that sees it, the next look following at once on the last.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Ibex } from '../ibex.ts';
import type { Databases, Pair } from '../pair.ts';
import { startRedisOrThrow } from '../redis.ts';
import { type Outcome, REDIS, REPEAT, type Scenario, say } from '../scenario.ts';
import { percentile } from '../statistics.ts';

const PAUSE_MS = { min: 100, max: 400 };
const ROWS = 1_000;
const LOST_AFTER_MS = 30_000;

const options = {
  samples: { kind: 'number', default: 200, help: 'changes to time a run' },
  repeat: { ...REPEAT, default: 1 },
  redis: REDIS,
} as const;

interface Series {
  readonly who: string;
  /** Milliseconds, in the order of measuring. */
  readonly samples: readonly number[];
}

export const latency: Scenario<typeof options> = {
  name: 'latency',
  summary: 'time until one committed row of an idle system is visible on the target',
  options,
  peers: [],
  sizes: {
    smoke: [{ options: { samples: 5 }, minutes: 0.1 }],
    all: [{ options: { redis: true }, minutes: 2 }],
    full: [{ options: { redis: true, samples: 1_000 }, minutes: 9 }],
  },
  run: async ({ samples, repeat, redis }, { servers }) => {
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await servers();
    const runs: Series[] = [];
    for (let round = 1; round <= repeat; round++) {
      runs.push(await measure(pair, 'in process', samples));
      if (queue !== undefined) runs.push(await measure(pair, 'redis', samples, queue.url));
    }
    return report(await pair.describe(), joined(runs));
  },
};

async function measure(pair: Pair, who: string, count: number, redisUrl?: string): Promise<Series> {
  say(`${who}: ${count} samples`);
  const databases = await pair.create('latency');
  for (const side of [databases.source, databases.target]) {
    await side.owner.query('create table changed (id int primary key, value int not null)');
  }
  await databases.source.owner.query(`insert into changed select i, 0 from generate_series(1, ${ROWS}) i`);
  const daemon = await new Ibex(databases, redisUrl).daemon();
  try {
    const samples: number[] = [];
    while (samples.length < count) {
      await sleep(PAUSE_MS.min + Math.random() * (PAUSE_MS.max - PAUSE_MS.min));
      samples.push(await timeOneChange(databases));
    }
    return { who, samples };
  } finally {
    await daemon.stop();
    await databases.drop();
  }
}

/** The samples of all runs of one kind together. */
function joined(runs: readonly Series[]): Series[] {
  const kinds = [...new Set(runs.map(({ who }) => who))];
  return kinds.map((who) => ({
    who,
    samples: runs.filter((run) => run.who === who).flatMap(({ samples }) => samples),
  }));
}

async function timeOneChange({ source, target }: Databases): Promise<number> {
  const id = 1 + Math.floor(Math.random() * ROWS);
  const { rows } = await source.owner.query<{ value: number }>({
    name: 'change',
    text: 'update changed set value = value + 1 where id = $1 returning value',
    values: [id],
  });
  const committed = performance.now();
  while (performance.now() - committed < LOST_AFTER_MS) {
    const seen = await target.owner.query<{ value: number }>({
      name: 'look',
      text: 'select value from changed where id = $1',
      values: [id],
    });
    if (seen.rows[0]?.value === rows[0]?.value) return performance.now() - committed;
  }
  throw new Error(`a change was not on the target after ${LOST_AFTER_MS / 1000} s`);
}

function report(servers: object, all: readonly Series[]): Outcome {
  const figures = all.map(({ who, samples }) => ({
    who,
    p50: percentile(samples, 50),
    p90: percentile(samples, 90),
    p99: percentile(samples, 99),
    min: Math.min(...samples),
    max: Math.max(...samples),
  }));
  return {
    servers,
    figures: { unit: 'ms', figures, series: all },
    content: [
      `one row on an idle system, ${all[0]?.samples.length} samples; milliseconds from commit to visible`,
      '',
      [
        ['', 'p50', 'p90', 'p99', 'min', 'max'],
        ...figures.map(({ who, ...values }) => [who, ...Object.values(values).map((ms) => ms.toFixed(1))]),
      ],
    ],
    ok: true,
  };
}
