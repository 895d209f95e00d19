/** What the runs of `backfill` come to: a table for each case, and how Ibex compares with each of its peers. */
import type { Plot } from '../charts/plot.ts';
import type { Outcome, Table } from '../scenario.ts';
import { range, type Summary, summarise } from '../statistics.ts';

export interface Run {
  readonly who: string;
  readonly round: number;
  readonly seconds: number;
  /** The same with nothing to copy; null for who has no start-up to speak of. */
  readonly startUp: number | null;
  readonly peakMib: number | null;
  /** Tables that came out different. Then the time is nobody's business. */
  readonly differences: readonly string[];
}

export interface CaseRuns {
  readonly name: string;
  readonly title: string;
  readonly rows: number;
  /** The version of both servers. */
  readonly postgresql: string;
  /** The start-up is a command that ran first in the same run: what is left of the time is measured, no difference. */
  readonly setUpFirst: boolean;
  readonly runs: readonly Run[];
}

interface Figures {
  readonly who: string;
  readonly seconds: Summary;
  readonly rowsPerSecond: number;
  readonly startUp: Summary | null;
  /** Rows a second of what is left of the median time without the median start-up. */
  readonly rowsPerSecondOfCopy: number | null;
  readonly peakMib: number | null;
}

/** Ibex and one of its peers: how many times the peer's rows/s, of all of the time and of the copy alone. */
interface Comparison {
  readonly who: string;
  readonly peer: string;
  readonly all: number;
  readonly copy: number | null;
}

/** Where the copy is a smaller share of the time, the difference of two measurements says nothing. */
const NOISE = 0.25;

export function report(servers: object, cases: readonly CaseRuns[]): Outcome {
  const results = cases.map((one) => ({ ...one, ...figuresOf(one) }));
  const different = cases.flatMap(({ runs }) => runs.filter(({ differences }) => differences.length > 0));
  const count = cases.reduce((sum, { runs }) => sum + runs.length, 0);
  return {
    servers,
    figures: { unit: 's', cases: results },
    content: [
      ...results.flatMap((result) => contentOf(result)),
      different.length === 0
        ? `all ${count} runs ended with equal tables on both sides`
        : `${different.length} of ${count} runs ended DIFFERENT and have no figure`,
    ],
    plots: results.map((result) => plotOf(result)),
    contract: results.flatMap(({ name, comparisons }) => [
      ...valuesOf(name === 'narrow' || name === 'wide', comparisons, 'ibex, 1 job', 'pipe').map((value) => ({
        row: 'backfill' as const,
        value,
      })),
      ...valuesOf(name === 'clone', comparisons, 'ibex, 2 jobs', 'pgcopydb').map((value) => ({
        row: 'clone' as const,
        value: 1 / value,
      })),
    ]),
    ok: different.length === 0,
  };
}

function plotOf({ name, title, figures }: CaseRuns & ReturnType<typeof figuresOf>): Plot {
  return {
    kind: 'bars',
    name,
    title: `Backfill, ${name}: seconds`,
    subtitle: `${title}; median, line from the fastest to the slowest run`,
    unit: ' s',
    bars: figures.map(({ who, seconds: { median, min, max } }) => ({
      label: who,
      value: median,
      spread: [min, max],
      ours: who.startsWith('ibex'),
    })),
  };
}

function valuesOf(wanted: boolean, comparisons: readonly Comparison[], who: string, peer: string): number[] {
  return comparisons.filter((one) => wanted && one.who === who && one.peer === peer).map(({ all }) => all);
}

function figuresOf({ rows, runs, setUpFirst }: CaseRuns): { figures: Figures[]; comparisons: Comparison[] } {
  const equal = runs.filter(({ differences }) => differences.length === 0);
  const names = [...new Set(equal.map(({ who }) => who))];
  const figures = names.map((who) => figuresFor(who, rows, equal, setUpFirst ? 0 : NOISE));
  const ours = figures.filter(({ who }) => who.startsWith('ibex'));
  const peers = figures.filter(({ who }) => !who.startsWith('ibex'));
  const comparisons = ours.flatMap(({ who, rowsPerSecond, rowsPerSecondOfCopy }) =>
    peers.map((peer) => ({
      who,
      peer: peer.who,
      all: rowsPerSecond / peer.rowsPerSecond,
      copy: rowsPerSecondOfCopy === null ? null : rowsPerSecondOfCopy / peer.rowsPerSecond,
    })),
  );
  return { figures, comparisons };
}

function figuresFor(who: string, rows: number, runs: readonly Run[], noise: number): Figures {
  const own = runs.filter((run) => run.who === who);
  const seconds = summarise(own.map((run) => run.seconds));
  const startUps = own.flatMap((run) => (run.startUp === null ? [] : [run.startUp]));
  const peaks = own.flatMap((run) => (run.peakMib === null ? [] : [run.peakMib]));
  const startUp = startUps.length === 0 ? null : summarise(startUps);
  const copying = startUp === null ? null : seconds.median - startUp.median;
  return {
    who,
    seconds,
    rowsPerSecond: rows / seconds.median,
    startUp,
    rowsPerSecondOfCopy: copying === null || copying < noise * seconds.median ? null : rows / copying,
    peakMib: peaks.length === 0 ? null : Math.max(...peaks),
  };
}

function contentOf({
  name,
  title,
  postgresql,
  setUpFirst,
  figures,
  comparisons,
}: CaseRuns & ReturnType<typeof figuresOf>): (string | Table)[] {
  const peers = [...new Set(comparisons.map(({ peer }) => peer))];
  const [startUpOf, without] = setUpFirst ? ['setup', 'copying alone'] : ['start-up', 'without start-up'];
  const ratioTo = (who: string, wanted: string) =>
    comparisons.find((one) => one.who === who && one.peer === wanted);
  return [
    `${name}: ${title}; PostgreSQL ${postgresql}; seconds, median (min-max)`,
    '',
    [
      ['', 'seconds', 'rows/s', startUpOf, 'rows/s without it', 'peak MiB'],
      ...figures.map(({ who, seconds, rowsPerSecond, startUp, rowsPerSecondOfCopy, peakMib }) => [
        who,
        range(seconds, 2),
        rowsPerSecond.toFixed(0),
        startUp === null ? '-' : range(startUp, 2),
        rowsPerSecondOfCopy === null ? '-' : rowsPerSecondOfCopy.toFixed(0),
        peakMib === null ? '-' : peakMib.toFixed(0),
      ]),
    ],
    '',
    ...(peers.length === 0
      ? []
      : [
          [
            ['rows/s', ...peers.flatMap((peer) => [`/ ${peer}`, without])],
            ...[...new Set(comparisons.map(({ who }) => who))].map((who) => [
              who,
              ...peers.flatMap((peer) => {
                const ratio = ratioTo(who, peer);
                return [times(ratio?.all), times(ratio?.copy)];
              }),
            ]),
          ],
          '',
        ]),
  ];
}

function times(ratio: number | null | undefined): string {
  return ratio === null || ratio === undefined ? '-' : `${ratio.toFixed(2)}x`;
}
