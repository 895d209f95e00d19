/** What the runs of `catch-up` come to: a row for each way of replicating, and how native compares. */
import type { Outcome } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';

/** Times in seconds from the start. The process of native replication is the server: it has no exit. */
export interface Times {
  readonly equal: number;
  readonly exit: number | null;
  /** CPU seconds until then, of daemon and servers; 0 where nobody tells. */
  readonly cpu: Cpu;
}

interface Cpu {
  readonly daemon: number;
  readonly source: number;
  readonly target: number;
}

export interface Run {
  readonly who: string;
  readonly round: number;
  /** With nothing but one changed row to catch up with. */
  readonly startUp: Times;
  readonly backlog: Times;
  /** Tables that came out different. Then the times are nobody's business. */
  readonly differences: readonly string[];
}

const COLUMNS = ['start to equal', 'start to exit', 'engine', 'engine CPU'];

interface Figures {
  readonly who: string;
  readonly startUp: Summary;
  readonly equal: Summary;
  readonly exit: Summary | null;
  /** `equal` less the median of `startUp`. */
  readonly engine: Summary;
  /** All CPU seconds less those of the start-up. */
  readonly cpu: Summary;
}

export function report(
  servers: object,
  { scale, transactions }: { scale: number; transactions: number },
  runs: readonly Run[],
): Outcome {
  const equal = runs.filter((run) => run.differences.length === 0);
  const names = [...new Set(equal.map((run) => run.who))];
  const figures = names.map((who) => figuresOf(who, equal));
  const native = figures.find((one) => one.who === 'native');
  const ratios = figures
    .filter((one) => one !== native)
    .map((one) => ({ who: one.who, ...ratiosTo(native, one) }));
  return {
    servers,
    figures: { scale, transactions, unit: 's', figures, ratios, runs: runs.map(withoutTimesIfDifferent) },
    content: [
      `${transactions} TPC-B transactions behind, scale ${scale}; seconds, median (min-max)`,
      '',
      [['', 'start-up alone', ...COLUMNS], ...figures.map(rowOf)],
      ...(native === undefined ? [] : ['', [['native / ..', ...COLUMNS], ...ratios.map(ratioRow)]]),
      '',
      equal.length === runs.length
        ? `all ${runs.length} runs ended with equal tables on both sides`
        : `${runs.length - equal.length} of ${runs.length} runs ended DIFFERENT and have no figure`,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'seconds',
        title: `Catching up with ${transactions.toLocaleString('en')} transactions: seconds`,
        subtitle: 'until source and target are equal; median, line from the fastest to the slowest run',
        unit: ' s',
        bars: figures.map(({ who, equal: { median, min, max } }) => ({
          label: who,
          value: median,
          spread: [min, max],
          ours: who.startsWith('ibex'),
        })),
      },
    ],
    ok: equal.length === runs.length,
  };
}

function withoutTimesIfDifferent({ startUp, backlog, ...run }: Run): object {
  return run.differences.length === 0 ? { ...run, startUp, backlog } : run;
}

function figuresOf(who: string, runs: readonly Run[]): Figures {
  const own = runs.filter((run) => run.who === who);
  const exits = own.flatMap(({ backlog }) => (backlog.exit === null ? [] : [backlog.exit]));
  const startUp = summarise(own.map((run) => run.startUp.equal));
  return {
    who,
    startUp,
    equal: summarise(own.map((run) => run.backlog.equal)),
    exit: exits.length === 0 ? null : summarise(exits),
    engine: summarise(own.map((run) => run.backlog.equal - startUp.median)),
    cpu: summarise(own.map((run) => sum(run.backlog.cpu) - sum(run.startUp.cpu))),
  };
}

function sum({ daemon, source, target }: Cpu): number {
  return daemon + source + target;
}

/** How many times as fast as native. Its exit is when it is equal: it does not end. */
function ratiosTo(native: Figures | undefined, { equal, exit, engine, cpu }: Figures) {
  const ratio = (theirs: Summary | undefined, ours: Summary | null) =>
    theirs === undefined || ours === null ? null : theirs.median / ours.median;
  return {
    equal: ratio(native?.equal, equal),
    exit: ratio(native?.equal, exit),
    engine: ratio(native?.engine, engine),
    cpu: ratio(native?.cpu, cpu),
  };
}

function rowOf({ who, startUp, equal, exit, engine, cpu }: Figures): string[] {
  return [
    who,
    range(startUp, 3),
    range(equal, 3),
    exit === null ? '-' : range(exit, 3),
    range(engine, 3),
    range(cpu, 2),
  ];
}

function ratioRow({ who, equal, exit, engine, cpu }: { readonly who: string } & ReturnType<typeof ratiosTo>) {
  return [who, ...[equal, exit, engine, cpu].map(times)];
}

function times(ratio: number | null): string {
  return ratio === null ? '-' : `${ratio.toFixed(2)}x`;
}
