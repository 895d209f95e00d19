/**
 * Divides a table into chunks: ranges of blocks, each copied with its own short snapshot. Pure.
 */

/** A relation that holds rows: an ordinary table, or one partition. */
export interface Heap {
  readonly relation: number;
  /** Its file now; rows that move to another file move behind a chunk's back. */
  readonly filenode: number;
  readonly blocks: number;
}

export interface ChunkPlan {
  readonly relation: number;
  /** 0 for a partitioned table, all of whose partitions are read. */
  readonly filenode: number;
  readonly firstBlock: number;
  /** First block that is not part of it; null: to the end, wherever that is by then. */
  readonly lastBlock: number | null;
  /** Of the rows there only those that satisfy it; null: all. */
  readonly predicate: string | null;
  /** All other rows of the table are there already. */
  readonly part: boolean;
}

/** 64 MiB of 8 KiB blocks: large enough for COPY's full speed, small enough to be done again. */
export const CHUNK_BLOCKS = 8_192;

/**
 * Plans the chunks of some heaps. The last one of each relation is open-ended: rows appended after planning are in
 * it, or in the deltas, or in both. `divisible` is false where block ranges cannot be read without reading
 * everything (before PostgreSQL 14), and where all rows must come from one snapshot (tables without a key).
 */
export function planChunks(heaps: readonly Heap[], divisible: boolean, part: boolean): ChunkPlan[] {
  return heaps.flatMap(({ relation, filenode, blocks }) => {
    const count = divisible ? Math.max(1, Math.ceil(blocks / CHUNK_BLOCKS)) : 1;
    return Array.from({ length: count }, (_, i) => ({
      relation,
      filenode,
      firstBlock: i * CHUNK_BLOCKS,
      lastBlock: i === count - 1 ? null : (i + 1) * CHUNK_BLOCKS,
      predicate: null,
      part,
    }));
  });
}

/** All rows of a table, whatever its partitions, or those that satisfy a predicate, in one snapshot. */
export function wholeChunk(relation: number, predicate: string | null, part: boolean): ChunkPlan {
  return { relation, filenode: 0, firstBlock: 0, lastBlock: null, predicate, part };
}
