/**
 * The ports between the rooms. Changes go right (capture -> queue -> apply); only positions come back.
 * Nothing here is implemented; `engine.ts` puts implementations together.
 */
import type { BatchHeader, BatchPart } from './batch.ts';

/** What the applier reports back about a batch, and all that it reports back. */
export interface BatchOutcome {
  readonly id: string;
  /** Position of the checkpoint after the batch: the batch's `to`, or later when it was skipped. */
  readonly position: string;
}

/**
 * Takes a batch in, piece by piece.
 *
 * `write` resolves when the queue took the part; it waits while the queue's byte budget is used up. After the
 * last part exactly one of `end` and `abort` is called. A batch that was not ended is never applied: the
 * consumer sees its stream fail.
 */
export interface BatchWriter {
  write(part: BatchPart): Promise<void>;
  /** The batch is complete and the source's log is flushed past it: it may be committed. */
  end(): Promise<void>;
  /** The batch is void (the source moved under it, reading failed). */
  abort(reason: Error): Promise<void>;
  /**
   * Settles when the consumer is done with the batch. Rejects with the consumer's error, with kind
   * `queue_lost` when the queue lost the batch. Never rejects unhandled.
   */
  readonly applied: Promise<BatchOutcome>;
}

/** A batch on the consumer's side: the header at once, the parts as they come. */
export interface IncomingBatch {
  readonly header: BatchHeader;
  /**
   * The parts in order; can be iterated once. Returns after the last part of an ended batch; throws the
   * reason of an aborted one, kind `queue_lost` when parts are gone.
   */
  parts(): AsyncIterable<BatchPart>;
}

export type BatchHandler = (batch: IncomingBatch) => Promise<BatchOutcome>;

/**
 * The conveyor between reader and applier of one lane.
 *
 * Delivery: at least once while the queue keeps its data, in the order of `open`, one batch at a time; a
 * batch that failed is not tried again by the queue, the reader rewinds. Durability: none is required; every
 * batch can be read again from the delta tables. Order and exactly-once rest on the checkpoint rule.
 */
export interface BatchQueue {
  /** `in-process` or `redis`, for messages. */
  readonly kind: string;
  /** Announces a batch. The consumer may start before `end`, so that reading and loading overlap. */
  open(header: BatchHeader): Promise<BatchWriter>;
  /** Starts handing batches to the handler. Called once. */
  consume(handler: BatchHandler): void;
  /** Forgets every batch that is waiting, of this and of earlier epochs. Called before the first `open`. */
  clear(): Promise<void>;
  /** Bytes that are in the queue now, for metrics. */
  bytes(): number;
  /** Stops consuming, waits for a running handler, and lets go of connections. */
  close(): Promise<void>;
}

/**
 * Names a chunk of a table that is being copied, or a bundle: the only chunks of several small tables, which are copied
 * in one transaction. All else stands in the two databases, so that whoever is configured for the sync can copy it.
 * Travels as JSON; no rows, no secrets.
 */
export interface ChunkJob {
  readonly sync: string;
  readonly epoch: number;
  /** One at least; of different tables. */
  readonly chunks: readonly ChunkName[];
}

export interface ChunkName {
  /** The table, by its oid on the source. */
  readonly relid: number;
  /** The number of its chunk, see `ibex.chunk`. */
  readonly n: number;
  /** Fingerprint of the plan by which the table is copied: whoever has another one would bring other rows. */
  readonly plan: string;
  /** The rows are written straight into the table; otherwise they are merged with what is there. */
  readonly direct: boolean;
  /** It may be given up when it takes too long, to be divided. */
  readonly divisible: boolean;
}

/**
 * - `copied`: it is in.
 * - `gone`: somebody else copied it, or the copy was called off.
 * - `again`: something else had its rows; it can be tried again.
 * - `moved`: its relation has another file than planned, rows may have moved between chunks: plan again.
 * - `slow`: its snapshot became too old: divide it.
 * - `alone`: nothing of its bundle is copied: what is the matter shows when each chunk has a job of its own.
 */
export type ChunkResult = 'copied' | 'gone' | 'again' | 'moved' | 'slow' | 'alone';

export interface ChunkOutcome {
  readonly result: ChunkResult;
  /** 0 unless it is copied. */
  readonly rows: number;
  readonly bytes: number;
  /** Rows of the target were in the way of some, so that it was merged although it should have gone straight in. */
  readonly inTheWay: boolean;
}

/** Resolves to an outcome for each chunk of the job, in their order. */
export type ChunkHandler = (job: ChunkJob) => Promise<readonly ChunkOutcome[]>;

/**
 * Hands chunks to whoever copies them.
 *
 * Delivery: at least once, in any order, as many at once as there is concurrency. Exactness rests on the chunk's row
 * in the target, which is claimed and tested with the epoch in the transaction that writes the rows: a job that comes
 * twice, late or never does no harm. Nothing needs to be durable: jobs are handed in again.
 */
export interface ChunkQueue {
  /** Hands in a job. Settles when it is done with; rejects with the handler's error, or with kind `queue_lost`. */
  run(job: ChunkJob): Promise<readonly ChunkOutcome[]>;
  /** Starts handing jobs to the handler, so many at once. Called once. */
  consume(handler: ChunkHandler, concurrency: number): void;
  /** Takes no more jobs: those that wait fail with `queue_lost`; waits for running handlers. */
  close(): Promise<void>;
}
