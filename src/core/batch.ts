/**
 * A batch: every key changed between two positions, with its row as of the second, or the fact that it is
 * gone. The header says what it is; its rows follow as parts, raw COPY bytes in the order of `tables`.
 */
import type { Piece, StagedPart } from './backlog.ts';
import type { TableName, TablePlan } from './plan.ts';
import type { Snapshot, SourceIdentity } from './position.ts';

export interface BatchTable {
  readonly plan: TablePlan;
  /**
   * Lower bound of this table when it is not the lane's: a table that joins after its backfill, or that was
   * held, is read from where it stopped. The exactly-once rule looks at the lane's positions only.
   */
  readonly floor?: Snapshot;
  /** Relations (the table itself, or leaves of it) that a TRUNCATE emptied in this batch. */
  readonly truncated: readonly TruncatedRelation[];
  /** How many deltas the batch takes in for this table, truncates included. */
  readonly captured: number;
  /** Part of it was staged before, in pieces: the batch brings what is newer. */
  readonly staged?: StagedPart;
}

export interface TruncatedRelation {
  readonly schema: string;
  readonly name: string;
  /** When that was done last, as text. */
  readonly at: string;
  /** The table of the sync itself, as opposed to one of its partitions. */
  readonly whole: boolean;
  /** A partition's constraint, to be found again at one of the target; null where equal ones may differ. */
  readonly definition: string | null;
  /** The same as a condition on the table's rows, on any server; null where there is none. */
  readonly predicate: string | null;
}

/** How far the target's own changes were in the source's rows when these were read. */
export interface Seen {
  /** A position of the target, as the lane of the other direction had it; null: none of them was. */
  readonly position: Snapshot | null;
  /** Tables that were out of step with that lane, each with where it stood. */
  readonly apart: readonly (TableName & { readonly floor: Snapshot | null })[];
  /** Some keys of it wait for a person on the source: of those no row of the source knows the target's. */
  readonly held: boolean;
}

export interface BatchHeader {
  readonly sync: string;
  /** Unique among all batches of the sync: `<epoch>-<counter>`, and more when it had to be read again. */
  readonly id: string;
  readonly epoch: number;
  readonly from: Snapshot;
  readonly to: Snapshot;
  readonly source: SourceIdentity;
  /** The source's witness as of `to`, see core/history.ts. */
  readonly witness: number;
  readonly tables: readonly BatchTable[];
  /**
   * Oids of the tables of which `from` to `to` was looked through, whether or not anything was found. Any other table in
   * step would be passed over. Empty for a piece, which moves no checkpoint.
   */
  readonly inStep: readonly number[];
  /** When the oldest change of the batch was captured, in milliseconds of the source's clock since 1970. */
  readonly oldestAt: number | null;
  /** Of a sync whose target is written too: how much of that was known here, as of `to`. */
  readonly seen?: Seen;
  /** No batch to apply, but a piece of its only table, to be staged for the batch from the same position. */
  readonly piece?: Piece;
}

/**
 * A piece of one table's COPY stream. Pieces of a table are contiguous and in order; cuts fall anywhere in the
 * bytes, since nobody on the way reads them.
 */
export interface BatchPart {
  /** Index into `BatchHeader.tables`. Never falls within a batch. */
  readonly table: number;
  readonly bytes: Buffer;
}
