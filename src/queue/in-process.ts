/**
 * The queue when no Redis is configured: one process, no server, the same guarantees.
 *
 * Parts are handed over by reference, so a `Buffer` that was written belongs to the queue. What is queued and
 * not yet taken by the handler stays below `BUDGET` bytes, over all open batches together; losing it with the
 * process loses nothing. The same port through Redis is `bullmq.ts`.
 */
import { EventEmitter, once } from 'node:events';
import type { BatchHeader, BatchPart } from '../core/batch.ts';
import { IbexError } from '../core/errors.ts';
import type { BatchHandler, BatchOutcome, BatchQueue, BatchWriter, IncomingBatch } from '../core/ports.ts';

const BUDGET = 32 * 1024 * 1024;

export function createInProcessQueue(): BatchQueue {
  return new InProcessQueue();
}

class InProcessQueue implements BatchQueue {
  readonly kind = 'in-process';
  readonly #budget = new Budget();
  #waiting: InProcessBatch[] = [];
  #current: InProcessBatch | undefined;
  #running: Promise<void> = Promise.resolve();
  #handler: BatchHandler | undefined;
  #closed = false;

  async open(header: BatchHeader): Promise<BatchWriter> {
    if (this.#closed) throw closedError();
    const batch = new InProcessBatch(header, this.#budget);
    this.#waiting.push(batch);
    this.#start();
    return batch;
  }

  consume(handler: BatchHandler): void {
    this.#handler = handler;
    this.#start();
  }

  async clear(): Promise<void> {
    this.#forgetWaiting(new IbexError('queue_lost', 'the queue was cleared'));
  }

  bytes(): number {
    return this.#budget.used;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#forgetWaiting(closedError());
    // Its writer may never come back to end it, and the handler would wait for ever.
    if (this.#current?.ended === false) this.#current.break(closedError());
    await this.#running;
  }

  #start(): void {
    if (this.#current !== undefined || this.#handler === undefined) return;
    this.#current = this.#waiting.shift();
    if (this.#current !== undefined) this.#running = this.#handle(this.#current, this.#handler);
  }

  async #handle(batch: InProcessBatch, handler: BatchHandler): Promise<void> {
    try {
      batch.settle(await handler(batch));
    } catch (error) {
      batch.fail(error);
    }
    this.#current = undefined;
    this.#start();
  }

  #forgetWaiting(reason: Error): void {
    for (const batch of this.#waiting.splice(0)) batch.fail(reason);
  }
}

/** Counts what is queued over all batches; emits `room` whenever it shrinks. */
class Budget extends EventEmitter {
  used = 0;

  constructor() {
    super();
    // One listener for each writer that waits, however many batches are open.
    this.setMaxListeners(0);
  }

  add(bytes: number): void {
    this.used += bytes;
    if (bytes <= 0) this.emit('room');
  }
}

class InProcessBatch implements BatchWriter, IncomingBatch {
  readonly header: BatchHeader;
  readonly applied: Promise<BatchOutcome>;
  readonly #budget: Budget;
  readonly #arrived = new EventEmitter();
  #resolve!: (outcome: BatchOutcome) => void;
  #reject!: (error: unknown) => void;
  #parts: BatchPart[] = [];
  /** Bytes of this batch that count in the budget. */
  #queued = 0;
  #ended = false;
  #settled = false;
  /** Why the stream of parts is void: aborted, or the queue was closed. */
  #broken: { readonly reason: unknown } | undefined;

  constructor(header: BatchHeader, budget: Budget) {
    this.header = header;
    this.#budget = budget;
    this.applied = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.applied.catch(() => {});
  }

  get ended(): boolean {
    return this.#ended;
  }

  async write(part: BatchPart): Promise<void> {
    const size = part.bytes.length;
    // A batch with nothing queued may always add a part: one larger than the whole budget must pass, and the
    // batch in front must be able to go on while those behind it hold the budget.
    while (this.#open && this.#queued > 0 && this.#budget.used + size > BUDGET) {
      await once(this.#budget, 'room');
    }
    this.#check();
    if (this.#settled) return; // The handler skipped the batch: nobody wants the rest.
    this.#parts.push(part);
    this.#count(size);
    this.#arrived.emit('change');
  }

  async end(): Promise<void> {
    this.#check();
    this.#ended = true;
    this.#arrived.emit('change');
  }

  async abort(reason: Error): Promise<void> {
    this.break(reason);
  }

  async *parts(): AsyncGenerator<BatchPart> {
    for (;;) {
      // Taken off the end, one by one: what the handler is done with can be collected at once.
      const taken = this.#parts.reverse();
      this.#parts = [];
      for (let part = taken.pop(); part !== undefined; part = taken.pop()) {
        this.#check();
        this.#count(-Math.min(part.bytes.length, this.#queued));
        yield part;
      }
      this.#check();
      if (this.#parts.length > 0) continue;
      if (this.#ended) return;
      await once(this.#arrived, 'change');
    }
  }

  settle(outcome: BatchOutcome): void {
    this.#finish();
    this.#resolve(outcome);
  }

  fail(error: unknown): void {
    this.break(error);
    this.#finish();
    this.#reject(error);
  }

  /** Makes the stream fail on both ends; the batch itself is settled by whoever handles it. */
  break(reason: unknown): void {
    this.#broken ??= { reason };
    this.#arrived.emit('change');
    this.#budget.emit('room');
  }

  get #open(): boolean {
    return !this.#settled && this.#broken === undefined;
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken.reason;
  }

  #finish(): void {
    this.#settled = true;
    this.#parts = [];
    this.#count(-this.#queued);
  }

  #count(bytes: number): void {
    this.#queued += bytes;
    this.#budget.add(bytes);
  }
}

function closedError(): IbexError {
  return new IbexError('queue_lost', 'the queue was closed before the batch was applied');
}
