/**
 * Chunks of a copy through Redis, so that several processes share them, in jobs of BullMQ beside the batches'.
 *
 *   {ibex}:<sync>-chunks:..   BullMQ's own keys
 *
 * A job is a name only, so there is nothing in Redis that could not be handed in again: what Redis lost is noticed and
 * handed in anew, and what is copied twice by that is told apart by the chunk's row in the target. The job of a worker
 * that died or froze goes to another one once its lock is over. The same port in one process is `in-process-chunks.ts`.
 */
import { type Job, Queue, QueueEvents, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import type { IbexError } from '../core/errors.ts';
import type { ChunkHandler, ChunkJob, ChunkOutcome, ChunkQueue } from '../core/ports.ts';
import {
  BULLMQ,
  CLOSE_MS,
  CONNECTION,
  checkServer,
  commandError,
  connect,
  connectError,
  describeServer,
  FAIL_FAST,
  keyName,
  type RedisPlace,
  tlsOf,
  within,
} from './redis-server.ts';
import { closedError, describeError, type Report, restoreError } from './reports.ts';

export interface RedisChunksOptions extends RedisPlace {
  readonly sync: string;
  readonly log: Logger;
  /** This process hands the chunks in; otherwise it takes some of them only. */
  readonly handsIn: boolean;
}

/** How long a worker may not be heard of before its job goes to another one; and how often that is looked after. */
const LOCK_MS = 5_000;
const STALLED_MS = 2_500;
/** A loss is noticed within two of these. */
const PULSE_MS = 500;
/** Redis may be away for so many pulses before the copy is given up, to start anew. */
const AWAY_PULSES = 10;

type ChunkReport = Report<readonly ChunkOutcome[]>;

/** A job that was handed in here and is not done with. */
interface Waiting {
  readonly job: ChunkJob;
  readonly settle: (outcomes: readonly ChunkOutcome[]) => void;
  readonly fail: (error: unknown) => void;
  /** Pulses in a row that did not find it in Redis. */
  missing: number;
}

/** Connects, checks the server, and makes the queue of the chunks of one sync. */
export async function createRedisChunks(options: RedisChunksOptions): Promise<RedisChunks> {
  const server = describeServer(options.url);
  const feed = new Redis(options.url, {
    ...FAIL_FAST,
    ...tlsOf(options),
    connectionName: `ibex:${keyName(options.sync)}:chunks`,
  });
  try {
    await connect(feed, options.log);
    checkServer(await feed.info(), server, options.log);
  } catch (error) {
    feed.disconnect();
    throw connectError(error, server);
  }
  const chunks = new RedisChunks(options, server, feed);
  try {
    if (options.handsIn) await chunks.clear();
    return chunks;
  } catch (error) {
    await chunks.close();
    throw commandError(error, server);
  }
}

export class RedisChunks implements ChunkQueue {
  readonly #options: RedisChunksOptions;
  readonly #server: string;
  readonly #name: string;
  readonly #feed: Redis;
  readonly #jobs: Queue<ChunkJob, ChunkReport>;
  readonly #events: QueueEvents | undefined;
  readonly #waiting = new Map<string, Waiting>();
  readonly #running = new Map<string, Promise<ChunkReport>>();
  readonly #pulse: NodeJS.Timeout | undefined;
  #count = 0;
  #pulsing = false;
  #away = 0;
  #worker: Worker<ChunkJob, ChunkReport> | undefined;
  #closed = false;

  constructor(options: RedisChunksOptions, server: string, feed: Redis) {
    this.#options = options;
    this.#server = server;
    this.#name = `${keyName(options.sync)}-chunks`;
    this.#feed = feed;
    this.#jobs = new Queue(this.#name, { connection: feed, ...BULLMQ });
    this.#jobs.on('error', (error) => this.#debug(error));
    if (!options.handsIn) return;
    this.#events = new QueueEvents(this.#name, { connection: this.#patient(), ...BULLMQ });
    this.#events.on('error', (error) => this.#debug(error));
    this.#events.on('completed', ({ jobId, returnvalue }) =>
      this.#conclude(jobId, returnvalue as unknown as ChunkReport),
    );
    this.#pulse = setInterval(() => void this.#beat(), PULSE_MS);
  }

  run(job: ChunkJob): Promise<readonly ChunkOutcome[]> {
    return new Promise((settle, fail) => {
      if (this.#closed) return fail(closedError());
      const id = `${job.epoch}-${job.chunks[0]?.relid}-${job.chunks[0]?.n}-${++this.#count}`;
      this.#waiting.set(id, { job, settle, fail, missing: 0 });
      this.#announce(id, job).catch((error) => this.#fail(id, this.#toError(error)));
    });
  }

  consume(handler: ChunkHandler, concurrency: number): void {
    this.#worker = new Worker<ChunkJob, ChunkReport>(
      this.#name,
      (job) => {
        const id = job.id as string;
        // A job that comes again because this very process was held up is still being done.
        const work = this.#running.get(id) ?? this.#handle(job, handler);
        this.#running.set(id, work);
        return work.finally(() => this.#running.delete(id));
      },
      {
        connection: this.#patient(),
        ...BULLMQ,
        concurrency,
        lockDuration: LOCK_MS,
        stalledInterval: STALLED_MS,
        maxStalledCount: Number.MAX_SAFE_INTEGER,
        runRetryDelay: 500,
      },
    );
    this.#worker.on('error', (error) => this.#debug(error));
  }

  /** Takes no jobs for a while, or takes them again; those that are under way go on. */
  rest(resting: boolean): void {
    if (this.#worker === undefined || resting === this.#worker.isPaused()) return;
    if (resting) void this.#worker.pause(true);
    else this.#worker.resume();
  }

  /** Forgets all that was handed in, also by an earlier process. */
  async clear(): Promise<void> {
    await this.#jobs.obliterate({ force: true });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#pulse);
    for (const id of [...this.#waiting.keys()]) this.#fail(id, closedError());
    if (this.#options.handsIn) await within(CLOSE_MS, this.clear());
    // No more jobs; what is under way comes to its end.
    await within(CLOSE_MS, Promise.resolve(this.#worker?.pause(true)));
    await Promise.allSettled([...this.#running.values()]);
    // `pause` lets BullMQ note the last outcome, but never returns when Redis is gone; a forced close does.
    await within(CLOSE_MS, Promise.resolve(this.#worker?.pause()));
    await within(
      CLOSE_MS,
      Promise.all([this.#worker?.close(true), this.#events?.close(), this.#jobs.close()]),
    );
    this.#feed.disconnect();
  }

  /** Of commands that may wait for a reconnection: BullMQ opens connections with these options. */
  #patient() {
    return { url: this.#options.url, ...tlsOf(this.#options), ...CONNECTION, maxRetriesPerRequest: null };
  }

  async #announce(id: string, job: ChunkJob): Promise<void> {
    await this.#jobs.add('chunk', job, { jobId: id, removeOnComplete: true, removeOnFail: true });
  }

  async #handle(job: Job<ChunkJob, ChunkReport>, handler: ChunkHandler): Promise<ChunkReport> {
    let report: ChunkReport;
    try {
      report = { outcome: await handler(job.data) };
    } catch (error) {
      report = { error: describeError(error) };
    }
    this.#conclude(job.id as string, report);
    return report;
  }

  #conclude(id: string, report: ChunkReport): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if ('error' in report) waiting?.fail(restoreError(report.error));
    else waiting?.settle(report.outcome);
  }

  #fail(id: string, error: unknown): void {
    this.#waiting.get(id)?.fail(error);
    this.#waiting.delete(id);
  }

  /** Hands in again what Redis does not have any more, though nobody said what it came to. */
  async #beat(): Promise<void> {
    if (this.#pulsing) return;
    this.#pulsing = true;
    try {
      await Promise.all([...this.#waiting].map(([id, waiting]) => this.#look(id, waiting)));
      this.#away = 0;
    } catch (error) {
      this.#away += 1;
      if (this.#away >= AWAY_PULSES)
        for (const id of [...this.#waiting.keys()]) this.#fail(id, this.#toError(error));
    }
    this.#pulsing = false;
  }

  async #look(id: string, waiting: Waiting): Promise<void> {
    const there = (await this.#feed.exists(this.#jobs.toKey(id))) === 1;
    waiting.missing = there ? 0 : waiting.missing + 1;
    // At the first time, word of its end may still be on the way.
    if (waiting.missing < 2 || !this.#waiting.has(id)) return;
    waiting.missing = 0;
    this.#options.log.debug(`redis: chunk ${id} was lost and is handed in again`);
    await this.#announce(id, waiting.job);
  }

  #toError(error: unknown): IbexError {
    return commandError(error, this.#server);
  }

  #debug(error: unknown): void {
    this.#options.log.debug(`redis: ${(error as Error).message}`);
  }
}
