/**
 * The queue through Redis. BullMQ carries one job for each batch and keeps their order; the job holds the
 * header only. Rows travel beside it in a Redis list that the consumer empties as it reads:
 *
 *   {ibex}:<sync>:..            BullMQ's own keys
 *   ibex:{<sync>}:<id>          frames of a batch: kind, table, sequence number, bytes
 *   ibex:{<sync>}:<id>:pushed   how many frames were pushed; gone means that Redis lost the batch
 *   ibex:{<sync>}:<id>:outcome  what a consumer in another process made of the batch
 *
 * Redis may lose any of it at any time (invariant 1). Sequence numbers and `:pushed` turn every loss into
 * `queue_lost`, never into missing rows or an endless wait. BullMQ may hand a job out twice: its frames are
 * gone then, which is the same case. The same port without a server is `in-process.ts`.
 */
import { EventEmitter, once } from 'node:events';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { type Job, Queue, Worker } from 'bullmq';
import { Redis, type RedisOptions } from 'ioredis';
import type { Logger } from 'pino';
import type { BatchHeader, BatchPart } from '../core/batch.ts';
import { ERROR_KINDS, type ErrorKind, IbexError } from '../core/errors.ts';
import type { BatchHandler, BatchOutcome, BatchQueue, BatchWriter } from '../core/ports.ts';

export interface RedisQueueOptions {
  readonly url: string;
  readonly sync: string;
  readonly log: Logger;
}

const MIB = 1024 * 1024;
/** Bytes that this process keeps in Redis, over all its batches. */
const WINDOW = 32 * MIB;
/** Bytes of one RPUSH. More gains nothing and holds Redis up for its other users. */
const PUSH = MIB;
/** Bytes that wait in this process while a push is under way. */
const PENDING = 2 * MIB;
/** Bytes of one list entry, at most. */
const FRAME = 256 * 1024;
/** Entries that one LPOP takes: with those fetched ahead, the consumer holds at most 2 MiB. */
const POP = 4;
/** Longer than any healthy process stands still; short enough that a dead one's rows do not stay for long. */
const KEY_TTL_MS = 10 * 60_000;
/** A loss is noticed within two of these. */
const PULSE_MS = 500;
const FULL_WINDOW_POLL_MS = 3;
/** A server that stands still is given up after this; BullMQ's own waits last half as long. */
const SILENCE_MS = 10_000;
/** How long `close` gives Redis to take in what the last job came to. */
const CLOSE_MS = 2000;

/** Connects, checks the server, and makes the queue of one sync. */
export async function createRedisQueue(options: RedisQueueOptions): Promise<BatchQueue> {
  const server = describeServer(options.url);
  const feed = new Redis(options.url, { ...FAIL_FAST, connectionName: `ibex:${keyName(options.sync)}:feed` });
  const pop = new Redis(options.url, {
    ...FAIL_FAST,
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
    const batch = new RedisBatch(this.#keys(header.id), this.#feed, {
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
        connection: { url: this.#options.url, ...CONNECTION, maxRetriesPerRequest: null },
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
    let expected = 0;
    let ahead = this.#take(keys);
    for (;;) {
      const frames = (await ahead) ?? (await this.#wait(keys, expected, batch));
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
    if (error instanceof IbexError) return error;
    // Never as `cause`: the driver's errors carry the command, and with it rows.
    const { message } = error as Error;
    const what = NO_CONNECTION.test(message) ? 'the connection is lost' : message;
    return new IbexError('queue', `Redis at ${this.#server}: ${what}`);
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

interface Keys {
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

class RedisBatch implements BatchWriter {
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

  constructor(keys: Keys, feed: Redis, hooks: Hooks) {
    this.keys = keys;
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
        await this.#send(this.#frames.take(PUSH));
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

// Frames: u8 kind, u16 table, u32 sequence number within the batch, bytes.

const DATA = 0;
const END = 1;
const ABORT = 2;
const FRAME_HEADER = 7;
const EMPTY = Buffer.alloc(0);

/** Cuts and joins parts into frames of a useful size: nobody on the way reads the bytes. */
class FrameBuilder {
  #frames: Buffer[] = [];
  #framed = 0;
  /** The data frame that still grows: its pieces, their bytes, its table. */
  #pieces: Buffer[] = [];
  #size = 0;
  #table = 0;
  #sequence = 0;

  /** What `take` has to give. */
  get bytes(): number {
    return this.#framed + this.#size;
  }

  add(kind: number, table: number, bytes: Buffer): void {
    if (kind !== DATA || table !== this.#table) this.#seal();
    this.#table = table;
    if (kind !== DATA) this.#frame(kind, table, [bytes]);
    else for (const piece of this.#cut(bytes)) this.#grow(piece);
  }

  /** Frames of up to `limit` bytes off the front, at least one. */
  take(limit: number): Buffer[] {
    this.#seal();
    let count = 0;
    for (let size = 0; size < limit && count < this.#frames.length; count += 1) {
      size += (this.#frames[count] as Buffer).length;
    }
    const taken = this.#frames.splice(0, count);
    this.#framed -= sizeOf(taken);
    return taken;
  }

  clear(): void {
    this.#frames = [];
    this.#pieces = [];
    this.#framed = 0;
    this.#size = 0;
  }

  /** Pieces that fill up the frame that grows, then further ones. */
  *#cut(bytes: Buffer): Generator<Buffer> {
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + FRAME - FRAME_HEADER - this.#size);
      at += piece.length;
      yield piece;
    }
  }

  #grow(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#size += piece.length;
    if (this.#size + FRAME_HEADER === FRAME) this.#seal();
  }

  #seal(): void {
    if (this.#size === 0) return;
    this.#frame(DATA, this.#table, this.#pieces);
    this.#pieces = [];
    this.#size = 0;
  }

  #frame(kind: number, table: number, pieces: Buffer[]): void {
    const header = Buffer.allocUnsafe(FRAME_HEADER);
    header.writeUInt8(kind, 0);
    header.writeUInt16LE(table, 1);
    header.writeUInt32LE(this.#sequence, 3);
    this.#sequence += 1;
    const frame = Buffer.concat([header, ...pieces]);
    this.#frames.push(frame);
    this.#framed += frame.length;
  }
}

interface Frame {
  readonly kind: number;
  readonly sequence: number;
  readonly table: number;
  readonly bytes: Buffer;
}

function decodeFrame(frame: Buffer): Frame {
  return {
    kind: frame.readUInt8(0),
    table: frame.readUInt16LE(1),
    sequence: frame.readUInt32LE(3),
    bytes: frame.subarray(FRAME_HEADER),
  };
}

function sizeOf(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.length, 0);
}

// Errors on their way through Redis.

interface ErrorReport {
  readonly kind: ErrorKind;
  readonly message: string;
}

type Report = { readonly outcome: BatchOutcome } | { readonly error: ErrorReport };

function describeError(error: unknown): ErrorReport {
  const kind = error instanceof IbexError ? error.kind : 'queue';
  return { kind, message: error instanceof Error ? error.message : String(error) };
}

function restoreError(report: ErrorReport): IbexError {
  return new IbexError(report.kind in ERROR_KINDS ? report.kind : 'queue', report.message);
}

function lostError(): IbexError {
  return new IbexError('queue_lost', 'Redis lost parts of the batch');
}

function closedError(): IbexError {
  return new IbexError('queue_lost', 'the queue was closed before the batch was applied');
}

// The server.

/** Of the queue and of its worker. What BullMQ would check, and print to the console, is checked here. */
const BULLMQ = { prefix: '{ibex}', skipVersionCheck: true };

const CONNECTION = {
  retryStrategy: (times: number) => Math.min(50 * times, 1000),
  socketTimeout: SILENCE_MS,
};

/** A command that Redis did not take or not answer fails at once; the reader starts again anyway. */
const FAIL_FAST = {
  ...CONNECTION,
  lazyConnect: true,
  enableOfflineQueue: false,
  // Not `autoResendUnfulfilledCommands: false`: that leaves unanswered commands pending for ever.
  maxRetriesPerRequest: 0,
} satisfies RedisOptions;

/** What the driver says of commands that it could not send, or that were not answered. */
const NO_CONNECTION = /isn't writeable|max retries per request|Connection is closed|Command aborted/;

/** The name of a sync as it can stand in keys, job ids and patterns of SCAN. */
function keyName(sync: string): string {
  return encodeURIComponent(sync).replaceAll('*', '%2A');
}

/** The server for messages: without user and password. */
function describeServer(url: string): string {
  const { protocol, host, pathname } = URL.canParse(url) ? new URL(url) : { protocol: '' };
  if (protocol !== 'redis:' && protocol !== 'rediss:') {
    throw new IbexError('config', 'the URL of Redis must begin with redis:// or rediss://');
  }
  return `${protocol}//${host}${pathname}`;
}

/** Rejects with the cause where the driver's own promise only says that the connection is closed. */
async function connect(client: Redis, log: Logger): Promise<void> {
  let cause: Error | undefined;
  client.on('error', (error) => {
    cause = error;
    log.debug(`redis: ${error.message}`);
    // The driver listens once only, and a refused certificate makes a TLS socket fail twice.
    client.stream?.on('error', () => {});
  });
  await client.connect().catch((error) => {
    throw cause ?? error;
  });
}

function connectError(error: unknown, server: string): IbexError {
  if (error instanceof IbexError) return error;
  const { message, code } = error as NodeJS.ErrnoException;
  const refused = /^(WRONGPASS|NOAUTH|NOPERM)/.test(message);
  // Never as `cause`: the driver's errors carry the command, and with it the password.
  return new IbexError(
    refused ? 'authentication' : 'queue',
    `cannot use Redis at ${server}: ${message || code}`,
  );
}

/** `INFO` tells the policy too, and is allowed where managed services forbid `CONFIG GET`. */
function checkServer(info: string, server: string, log: Logger): void {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\r?$`, 'm').exec(info)?.[1];
  const version = field('redis_version') ?? '0';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new IbexError('unsupported', `Redis at ${server} is version ${version}, too old`, {
      hint: 'Use Redis 6.2 or later, or Valkey.',
    });
  }
  const policy = field('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    log.warn(`Redis at ${server} may drop data (maxmemory-policy ${policy}); set it to noeviction`);
  }
}

/** Waits for `work`, but not for ever, and whatever it comes to. */
async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const done = new AbortController();
  const timeout = delay(ms, undefined, { signal: done.signal }).catch(() => {});
  await Promise.race([work.catch(() => {}), timeout]);
  done.abort();
}
