/** What the runs of `lag` come to: percentiles for each load and way of replicating, over the samples of all rounds. */
import type { Plot } from '../charts/plot.ts';
import type { Sample } from '../probe.ts';
import type { Outcome } from '../scenario.ts';
import { percentile } from '../statistics.ts';
import { byWho, equalityOf, type Turn } from '../while-streaming.ts';

/** Percent of the saturating load that the contract is about. */
const CONTRACT_SHARE = 50;

export interface Level {
  /** Percent of the saturating load. */
  readonly share: number;
  /** Transactions per second that pgbench came to. */
  readonly tps: number;
  /** CPU seconds of daemon and servers for a second of the clock; 0 where nobody tells. */
  readonly cores: number;
  readonly samples: readonly Sample[];
}

interface Figures {
  readonly who: string;
  readonly share: number;
  readonly tps: number;
  readonly cores: number;
  /** Milliseconds. */
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

export function report(
  servers: object,
  { scale, seconds, saturating }: { scale: number; seconds: number; saturating: number },
  turns: readonly Turn<Level[]>[],
): Outcome {
  const figures = [...byWho(turns)]
    .flatMap(([who, rounds]) => figuresOf(who, rounds.flat()))
    .toSorted((a, b) => a.share - b.share);
  const equality = equalityOf(turns);
  return {
    servers,
    figures: { unit: 'ms', scale, seconds, saturating, figures, runs: turns },
    content: [
      `saturating load (capture on, no daemon): ${saturating.toFixed(0)} TPC-B transactions/s, scale ${scale}`,
      `milliseconds from commit to visible, ${seconds} s at each load in each round`,
      '',
      [['', 'transactions/s', 'p50', 'p90', 'p99', 'max', 'cores busy'], ...figures.map(rowOf)],
      '',
      equality.line,
    ],
    plots: plotsOf(turns),
    contract: contractOf(figures),
    ok: equality.ok,
  };
}

/** The samples of all rounds together, for each load. */
function figuresOf(who: string, all: readonly Level[]): Figures[] {
  return [...new Set(all.map(({ share }) => share))].map((share) => {
    const levels = all.filter((level) => level.share === share);
    const lags = levels.flatMap(({ samples }) => samples.map(({ lag }) => lag));
    const median = (of: (level: Level) => number) => percentile(levels.map(of), 50);
    return {
      who,
      share,
      tps: median(({ tps }) => tps),
      cores: median(({ cores }) => cores),
      p50: percentile(lags, 50),
      p90: percentile(lags, 90),
      p99: percentile(lags, 99),
      max: percentile(lags, 100),
    };
  });
}

function rowOf({ who, share, tps, cores, ...lags }: Figures): string[] {
  const { p50, p90, p99, max } = lags;
  return [
    share === 0 ? `idle, ${who}` : `${share} %, ${who}`,
    tps.toFixed(0),
    ...[p50, p90, p99, max].map((ms) => ms.toFixed(1)),
    cores.toFixed(2),
  ];
}

/** The first round at the share that the contract is about: what came after it is in the document. */
function plotsOf(turns: readonly Turn<Level[]>[]): Plot[] {
  const series = turns
    .filter(({ round }) => round === 1)
    .flatMap(({ who, figures = [] }) =>
      figures
        .filter(({ share }) => share === CONTRACT_SHARE)
        .map(({ samples }) => ({
          label: who,
          ours: who.startsWith('ibex'),
          points: samples.map(({ at, lag }) => [at, lag] as const),
        })),
    );
  return [
    {
      kind: 'lines',
      name: 'over-time',
      title: 'Lag over time at half the load that the source can bear',
      subtitle: 'TPC-B; a row committed every 20 ms, from commit to visible on the target',
      x: 'seconds of load',
      y: 'lag, ms',
      series,
    },
  ];
}

function contractOf(figures: readonly Figures[]): NonNullable<Outcome['contract']> {
  return figures
    .filter(({ who, share }) => who === 'ibex' && share === CONTRACT_SHARE)
    .flatMap(({ p50, p99 }) => [
      { row: 'lag-p50' as const, value: p50 },
      { row: 'lag-p99' as const, value: p99 },
    ]);
}
