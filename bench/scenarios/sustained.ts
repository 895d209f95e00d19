/**
 * The highest TPC-B rate at which the lag stays what it is: searched with probes of some seconds each, in which pgbench
 * runs at a rate and the lag of a row beside it is looked at. Steady is where a line through the lags does not rise.
 */
import { runLoad } from '../load.ts';
import { type Pair, settle, type Templates } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { findPgbench, makePgbenchTemplates, PGBENCH_TABLES } from '../pgbench.ts';
import { probe } from '../probe.ts';
import { type Outcome, REPEAT, SCALE, type Scenario, say } from '../scenario.ts';
import { highestRate } from '../search.ts';
import { percentile, range, slope, summarise } from '../statistics.ts';
import { streamsOf } from '../streams.ts';
import { byWho, equalityOf, inTurns, type Stage, type Turn } from '../while-streaming.ts';

const WARM_UP_SECONDS = 2;
const PAUSE_MS = 20;
/** Halvings of the search: the result is exact to 3 % of the highest rate. */
const STEPS = 5;
/** Milliseconds of lag in a second that count as none: what a line through scattered lags shows by chance. */
const STEADY = 20;
/** A load that stays below this share of the rate that was asked for has not been borne. */
const REACHED = 0.95;

const options = {
  seconds: { kind: 'number', default: 8, help: 'to look at each rate' },
  repeat: { ...REPEAT, default: 1 },
  scale: SCALE,
} as const;

interface Attempt {
  /** Transactions per second; null for as many as there can be. */
  readonly asked: number | null;
  readonly tps: number;
  /** Milliseconds of lag in a second. */
  readonly slope: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly steady: boolean;
}

interface Found {
  readonly sustained: number;
  readonly attempts: readonly Attempt[];
}

export const sustained: Scenario<typeof options> = {
  name: 'sustained',
  summary: 'the highest TPC-B rate at which the lag does not grow',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [],
    all: [{ options: { seconds: 5, repeat: 3 }, minutes: 3 }],
    full: [{ options: { seconds: 30, repeat: 3 }, minutes: 30 }],
  },
  run: async ({ seconds, repeat, scale }, { peers, servers }) => {
    findPgbench();
    await using pair = await servers();
    say(`filling pgbench tables of scale ${scale}`);
    const templates = await makePgbenchTemplates(pair, scale);
    const limit = await limitOfLoad(pair, templates, seconds);
    say(`without replication: ${limit.toFixed(0)} transactions/s`);
    const tables = { names: PGBENCH_TABLES, templates };
    const turns = await inTurns({ pair, tables, repeat }, streamsOf(peers), (stage, round) =>
      search(stage, seconds, round),
    );
    return report(await pair.describe(), { scale, limit }, turns);
  },
};

/** What the load generator reaches where nobody captures and nobody replicates. */
async function limitOfLoad(pair: Pair, templates: Templates, seconds: number): Promise<number> {
  const databases = await pair.create('plain', templates);
  try {
    await settle(databases);
    return (await runLoad(databases.source.login, { seconds, seed: 1 })).tps;
  } finally {
    await databases.drop();
  }
}

async function search(stage: Stage, seconds: number, round: number): Promise<Found> {
  const attempts: Attempt[] = [];
  const attempt = async (asked: number | null): Promise<Attempt> => {
    const tried = await attemptAt(stage, asked, { seconds, seed: 100 * round + attempts.length });
    say(
      `  ${asked?.toFixed(0) ?? 'all'} transactions/s: ${tried.tps.toFixed(0)}, lag ${tried.p50.toFixed(0)} ms, ` +
        `${tried.slope.toFixed(1)} ms/s: ${tried.steady ? 'steady' : 'falls behind'}`,
    );
    attempts.push(tried);
    return tried;
  };
  const all = await attempt(null);
  const sustained = all.steady
    ? all.tps
    : await highestRate(all.tps, STEPS, async (rate) => (await attempt(rate)).steady);
  return { sustained, attempts };
}

async function attemptAt(
  { databases }: Stage,
  asked: number | null,
  { seconds, seed }: { seconds: number; seed: number },
): Promise<Attempt> {
  const rate = asked === null ? {} : { rate: asked };
  const load = runLoad(databases.source.login, { seconds: WARM_UP_SECONDS + seconds, seed, ...rate });
  const [{ tps }, samples] = await Promise.all([load, probe(databases, load, () => PAUSE_MS)]);
  const looked = samples.filter(({ at }) => at >= WARM_UP_SECONDS && at <= WARM_UP_SECONDS + seconds);
  const rise = slope(looked.map(({ at, lag }) => ({ x: at, y: lag })));
  const p50 = percentile(
    looked.map(({ lag }) => lag),
    50,
  );
  const reached = asked === null || tps >= REACHED * asked;
  return { asked, tps, slope: rise, p50, steady: reached && rise < STEADY };
}

function report(
  servers: object,
  { scale, limit }: { scale: number; limit: number },
  turns: readonly Turn<Found>[],
): Outcome {
  const rates = new Map(
    [...byWho(turns)].map(([who, found]) => [who, summarise(found.map((one) => one.sustained))] as const),
  );
  const native = rates.get('native');
  const ibex = rates.get('ibex');
  const ratio = native?.median && ibex ? ibex.median / native.median : undefined;
  const equality = equalityOf(turns);
  return {
    servers,
    figures: {
      unit: 'transactions/s',
      scale,
      limit,
      rates: Object.fromEntries(rates),
      ratio,
      runs: turns,
    },
    content: [
      `TPC-B transactions/s, scale ${scale}, eight clients, lag rising by less than ${STEADY} ms in a second; median (min-max)`,
      '',
      [
        ['', 'sustained', 'of the limit'],
        ['load generator without replication (limit)', limit.toFixed(0), '100 %'],
        ...[...rates].map(([who, rate]) => [
          who,
          range(rate, 0),
          `${((100 * rate.median) / limit).toFixed(0)} %`,
        ]),
      ],
      ...(ratio === undefined ? [] : ['', `ibex / native: ${ratio.toFixed(2)}x`]),
      '',
      equality.line,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'rates',
        title: 'The highest rate without falling behind',
        subtitle: 'TPC-B transactions/s at which the lag does not grow',
        unit: '/s',
        bars: [...rates].map(([who, { median, min, max }]) => ({
          label: who,
          value: median,
          spread: [min, max] as const,
          ours: who === 'ibex',
        })),
        reference: { value: limit, label: 'without replication' },
      },
    ],
    contract: ratio === undefined ? [] : [{ row: 'sustained', value: ratio }],
    ok: equality.ok,
  };
}
