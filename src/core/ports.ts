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
