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
  readonly n: number;
  readonly relation: number;
  readonly filenode: number;
  readonly firstBlock: number;
  /** First block that is not part of it; null: to the end, wherever that is by then. */
  readonly lastBlock: number | null;
}

/** 64 MiB of 8 KiB blocks: large enough for COPY's full speed, small enough to be done again. */
export const CHUNK_BLOCKS = 8_192;

/**
 * Plans all chunks. The last one of each relation is open-ended: rows appended after planning are in it, or in
 * the deltas, or in both. `divisible` is false where block ranges cannot be read without reading everything
 * (before PostgreSQL 14), and where all rows must come from one snapshot (tables without a key).
 */
export function planChunks(heaps: readonly Heap[], divisible: boolean): ChunkPlan[] {
  const chunks: ChunkPlan[] = [];
  for (const { relation, filenode, blocks } of heaps) {
    const count = divisible ? Math.max(1, Math.ceil(blocks / CHUNK_BLOCKS)) : 1;
    for (let i = 0; i < count; i++) {
      chunks.push({
        n: chunks.length + 1,
        relation,
        filenode,
        firstBlock: i * CHUNK_BLOCKS,
        lastBlock: i === count - 1 ? null : (i + 1) * CHUNK_BLOCKS,
      });
    }
  }
  return chunks;
}
