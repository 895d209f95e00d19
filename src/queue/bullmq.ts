/**
 * The queue through Redis. BullMQ carries one job for each batch and keeps their order; the job holds the
 * header only. Rows travel beside it in a Redis list that the consumer empties as it reads:
 *
 *   {ibex}:<sync>:..            BullMQ's own keys
 *   ibex:{<sync>}:<id>          frames of a batch: kind, table, sequence number, bytes
 *   ibex:{<sync>}:<id>:pushed   how many frames were pushed; gone means that Redis lost the batch
 *   ibex:{<sync>}:<id>:outcome  what a consumer in another process made of the batch
 *
 * With a key frames are encrypted, see sealing.ts. Redis may lose any of it at any time. Sequence numbers and `:pushed`
 * turn every loss into `queue_lost`, never into missing rows or an endless wait. BullMQ may hand a job out twice: its
 * frames are gone then, which is the same case. The same port without a server is `in-process.ts`.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Job, Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import type { BatchHeader, BatchPart } from '../core/batch.ts';
import type { IbexError } from '../core/errors.ts';
import type { BatchHandler, BatchOutcome, BatchQueue, BatchWriter } from '../core/ports.ts';
import { ABORT, DATA, decodeFrame, END } from './frames.ts';
import { KEY_TTL_MS, type Keys, PUSH, RedisBatch } from './redis-batch.ts';
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
  warnOfPeer,
  within,
} from './redis-server.ts';
import { closedError, describeError, lostError, type Report, restoreError } from './reports.ts';
import { type FrameSeal, frameSeal } from './sealing.ts';

export interface RedisQueueOptions extends RedisPlace {
  /** 32 bytes by which rows are encrypted; undefined: they go as they are. */
  readonly encryptionKey?: Buffer | undefined;
  readonly sync: string;
  readonly log: Logger;
}

const MIB = 1024 * 1024;
/** Bytes that this process keeps in Redis, over all its batches. */
const WINDOW = 32 * MIB;
/** Entries that one LPOP takes: with those fetched ahead, the consumer holds at most 2 MiB. */
const POP = 4;
/** A loss is noticed within two of these. */
const PULSE_MS = 500;
const FULL_WINDOW_POLL_MS = 3;

/** Connects, checks the server, and makes the queue of one sync. */
export async function createRedisQueue(options: RedisQueueOptions): Promise<BatchQueue> {
  const server = describeServer(options.url);
  warnOfPeer(options, options.encryptionKey !== undefined, options.log);
  const common = { ...FAIL_FAST, ...tlsOf(options) };
  const feed = new Redis(options.url, {
    ...common,
    connectionName: `ibex:${keyName(options.sync)}:feed`,
  });
  const pop = new Redis(options.url, {
    ...common,
    connectionName: `ibex:${keyName(options.sync)}:pop`,
    // A batch that was announced again may find this one connection not back yet: it waits for the next try.
    enableOfflineQueue: true,
  });
  try {
    await Promise.all([connect(feed, options.log), connect(pop, options.log)]);
    checkServer(await feed.info(), server, options.log);
  } catch (error) {
    feed.disconnect();
    pop.disconnect();
    throw connectError(error, server);
  }
  return new RedisQueue(options, server, feed, pop);
}

class RedisQueue implements BatchQueue {
  readonly kind = 'redis';
  readonly #options: RedisQueueOptions;
  readonly #server: string;
  /** Takes everything that must not wait: pushes, announcements, checks. */
  readonly #feed: Redis;
  /** Blocks while the consumer waits for frames. */
  readonly #pop: Redis;
  readonly #jobs: Queue<BatchHeader>;
  /** Batches opened here, until they are settled and their keys are gone. */
  readonly #batches = new Map<string, RedisBatch>();
  readonly #pulse: NodeJS.Timeout;
  #pulsing = false;
  #worker: Worker<BatchHeader> | undefined;
  #running: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: RedisQueueOptions, server: string, feed: Redis, pop: Redis) {
    this.#options = options;
    this.#server = server;
    this.#feed = feed;
    this.#pop = pop;
    this.#jobs = new Queue(keyName(options.sync), { connection: feed, ...BULLMQ });
    this.#jobs.on('error', (error) => this.#debug(error));
    this.#pulse = setInterval(() => void this.#beat(), PULSE_MS);
    this.#reportOutages();
  }

  async open(header: BatchHeader): Promise<BatchWriter> {
    if (this.#closed) throw closedError();
    const keys = this.#keys(header.id);
    const batch = new RedisBatch(keys, this.#feed, this.#sealOf(keys), {
      room: () => this.#room(batch),
      settled: () => void this.#release(header.id, batch),
      toError: (error) => this.#toError(error),
    });
    this.#batches.set(header.id, batch);
    try {
      // On one connection, in this order: no consumer sees the job before the key that says it is alive.
      await Promise.all([
        this.#feed.set(batch.keys.pushed, 0, 'PX', KEY_TTL_MS),
        this.#jobs.add('batch', header, {
          jobId: batch.keys.jobId,
          attempts: 1,
          removeOnComplete: true,
          removeOnFail: true,
        }),
      ]);
    } catch (error) {
      batch.fail(this.#toError(error));
      throw this.#toError(error);
    }
    batch.announced = true;
    return batch;
  }

  consume(handler: BatchHandler): void {
    this.#worker = new Worker<BatchHeader>(
      keyName(this.#options.sync),
      (job) => {
        const work = this.#handle(job, handler);
        this.#running = work.catch(() => {});
        return work;
      },
      {
        // BullMQ's own commands may wait for a reconnection; it opens two connections with these options.
        connection: {
          url: this.#options.url,
          ...tlsOf(this.#options),
          ...CONNECTION,
          maxRetriesPerRequest: null,
        },
        ...BULLMQ,
        concurrency: 1,
        lockDuration: 60_000,
        // A job whose worker died is failed, not run again: its frames are gone.
        maxStalledCount: 0,
        runRetryDelay: 500,
      },
    );
    this.#worker.on('error', (error) => this.#debug(error));
  }

  async clear(): Promise<void> {
    try {
      await this.#jobs.obliterate({ force: true });
      const match = `${this.#keys('').list}*`;
      for await (const keys of this.#feed.scanStream({ match, count: 1000 })) {
        if (keys.length > 0) await this.#feed.unlink(...keys);
      }
    } catch (error) {
      throw this.#toError(error);
    }
  }

  bytes(): number {
    return this.#inRedis() + [...this.#batches.values()].reduce((sum, batch) => sum + batch.pending, 0);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#pulse);
    for (const batch of this.#batches.values()) {
      // What is complete and in the handler's hands may still succeed; the rest would never end.
      if (!batch.started || !batch.complete) batch.fail(closedError());
    }
    await this.#running;
    if (this.#worker !== undefined) {
      // `pause` lets BullMQ note the last outcome, but never returns when Redis is gone; a forced close does.
      await within(CLOSE_MS, this.#worker.pause());
      await within(CLOSE_MS, this.#worker.close(true));
    }
    await within(
      CLOSE_MS,
      Promise.all([...this.#batches].map(([id, batch]) => this.#release(id, batch))).then(() =>
        this.#jobs.close(),
      ),
    );
    this.#feed.disconnect();
    this.#pop.disconnect();
  }

  // The consumer's side.

  async #handle(job: Job<BatchHeader>, handler: BatchHandler): Promise<void> {
    const header = job.data;
    const keys = this.#keys(header.id);
    const batch = this.#batches.get(header.id);
    if (this.#closed) throw closedError();
    if (batch?.failure !== undefined) throw batch.failure;
    if (batch !== undefined) batch.started = true;
    let outcome: BatchOutcome;
    try {
      outcome = await handler({ header, parts: () => this.#parts(keys, batch) });
    } catch (error) {
      if (batch === undefined) await this.#report(keys, { error: describeError(error) });
      else batch.fail(error);
      throw error;
    }
    if (batch === undefined) await this.#report(keys, { outcome });
    else batch.settle(outcome);
  }

  /** `batch` is the writer's end when it is in this process. */
  async *#parts(keys: Keys, batch: RedisBatch | undefined): AsyncGenerator<BatchPart> {
    const seal = this.#sealOf(keys);
    let expected = 0;
    let ahead = this.#take(keys);
    for (;;) {
      const entries = (await ahead) ?? (await this.#wait(keys, expected, batch));
      const frames = entries.map(seal.open);
      if (decodeFrame(frames.at(-1) as Buffer).kind === DATA) ahead = this.#take(keys);
      else if (batch !== undefined) batch.received = true;
      for (const frame of frames) {
        if (batch?.failure !== undefined) throw batch.failure;
        const { kind, sequence, table, bytes } = decodeFrame(frame);
        if (sequence !== expected) throw lostError();
        expected += 1;
        if (kind === END) return;
        if (kind === ABORT) throw batch?.abortReason ?? restoreError(JSON.parse(bytes.toString()));
        yield { table, bytes };
      }
    }
  }

  /** What is there now, without waiting; null when nothing is. */
  #take(keys: Keys): Promise<Buffer[] | null> {
    const taken = this.#pop.lpopBuffer(keys.list, POP).catch((error) => {
      throw this.#toError(error);
    });
    // A handler that gives up in the middle leaves what was fetched ahead to nobody.
    taken.catch(() => {});
    return taken;
  }

  /** Waits for the next frame, and finds out in between whether it can still come. */
  async #wait(keys: Keys, expected: number, batch: RedisBatch | undefined): Promise<Buffer[]> {
    try {
      for (;;) {
        const popped = await this.#pop.blpopBuffer(keys.list, PULSE_MS / 1000);
        if (popped !== null) return [popped[1]];
        if (batch?.failure !== undefined) throw batch.failure;
        if (this.#closed) throw closedError();
        // In this order: what was pushed before the first reply is in the list at the second, as nobody else
        // takes from it.
        const [pushed, left] = await Promise.all([this.#pop.get(keys.pushed), this.#pop.llen(keys.list)]);
        if (pushed === null || (Number(pushed) > expected && left === 0)) throw lostError();
      }
    } catch (error) {
      throw this.#toError(error);
    }
  }

  /** Leaves word for a writer in another process. */
  async #report(keys: Keys, report: Report): Promise<void> {
    try {
      await this.#feed.set(keys.outcome, JSON.stringify(report), 'PX', KEY_TTL_MS);
    } catch (error) {
      this.#debug(error); // The writer will find its job gone.
    }
  }

  // The writer's side.

  /** Waits until the window has room for a push of `batch`. */
  async #room(batch: RedisBatch): Promise<void> {
    // A batch with nothing in Redis may always push, lest the one in front waits for those behind it.
    while (!batch.settled && batch.inRedis > 0 && this.#inRedis() + PUSH > WINDOW) {
      await delay(FULL_WINDOW_POLL_MS);
      await Promise.all([...this.#batches.values()].map((other) => other.measure()));
    }
  }

  #inRedis(): number {
    return [...this.#batches.values()].reduce((sum, batch) => sum + batch.inRedis, 0);
  }

  /** Looks after every batch that is under way: still there? done elsewhere? keys kept alive or removed? */
  async #beat(): Promise<void> {
    if (this.#pulsing) return;
    this.#pulsing = true;
    await Promise.all([...this.#batches].map(([id, batch]) => this.#check(id, batch)));
    this.#pulsing = false;
  }

  async #check(id: string, batch: RedisBatch): Promise<void> {
    if (batch.settled) return this.#release(id, batch);
    if (!batch.announced || batch.received) return;
    const { job, jobId, list, pushed, outcome } = batch.keys;
    try {
      const [exists, state, lock] = await Promise.all([
        this.#feed.exists(job),
        this.#jobs.getJobState(jobId),
        this.#feed.get(`${job}:lock`),
        this.#feed.pexpire(list, KEY_TTL_MS),
        this.#feed.pexpire(pushed, KEY_TTL_MS),
        batch.measure(),
      ]);
      // Asked last: a consumer elsewhere leaves word before its job goes.
      const report = await this.#feed.get(outcome);
      if (report !== null) batch.conclude(JSON.parse(report));
      else if ((exists === 0 || state === 'unknown') && !batch.received) batch.fail(lostError());
      else this.#checkHandOver(batch, lock);
    } catch (error) {
      if (!batch.received) batch.fail(this.#toError(error));
    }
  }

  /**
   * A job that our worker locked but did not start twice in a row: the reply that handed it over was lost with
   * the connection. BullMQ would notice when the lock expires.
   */
  #checkHandOver(batch: RedisBatch, lock: string | null): void {
    const ours = this.#worker !== undefined && lock?.startsWith(`${this.#worker.id}:`) === true;
    batch.unstarted = ours && !batch.started ? batch.unstarted + 1 : 0;
    if (batch.unstarted > 1) batch.fail(lostError());
  }

  /** Removes the keys of a settled batch; what cannot be removed now is tried again at the next beat. */
  async #release(id: string, batch: RedisBatch): Promise<void> {
    const { jobId, list, pushed, outcome } = batch.keys;
    try {
      await this.#feed.unlink(list, pushed, outcome);
      if (!batch.started) await this.#jobs.remove(jobId);
      this.#batches.delete(id);
    } catch (error) {
      this.#debug(error);
    }
  }

  #sealOf({ list }: Keys): FrameSeal {
    return frameSeal(list, this.#options.encryptionKey);
  }

  #keys(id: string): Keys {
    const name = keyName(this.#options.sync);
    const list = `ibex:{${name}}:${id}`;
    const jobId = `${name}-${id}`;
    return {
      list,
      pushed: `${list}:pushed`,
      outcome: `${list}:outcome`,
      jobId,
      job: this.#jobs.toKey(jobId),
    };
  }

  #toError(error: unknown): IbexError {
    return commandError(error, this.#server);
  }

  #reportOutages(): void {
    let connected = true; // The driver says `close` after every attempt.
    this.#feed.on('close', () => {
      if (connected && !this.#closed)
        this.#options.log.warn(`lost the connection to Redis at ${this.#server}`);
      connected = false;
    });
    this.#feed.on('ready', () => {
      this.#options.log.info(`connected to Redis at ${this.#server} again`);
      connected = true;
    });
  }

  #debug(error: unknown): void {
    this.#options.log.debug(`redis: ${(error as Error).message}`);
  }
}
