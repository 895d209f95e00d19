/**
 * The most memory that a daemon ever has while it catches up with a large backlog: the high-water mark of its
 * resident set, which the kernel keeps. Linux only.
 */
import { requireSuccess } from '../children.ts';
import { findDifferences } from '../equality.ts';
import { Ibex } from '../ibex.ts';
import { type Pair, settle } from '../pair.ts';
import { peakMemoryMib, readUntilEnd, requireProc } from '../proc.ts';
import { startRedisOrThrow } from '../redis.ts';
import { type Outcome, REDIS, REPEAT, type Scenario, say } from '../scenario.ts';
import { range, summarise } from '../statistics.ts';

const options = {
  rows: { kind: 'number', default: 1_000_000, help: 'rows, each changed while the daemon is stopped' },
  repeat: { ...REPEAT, default: 1 },
  redis: REDIS,
} as const;

interface Measured {
  readonly who: string;
  /** MiB with nothing to catch up with. */
  readonly atRest: number;
  /** MiB with the backlog. */
  readonly peak: number;
  readonly seconds: number;
  readonly differences: readonly string[];
}

export const memory: Scenario<typeof options> = {
  name: 'memory',
  summary: 'the most memory the daemon takes while it catches up with many changed keys',
  options,
  peers: [],
  sizes: {
    smoke: [],
    all: [{ options: { redis: true }, minutes: 1.5 }],
    full: [{ options: { redis: true, rows: 10_000_000 }, minutes: 20 }],
  },
  run: async ({ rows, repeat, redis }, { servers }) => {
    requireProc();
    await using queue = redis ? await startRedisOrThrow() : undefined;
    await using pair = await servers();
    const all: Measured[] = [];
    for (let round = 1; round <= repeat; round++) {
      all.push(await measure(pair, 'in process', rows));
      if (queue !== undefined) all.push(await measure(pair, 'redis', rows, queue.url));
    }
    return report(await pair.describe(), rows, all);
  },
};

async function measure(pair: Pair, who: string, rows: number, redisUrl?: string): Promise<Measured> {
  say(`${who}: ${rows} rows`);
  const databases = await pair.create('memory');
  try {
    for (const side of [databases.source, databases.target]) {
      await side.owner.query(
        'create table changed (id bigint primary key, counter int not null, filler text not null)',
      );
    }
    await databases.source.owner.query(
      `insert into changed select i, 0, repeat('x', 84) from generate_series(1, ${rows}) i`,
    );
    const ibex = Ibex.oneWay(databases, redisUrl);
    await ibex.run('backfill');
    await settle(databases);
    const rest = await catchUp(ibex);
    await databases.source.owner.query('update changed set counter = counter + 1');
    say('  catching up');
    const { peak, seconds } = await catchUp(ibex);
    const differences = await findDifferences(databases, ['changed']);
    return { who, atRest: rest.peak, peak, seconds, differences };
  } finally {
    await databases.drop();
  }
}

async function catchUp(ibex: Ibex): Promise<{ peak: number; seconds: number }> {
  const daemon = await ibex.start('run', '--until-caught-up');
  const peak = await readUntilEnd(daemon, peakMemoryMib);
  const ended = requireSuccess('ibex run --until-caught-up', await daemon.ended);
  return { peak, seconds: (ended.at - daemon.startedAt) / 1000 };
}

function report(servers: object, rows: number, all: readonly Measured[]): Outcome {
  const equal = all.filter(({ differences }) => differences.length === 0);
  const names = [...new Set(equal.map(({ who }) => who))];
  return {
    servers,
    figures: { unit: 'MiB', rows, measured: all },
    content: [
      `${rows} changed keys of backlog; most resident memory of the daemon in MiB, median (min-max)`,
      '',
      [['', 'nothing to do', 'backlog', 'seconds'], ...names.map((who) => rowOf(who, equal))],
      ...all.flatMap(({ who, differences }) => differences.map((text) => `${who}: NOT EQUAL: ${text}`)),
    ],
    contract: equal.map(({ peak }) => ({ row: 'memory', value: (peak * 2 ** 20) / 1e6 })),
    ok: equal.length === all.length,
  };
}

function rowOf(who: string, runs: readonly Measured[]): string[] {
  const own = runs.filter((run) => run.who === who);
  const of = (what: 'atRest' | 'peak' | 'seconds', digits: number) =>
    range(summarise(own.map((run) => run[what])), digits);
  return [who, of('atRest', 0), of('peak', 0), of('seconds', 1)];
}
