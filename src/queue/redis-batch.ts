/**
 * One batch on its way through Redis, on the writer's side: what is pushed, what is still there, and how it ends.
 */
import { EventEmitter, once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { BatchPart } from '../core/batch.ts';
import type { IbexError } from '../core/errors.ts';
import type { BatchOutcome, BatchWriter } from '../core/ports.ts';
import { ABORT, DATA, EMPTY, END, FrameBuilder, sizeOf } from './frames.ts';
import { describeError, type Report, restoreError } from './reports.ts';
import type { FrameSeal } from './sealing.ts';

const MIB = 1024 * 1024;
/** Bytes of one RPUSH. More gains nothing and holds Redis up for its other users. */
export const PUSH = MIB;
/** Bytes that wait in this process while a push is under way. */
const PENDING = 2 * MIB;
/** Longer than any healthy process stands still; short enough that a dead one's rows do not stay for long. */
export const KEY_TTL_MS = 10 * 60_000;

export interface Keys {
  readonly list: string;
  readonly pushed: string;
  readonly outcome: string;
  readonly jobId: string;
  readonly job: string;
}

/** What a batch needs from its queue. */
interface Hooks {
  room(): Promise<void>;
  settled(): void;
  toError(error: unknown): IbexError;
}

export class RedisBatch implements BatchWriter {
  readonly keys: Keys;
  readonly applied: Promise<BatchOutcome>;
  /** BullMQ has the job. */
  announced = false;
  /** The handler of this process has the job. */
  started = false;
  /** .. and has taken its last frame: Redis can no longer lose it. */
  received = false;
  /** The last frame is in Redis. */
  complete = false;
  settled = false;
  /** How many beats in a row found the job locked by the worker of this process, but not started. */
  unstarted = 0;
  failure: unknown;
  abortReason: Error | undefined;
  inRedis = 0;
  readonly #feed: Redis;
  readonly #seal: FrameSeal;
  readonly #hooks: Hooks;
  readonly #frames = new FrameBuilder();
  readonly #changed = new EventEmitter();
  /** Pushes of which something may still be in the list, oldest first. */
  readonly #pushes: { readonly frames: number; readonly bytes: number }[] = [];
  #framesInRedis = 0;
  #pushed = 0;
  #pushing = false;
  #resolve!: (outcome: BatchOutcome) => void;
  #reject!: (error: unknown) => void;

  constructor(keys: Keys, feed: Redis, seal: FrameSeal, hooks: Hooks) {
    this.keys = keys;
    this.#seal = seal;
    this.#feed = feed;
    this.#hooks = hooks;
    this.applied = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.applied.catch(() => {});
  }

  get pending(): number {
    return this.#frames.bytes;
  }

  async write(part: BatchPart): Promise<void> {
    while (!this.settled && this.pending >= PENDING) await once(this.#changed, 'change');
    this.#add(DATA, part.table, part.bytes);
  }

  async end(): Promise<void> {
    this.#add(END, 0, EMPTY);
    await this.#flushed();
    if (this.failure !== undefined) throw this.failure;
    this.complete = true;
  }

  async abort(reason: Error): Promise<void> {
    if (this.settled) return;
    this.abortReason = reason;
    this.#add(ABORT, 0, Buffer.from(JSON.stringify(describeError(reason))));
    await this.#flushed();
  }

  /** Learns from the list's length how much the consumer has taken. */
  async measure(): Promise<void> {
    if (this.inRedis > 0) this.#shrink(await this.#feed.llen(this.keys.list));
  }

  conclude(report: Report): void {
    if ('outcome' in report) this.settle(report.outcome);
    else this.fail(restoreError(report.error));
  }

  settle(outcome: BatchOutcome): void {
    if (this.settled) return;
    this.#resolve(outcome);
    this.#finish();
  }

  fail(error: unknown): void {
    if (this.settled) return;
    this.failure = error;
    this.#reject(error);
    this.#finish();
  }

  #finish(): void {
    this.settled = true;
    this.inRedis = 0;
    this.#frames.clear();
    this.#changed.emit('change');
    this.#hooks.settled();
  }

  #add(kind: number, table: number, bytes: Buffer): void {
    if (this.failure !== undefined) throw this.failure;
    if (this.settled) return; // The handler skipped the batch: nobody wants the rest.
    this.#frames.add(kind, table, bytes);
    if (!this.#pushing) void this.#push();
  }

  async #flushed(): Promise<void> {
    while (this.#pushing) await once(this.#changed, 'change');
  }

  async #push(): Promise<void> {
    this.#pushing = true;
    try {
      // What is written in the same turn travels together, so that a small batch is one round trip.
      await nextTurn();
      while (this.pending > 0) {
        await this.#hooks.room();
        if (this.settled) break;
        await this.#send(this.#frames.take(PUSH).map(this.#seal.seal));
        this.#changed.emit('change');
      }
    } catch (error) {
      this.fail(this.#hooks.toError(error));
    } finally {
      this.#pushing = false;
      this.#changed.emit('change');
    }
  }

  async #send(frames: Buffer[]): Promise<void> {
    const bytes = sizeOf(frames);
    this.#pushed += frames.length;
    this.#framesInRedis += frames.length;
    this.inRedis += bytes;
    this.#pushes.push({ frames: frames.length, bytes });
    // The list vanishes whenever it is emptied, and its time to live with it. The push comes before the count:
    // a consumer that reads the count can rely on the frames.
    const [length] = await Promise.all([
      this.#feed.rpush(this.keys.list, ...frames),
      this.#feed.pexpire(this.keys.list, KEY_TTL_MS),
      this.#feed.set(this.keys.pushed, this.#pushed, 'PX', KEY_TTL_MS),
    ]);
    this.#shrink(length);
  }

  #shrink(left: number): void {
    for (let oldest = this.#pushes[0]; oldest !== undefined; oldest = this.#pushes[0]) {
      if (this.#framesInRedis - oldest.frames < left) return;
      this.#framesInRedis -= oldest.frames;
      this.inRedis -= oldest.bytes;
      this.#pushes.shift();
    }
  }
}
