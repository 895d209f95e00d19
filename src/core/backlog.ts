/**
 * Large backlogs: what is unread of one table is more than a batch should read in one go, so it is staged on the target
 * piece by piece before the batch that takes it in. A piece is a range of blocks of one delta table: the keys that it
 * names between two positions, with their rows as of the piece's own snapshot. docs/how-it-works.md says why that is exact.
 */
import type { TablePlan } from './plan.ts';
import type { Snapshot } from './position.ts';

/** Blocks of one delta table, `end` left out. */
export interface BlockRange {
  readonly generation: number;
  readonly first: number;
  readonly end: number;
}

/** Deltas that are visible in `upto` and not in `after`. */
export interface DeltaWindow {
  readonly after: Snapshot;
  readonly upto: Snapshot;
}

/** One piece, as its batch names it. The pieces of a table are numbered from 1 on; a later one knows better. */
export interface Piece extends BlockRange, DeltaWindow {
  readonly n: number;
  /** The position from which the table is carried: what is staged counts for a batch from there only. */
  readonly lower: Snapshot;
  /** Fingerprint of the plan: other columns, or another choice of rows, make other pieces. */
  readonly plan: string;
}

/** What a batch relies on: all deltas visible in `upto` are in the pieces 1 to `pieces`. */
export interface StagedPart {
  readonly upto: Snapshot;
  readonly pieces: number;
  readonly lower: Snapshot;
  readonly plan: string;
}

/** Part of a table's backlog that is to be staged before a batch can take it. */
export interface LargePart extends DeltaWindow {
  readonly plan: TablePlan;
  /** Deltas in the window. */
  readonly deltas: number;
}

/**
 * How far the transaction is that merges a batch with a large backlog: nobody sees anything of it before its end.
 * - `gather`: of each key the newest row is looked for among the pieces, table by table;
 * - `write`: rows are written and removed;
 * - `commit`: all are.
 */
export interface MergeProgress {
  readonly step: 'gather' | 'write' | 'commit';
  /** The table that is being worked on; null at the end. */
  readonly table: string | null;
  /** Tables with which the step is done. */
  readonly tables: { readonly done: number; readonly all: number };
  /** Rows written or removed; null before it is known how many there are. */
  readonly rows: { readonly done: number; readonly all: number } | null;
}

/** The same with its time, in seconds; what is left is known once rows were written. */
export interface MergeStatus extends MergeProgress {
  readonly seconds: number;
  readonly secondsLeft: number | null;
}

/** A delta table and its size now. */
export interface DeltaFile {
  readonly generation: number;
  readonly blocks: number;
}

/**
 * Whether so many deltas are staged before the batch. Once something was, only as long as each round leaves at most half
 * of what it began with: an application that writes as fast as we read is taken in by one batch in the end.
 */
export function isLarge(deltas: number, above: number, roundBefore: number | null): boolean {
  return deltas > above && (roundBefore === null || deltas <= roundBefore / 2);
}

/** The next range of at most so many blocks that no piece has covered yet; undefined when all are. */
export function nextRange(
  files: readonly DeltaFile[],
  covered: readonly BlockRange[],
  blocks: number,
): BlockRange | undefined {
  for (const file of files) {
    const own = covered.filter(({ generation }) => generation === file.generation);
    const first = Math.max(0, ...own.map(({ end }) => end));
    if (first < file.blocks) {
      return { generation: file.generation, first, end: Math.min(file.blocks, first + blocks) };
    }
  }
  return undefined;
}
