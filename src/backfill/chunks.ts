/**
 * Divides a table into chunks: ranges of blocks, each copied with its own short snapshot. Pure.
 */

/** A relation that holds rows: an ordinary table, or one partition. */
export interface Heap {
  readonly relation: number;
  /** Its file now; rows that move to another file move behind a chunk's back. */
  readonly filenode: number;
  readonly blocks: number;
  /** All of it on disk, without indexes: what is stored out of line comes with the rows. */
  readonly bytes: number;
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
  /** About how many bytes it has on disk. */
  readonly planned: number;
}

/** Large enough for COPY's full speed, small enough to be done again: the least and the most that a chunk is planned with. */
const CHUNK_BYTES = 64 * 1024 * 1024;
const CHUNK_BYTES_MOST = 256 * 1024 * 1024;
/** What a large table is divided into at the least: each chunk costs a pause, and every job wants its share. */
const CHUNKS = 16;
/** A chunk is to last no longer than that, if it is known how fast it may be. */
const CHUNK_SECONDS = 60;

/** A small table has so many bytes at the most. */
const SMALL_BYTES = 256 * 1024;

/** Whether a chunk can be copied with others in one transaction: there is not much of it, and no other relation is looked at. */
export function isSmall({ planned, filenode, predicate, part }: ChunkPlan): boolean {
  return planned <= SMALL_BYTES && filenode !== 0 && predicate === null && !part;
}

/** How large chunks may be, when each is copied at so many bytes a second; null: as fast as it goes. */
export function chunkSize(bytesPerSecond: number | null): number {
  return bytesPerSecond === null
    ? CHUNK_BYTES_MOST
    : Math.min(CHUNK_BYTES_MOST, bytesPerSecond * CHUNK_SECONDS);
}

export interface PlanOptions {
  /** False where all rows must come from one snapshot. */
  readonly divisible: boolean;
  readonly part: boolean;
  /** How large chunks may be: so many bytes, and so many blocks. A block is the least there is. */
  readonly chunkBytes: number;
  readonly chunkBlocks: number;
}

/**
 * Plans the chunks of some heaps. The last one of each relation is open-ended: rows appended after planning are in
 * it, or in the deltas, or in both.
 */
export function planChunks(
  heaps: readonly Heap[],
  { divisible, part, chunkBytes, chunkBlocks }: PlanOptions,
): ChunkPlan[] {
  return heaps.flatMap(({ relation, filenode, blocks, bytes }) => {
    const share = bytes / Math.max(1, blocks);
    const wanted = Math.min(chunkBytes, Math.max(CHUNK_BYTES, bytes / CHUNKS));
    const fitting = Math.min(chunkBlocks, Math.floor(wanted / Math.max(1, share)));
    const step = Math.max(1, divisible ? fitting : blocks);
    const count = Math.max(1, Math.ceil(blocks / step));
    return Array.from({ length: count }, (_, i) => ({
      relation,
      filenode,
      firstBlock: i * step,
      lastBlock: i === count - 1 ? null : (i + 1) * step,
      predicate: null,
      part,
      planned: Math.round(share * Math.min(step, blocks - i * step)),
    }));
  });
}

/**
 * Two halves of a chunk that took too long; `blocks` is how many its relation has now. Null where there is nothing to
 * divide: what is no range of blocks, or a single one.
 */
export function halves(chunk: ChunkPlan, blocks: number): [ChunkPlan, ChunkPlan] | null {
  const { firstBlock, lastBlock, planned } = chunk;
  const middle = firstBlock + Math.floor(((lastBlock ?? blocks) - firstBlock) / 2);
  if (chunk.filenode === 0 || middle <= firstBlock) return null;
  const half = Math.ceil(planned / 2);
  return [
    { ...chunk, lastBlock: middle, planned: half },
    { ...chunk, firstBlock: middle, planned: planned - half },
  ];
}

/** All rows of a table, whatever its partitions, or those that satisfy a predicate, in one snapshot. */
export function wholeChunk(
  relation: number,
  predicate: string | null,
  part: boolean,
  planned: number,
): ChunkPlan {
  return { relation, filenode: 0, firstBlock: 0, lastBlock: null, predicate, part, planned };
}
