/** What verify finds, as it is reported: the document of `--json` and of the report is made of these. */
import type { Outcome } from './settle.ts';

/** What keeps a row from being equal on both sides, or from being known to be. */
export type Finding = Exclude<Outcome, 'equal'>;

export const FINDINGS: readonly Finding[] = ['different', 'missing', 'extra', 'pending', 'moving'];

/** A row that was not found equal. */
export interface FoundRow {
  readonly finding: Finding;
  /** The key as texts; null for a row of a table without key. */
  readonly key: readonly string[] | null;
  /** Columns that differ, values shortened; of a row of a table without key the row itself. */
  readonly columns: readonly FoundColumn[];
}

export interface FoundColumn {
  readonly column: string;
  /** Null for NULL, and where that side has no such row. */
  readonly source: string | null;
  readonly target: string | null;
}

/** What came of one range, or of a table without key. */
export interface RangeResult {
  /** As they were read, in decimal: rows, and the sum of their hashes. */
  readonly source: Sum;
  readonly target: Sum;
  /** How many rows were looked at singly. */
  readonly looked: number;
  readonly counts: Readonly<Partial<Record<Finding, number>>>;
  readonly rows: readonly FoundRow[];
  /** How many of the differences were repaired. */
  readonly repaired: number;
}

export interface Sum {
  readonly rows: bigint;
  readonly sum: bigint;
}

export const NOTHING: Sum = { rows: 0n, sum: 0n };

/** So many rows are named, a table. */
export const NAMED_ROWS = 100;
/** So much is shown of a value. */
export const SHOWN_LENGTH = 60;

export function addSums(one: Sum, other: Sum): Sum {
  return { rows: one.rows + other.rows, sum: one.sum + other.sum };
}
