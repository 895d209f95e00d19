/** The result of a comparison: a document that can be kept as evidence, and the same as a page. */
import { type CaptureMode, type TableName, tableLabel } from '../core/plan.ts';
import type { SourceIdentity } from '../core/position.ts';
import {
  addSums,
  FINDINGS,
  type Finding,
  type FoundRow,
  NAMED_ROWS,
  NOTHING,
  type RangeResult,
} from './findings.ts';
import type { SequenceResult } from './sequences.ts';

/** - `undecided`: it could not be compared, or not to the end. That is never a pass. */
export type TableVerdict = 'equal' | 'different' | 'undecided';

export interface TableReport {
  readonly table: string;
  readonly verdict: TableVerdict;
  /** Why it is undecided; else null. */
  readonly reason: string | null;
  /** By `key`, or as whole `row`s that are counted; null where it was not compared. */
  readonly mode: CaptureMode | null;
  /** `before`: how many of those that were compared an earlier call had compared. */
  readonly ranges: { readonly compared: number; readonly before: number; readonly all: number };
  /** As each range was read first. While rows are written the two sides are read at different moments. */
  readonly source: SideReport;
  readonly target: SideReport;
  /** How many rows were looked at singly, because their range was not equal at first. */
  readonly looked: number;
  readonly counts: Readonly<Record<Finding, number>>;
  /** The first of them by name. */
  readonly rows: readonly FoundRow[];
  readonly repaired: number;
}

interface SideReport {
  readonly rows: number;
  /** Sum of the 64-bit hashes of the rows, modulo 2^64, in hex. */
  readonly checksum: string;
}

interface ServerReport extends SourceIdentity {
  /** `host:port/database`. */
  readonly server: string;
  readonly version: number;
}

/** What was compared by earlier calls, which did not come to their end. */
export interface Continued {
  readonly ranges: number;
  /** When the first and when the last of these had been compared. */
  readonly from: Date;
  readonly to: Date;
  /** When the call began that came to the end. */
  readonly resumed: Date;
}

export interface VerifyReport {
  readonly sync: string;
  readonly verdict: TableVerdict;
  /** When the first of the calls began that it took. */
  readonly started: Date;
  /** Null when one call compared all of it. */
  readonly continued: Continued | null;
  readonly ended: Date;
  /** The share of the ranges of each table that was compared; 1: all. */
  readonly sample: number;
  /** The checkpoint at the end. */
  readonly position: string;
  readonly source: ServerReport;
  readonly target: ServerReport;
  readonly tables: readonly TableReport[];
  readonly sequences: SequenceResult;
}

type Frame = Omit<VerifyReport, 'verdict' | 'ended' | 'tables'>;

interface Ranges {
  readonly all: number;
  /** How many are to be compared. */
  readonly wanted: number;
}

interface Account {
  readonly table: string;
  readonly mode: CaptureMode | null;
  readonly ranges: Ranges;
  reason: string | null;
  results: RangeResult[];
  before: number;
}

/** Adds up what came of the ranges. */
export class Accounts {
  readonly #accounts = new Map<string, Account>();
  #known: Omit<Continued, 'resumed'> | null = null;

  begin(table: TableName, mode: CaptureMode, ranges: Ranges): void {
    const label = tableLabel(table);
    this.#accounts.set(label, { table: label, mode, ranges, reason: null, results: [], before: 0 });
  }

  add(table: TableName, result: RangeResult): void {
    this.#accounts.get(tableLabel(table))?.results.push(result);
  }

  /** What an earlier call had found by then. */
  addKnown(table: TableName, result: RangeResult, at: Date): void {
    const account = this.#accounts.get(tableLabel(table));
    if (account === undefined) return;
    account.results.push(result);
    account.before++;
    const { ranges, from, to } = this.#known ?? { ranges: 0, from: at, to: at };
    this.#known = { ranges: ranges + 1, from: at < from ? at : from, to: at > to ? at : to };
  }

  /** What the call that began then goes on with. */
  continued(resumed: Date): Continued | null {
    return this.#known === null ? null : { ...this.#known, resumed };
  }

  /** The table could not be compared, or not to the end. The first reason counts. */
  refuse(table: TableName, reason: string): void {
    const label = tableLabel(table);
    const account = this.#accounts.get(label) ?? {
      table: label,
      mode: null,
      ranges: { all: 0, wanted: 0 },
      reason,
      results: [],
      before: 0,
    };
    account.reason ??= reason;
    this.#accounts.set(label, account);
  }

  report(frame: Frame): VerifyReport {
    const tables = [...this.#accounts.values()].map(summarise);
    const verdicts = tables.map(({ verdict }) => verdict);
    const wrong = verdicts.includes('different') || frame.sequences.faults.length > 0;
    const verdict = wrong ? 'different' : verdicts.includes('undecided') ? 'undecided' : 'equal';
    return { ...frame, verdict, ended: new Date(), tables };
  }
}

function summarise({ table, mode, ranges, reason, results, before }: Account): TableReport {
  const counts = Object.fromEntries(
    FINDINGS.map((finding) => [
      finding,
      results.reduce((sum, { counts }) => sum + (counts[finding] ?? 0), 0),
    ]),
  ) as Record<Finding, number>;
  const differs = counts.different + counts.missing + counts.extra > 0;
  const open = reason !== null || results.length < ranges.wanted || counts.pending + counts.moving > 0;
  return {
    table,
    verdict: differs ? 'different' : open ? 'undecided' : 'equal',
    reason,
    mode,
    ranges: { compared: results.length, before, all: ranges.all },
    source: sideOf(results.map(({ source }) => source)),
    target: sideOf(results.map(({ target }) => target)),
    looked: results.reduce((sum, { looked }) => sum + looked, 0),
    counts,
    rows: results.flatMap(({ rows }) => rows).slice(0, NAMED_ROWS),
    repaired: results.reduce((sum, { repaired }) => sum + repaired, 0),
  };
}

function sideOf(sums: readonly RangeResult['source'][]): SideReport {
  const { rows, sum } = sums.reduce(addSums, NOTHING);
  return { rows: Number(rows), checksum: BigInt.asUintN(64, sum).toString(16).padStart(16, '0') };
}

const SAID: Readonly<Record<Finding, string>> = {
  different: 'differ',
  missing: 'missing on the target',
  extra: 'on the target only',
  pending: 'not yet applied',
  moving: 'kept changing, not settled',
};

/** So many rows of a table are shown to a person. */
const SHOWN_ROWS = 20;

/** The result for a person at a terminal: what is not equal, and one line of sum. */
export function reportText(report: VerifyReport): string {
  const { tables, sequences } = report;
  const rows = tables.reduce((sum, { source }) => sum + source.rows, 0);
  const ranges = tables.reduce((sum, { ranges }) => sum + ranges.compared, 0);
  const repaired = tables.reduce((sum, table) => sum + table.repaired, 0);
  const part = report.sample < 1 ? `, a sample of ${report.sample * 100} %` : '';
  const { continued } = report;
  const began = continued?.resumed ?? report.started;
  const seconds = ((report.ended.getTime() - began.getTime()) / 1000).toFixed(1);
  return [
    ...tables.filter(({ verdict }) => verdict !== 'equal').flatMap(tableLines),
    ...sequences.faults,
    ...(repaired > 0 ? [`repaired: ${repaired} rows`] : []),
    ...(continued === null ? [] : [continuedText(continued)]),
    `${report.verdict}: ${tables.length} tables, ${rows} rows in ${ranges} ranges${part}, ` +
      `${sequences.compared} sequences, ${seconds} s`,
  ].join('\n');
}

/** Of what a report rests on that was not read by the call that made it. */
export function continuedText({ ranges, from, to }: Continued): string {
  const [first, last] = [from, to].map((at) => at.toISOString().replace('T', ' ').replace(/\..*/, ' UTC'));
  return `continued: ${ranges} ranges were compared by an earlier call, from ${first} to ${last}`;
}

function tableLines({ table, reason, counts, rows }: TableReport): string[] {
  const said = FINDINGS.filter((finding) => counts[finding] > 0).map(
    (finding) => `${counts[finding]} ${SAID[finding]}`,
  );
  const all = [...said, ...(reason === null ? [] : [`not compared to the end: ${reason}`])];
  return [`${table}: ${all.join(', ')}`, ...rows.slice(0, SHOWN_ROWS).map((row) => `  ${rowText(row)}`)];
}

function rowText({ finding, key, columns }: FoundRow): string {
  const name = key === null ? 'row' : `(${key.join(', ')})`;
  const shown = columns.map(
    ({ column, source, target }) => `${column}: ${valueText(source)} | ${valueText(target)}`,
  );
  return [`${name} ${SAID[finding]}`, ...shown].join('; ');
}

function valueText(value: string | null): string {
  return value === null ? 'null' : JSON.stringify(value);
}

function rangesText({ compared, before, all }: TableReport['ranges']): string {
  return `${compared} of ${all}${before > 0 ? `, ${before} of them before` : ''}`;
}

/** The same as a page in Markdown. */
export function reportPage(report: VerifyReport): string {
  const { source, target, sequences } = report;
  const wrong = report.tables.filter(({ verdict }) => verdict !== 'equal').flatMap(tableLines);
  return [
    `# Comparison of ${report.sync}: ${report.verdict}`,
    '',
    `From ${report.started.toISOString()} to ${report.ended.toISOString()}, ${report.sample * 100} % of the ranges.`,
    ...(report.continued === null ? [] : ['', `${continuedText(report.continued)}.`]),
    '',
    '| | server | version | system | database | timeline |',
    '|---|---|---|---|---|---|',
    ...[source, target].map(
      (one, i) =>
        `| ${i === 0 ? 'source' : 'target'} | ${one.server} | ${one.version} | ${one.system} | ${one.database} | ${one.timeline} |`,
    ),
    '',
    `Checkpoint at the end: \`${report.position}\``,
    '',
    '| table | verdict | ranges | rows on the source | on the target | checksum of the source | of the target | looked at singly |',
    '|---|---|---|---|---|---|---|---|',
    ...report.tables.map(
      ({ table, verdict, ranges, looked, ...sides }) =>
        `| ${table.replaceAll('|', '\\|')} | ${verdict} | ${rangesText(ranges)} | ${sides.source.rows} | ` +
        `${sides.target.rows} | ${sides.source.checksum} | ${sides.target.checksum} | ${looked} |`,
    ),
    '',
    `Sequences: ${sequences.compared} compared, ${sequences.faults.length} wrong.`,
    ...(wrong.length + sequences.faults.length === 0
      ? []
      : ['', '```', ...wrong, ...sequences.faults, '```']),
    '',
  ].join('\n');
}
