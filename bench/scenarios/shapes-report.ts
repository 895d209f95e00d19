/** What a load of its own shape comes to, for each way of replicating: rate, lag and CPU of a change. */

import type { Plot } from '../charts/plot.ts';
import type { Cpu } from '../cpu.ts';
import type { Sample } from '../probe.ts';
import type { Outcome } from '../scenario.ts';
import { percentile } from '../statistics.ts';
import { byWho, equalityOf, type Turn } from '../while-streaming.ts';

export interface Figures {
  /** At the fixed rate. */
  readonly samples: readonly Sample[];
  /** Microseconds for each change, at the fixed rate. */
  readonly cpu: Cpu;
  /** Changes per second of the load alone, at full speed. */
  readonly loadRate: number;
  /** Changes per second until the target had everything, at full speed. */
  readonly rate: number;
}

/** The load without anybody who replicates: changes per second at full speed, and CPU at the fixed rate. */
export type Alone = Pick<Figures, 'rate' | 'cpu'>;

interface Row extends Omit<Figures, 'samples'> {
  readonly who: string;
  /** Milliseconds. */
  readonly p50: number;
  readonly p99: number;
}

export function report(
  servers: object,
  { name, rate, seconds }: { name: string; rate: number; seconds: number },
  alone: Alone,
  turns: readonly Turn<Figures>[],
): Outcome {
  const rows = [...byWho(turns)].map(([who, all]) => rowOf(who, all));
  const equality = equalityOf(turns);
  return {
    servers,
    figures: { rate, seconds, alone, rows, runs: turns },
    content: [
      `lag and CPU at ${rate} changes/s, then at full speed; ${seconds} s each, medians`,
      '',
      [
        [
          '',
          'changes/s',
          'until equal',
          'lag p50 ms',
          'p99 ms',
          'CPU us a change: daemon',
          'source',
          'target',
        ],
        ['nobody', alone.rate.toFixed(0), '-', '-', '-', '-', alone.cpu.source.toFixed(0), '-'],
        ...rows.map(cellsOf),
      ],
      '',
      equality.line,
    ],
    plots: [plotOf(name, rate, rows)],
    ok: equality.ok,
  };
}

function rowOf(who: string, all: readonly Figures[]): Row {
  const median = (of: (one: Figures) => number) => percentile(all.map(of), 50);
  const lags = all.flatMap(({ samples }) => samples.map(({ lag }) => lag));
  return {
    who,
    loadRate: median(({ loadRate }) => loadRate),
    rate: median(({ rate }) => rate),
    p50: percentile(lags, 50),
    p99: percentile(lags, 99),
    cpu: {
      daemon: median(({ cpu }) => cpu.daemon),
      source: median(({ cpu }) => cpu.source),
      target: median(({ cpu }) => cpu.target),
    },
  };
}

function cellsOf({ who, loadRate, rate, p50, p99, cpu }: Row): string[] {
  return [
    who,
    loadRate.toFixed(0),
    rate.toFixed(0),
    p50.toFixed(1),
    p99.toFixed(1),
    ...[cpu.daemon, cpu.source, cpu.target].map((us) => us.toFixed(0)),
  ];
}

function plotOf(name: string, rate: number, rows: readonly Row[]): Plot {
  return {
    kind: 'bars',
    name: 'lag',
    title: `Lag under the load "${name}"`,
    subtitle: `median, from commit to visible on the target, at ${rate} changes/s`,
    unit: ' ms',
    bars: rows.map(({ who, p50 }) => ({ label: who, value: p50, ours: who === 'ibex' })),
  };
}
