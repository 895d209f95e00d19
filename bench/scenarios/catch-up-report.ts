/** What the runs of `catch-up` come to: a row for each way of replicating, and how the others compare with Ibex. */
import type { Outcome } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';

/** The backlog that the contract is about. */
export const CONTRACT_TRANSACTIONS = 55_000;

export interface Run {
  readonly who: string;
  readonly round: number;
  /** From when it was let go until the last transaction was seen. */
  readonly seconds: number;
  /** Of daemon and servers in that time; 0 where nobody tells. */
  readonly cpu: number;
  /** Tables that came out different. Then the times are nobody's business. */
  readonly differences: readonly string[];
}

interface Figures {
  readonly who: string;
  readonly seconds: Summary;
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
  const of = (who: string) => figures.find((one) => one.who === who);
  const peers = ['native', 'bucardo'].flatMap((who) => of(who) ?? []);
  return {
    servers,
    figures: { scale, transactions, unit: 's', figures, runs: runs.map(withoutTimesIfDifferent) },
    content: [
      `${transactions} TPC-B transactions behind, scale ${scale}; median (min-max)`,
      '',
      [
        ['', 'seconds', 'transactions/s', 'CPU s', ...peers.map(({ who }) => `as fast as ${who}`)],
        ...figures.map(({ who, seconds, cpu }) => [
          who,
          range(seconds, 3),
          (transactions / seconds.median).toFixed(0),
          range(cpu, 2),
          ...peers.map((peer) => `${(peer.seconds.median / seconds.median).toFixed(2)}x`),
        ]),
      ],
      '',
      equal.length === runs.length
        ? `all ${runs.length} runs ended with equal tables on both sides`
        : `${runs.length - equal.length} of ${runs.length} runs ended DIFFERENT and have no figure`,
    ],
    plots: [
      {
        kind: 'bars',
        name: 'seconds',
        title: `Catching up with ${transactions.toLocaleString('en')} transactions`,
        subtitle:
          'seconds until source and target are equal; median, line from the fastest to the slowest run',
        unit: ' s',
        bars: figures.map(({ who, seconds: { median, min, max } }) => ({
          label: who,
          value: median,
          spread: [min, max],
          ours: who.startsWith('ibex'),
        })),
      },
    ],
    contract: transactions === CONTRACT_TRANSACTIONS ? contractOf(of) : [],
    ok: equal.length === runs.length,
  };
}

function contractOf(of: (who: string) => Figures | undefined): NonNullable<Outcome['contract']> {
  const ours = of('ibex')?.seconds.median;
  const timesAsFast = (row: 'catch-up-native' | 'catch-up-bucardo', who: string) => {
    const theirs = of(who)?.seconds.median;
    return ours === undefined || theirs === undefined ? [] : [{ row, value: theirs / ours }];
  };
  const redis = of('ibex, redis')?.seconds.median;
  const [one, two] = ['one way', 'two ways'].map((ways) => of(`ibex, ${ways}, keys`)?.seconds.median);
  return [
    ...timesAsFast('catch-up-native', 'native'),
    ...timesAsFast('catch-up-bucardo', 'bucardo'),
    ...(ours === undefined || redis === undefined ? [] : [{ row: 'redis' as const, value: ours / redis }]),
    ...(one === undefined || two === undefined ? [] : [{ row: 'two-way' as const, value: one / two }]),
  ];
}

function withoutTimesIfDifferent({ seconds, cpu, ...run }: Run): object {
  return run.differences.length === 0 ? { ...run, seconds, cpu } : run;
}

function figuresOf(who: string, runs: readonly Run[]): Figures {
  const own = runs.filter((run) => run.who === who);
  return {
    who,
    seconds: summarise(own.map((run) => run.seconds)),
    cpu: summarise(own.map((run) => run.cpu)),
  };
}
