/**
 * COPY from one server to another. What the one sends as COPY data are the very messages that the other takes, so they
 * go through as they come, socket to socket: nobody here takes them apart, or looks further than where each ends.
 */
import type { Socket } from 'node:net';
import type pg from 'pg';
import { takeOver } from './socket.ts';

/** One end of a pipe. */
export interface PipeEnd {
  readonly client: pg.Client;
  /** As many COPYs on the one end as on the other, one at the least. */
  readonly statements: readonly string[];
  /** Makes of what the driver says an error of ours. */
  readonly explain: (error: unknown) => Error;
}

/** Says, of bytes that were let through, after how many milliseconds the next ones may follow. */
export type Throttle = (bytes: number) => number;

export interface Piped {
  /** Rows that the receiver took. */
  readonly rows: number;
  /** Bytes of them as they were sent. */
  readonly bytes: number;
}

/** What may wait for the receiver before the sender is told to stop. */
const HIGH_WATER = 1024 * 1024;

/**
 * Runs each `COPY .. TO STDOUT` into the `COPY .. FROM STDIN` of the same place in the other list. Neither side is asked
 * for one COPY after the other, which for small tables would be most of the work: they get all of them at once, and what
 * the one sends for one table follows what it sent for the last. A server that fails in the middle drops what is still to
 * come, and nothing of it stays outside of a transaction either. Whatever fails on either side, both are between two
 * statements afterwards, or closed. `onSent` is told once nothing more is sent to the receiver.
 */
export async function pipeCopy(
  from: PipeEnd,
  into: PipeEnd,
  throttle: Throttle | null,
  onSent: () => void,
): Promise<Piped[]> {
  const receiver = new Receiver(into.statements.join('; '));
  into.client.query(receiver as unknown as pg.Submittable);
  const socket = await receiver.ready.catch((error) => Promise.reject(into.explain(error)));
  const sender = new Sender(from.statements, (frames, written) => {
    if (!socket.destroyed) socket.write(frames, written);
    if (receiver.failed || socket.destroyed) return;
    const wait = throttle?.(frames.length) ?? 0;
    if (wait > 0) setTimeout(sender.hold(), wait).unref();
    if (socket.writableLength >= HIGH_WATER) socket.once('drain', sender.hold());
  });
  receiver.done.catch(() => sender.dropRest());
  from.client.query(sender as unknown as pg.Submittable);
  try {
    await sender.done;
    onSent();
  } catch (error) {
    onSent();
    // In the middle of a message nothing can be said any more.
    if (sender.insideMessage) socket.destroy();
    else if (!receiver.failed) receiver.fail('the sender failed');
    await receiver.done.catch(() => undefined);
    throw from.explain(error);
  }
  if (!receiver.failed) receiver.end();
  const rows = await receiver.done.catch((error) => Promise.reject(into.explain(error)));
  return rows.map((count, i) => ({ rows: count, bytes: sender.bytes[i] as number }));
}

/** What `pg` calls a query object, and its connection. */
interface Connection {
  readonly stream: Socket;
  query(text: string): void;
  sendCopyFail(message: string): void;
}

const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);

class Receiver {
  readonly ready: Promise<Socket>;
  /** The rows that each COPY took. */
  readonly done: Promise<number[]>;
  failed = false;
  readonly #text: string;
  #connection!: Connection;
  readonly #rows: number[] = [];
  #start!: (socket: Socket) => void;
  #finish!: (rows: number[]) => void;
  #fail!: (error: unknown) => void;

  constructor(text: string) {
    this.#text = text;
    const failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.ready = Promise.race([
      failed,
      new Promise<Socket>((resolve) => {
        this.#start = resolve;
      }),
    ]);
    this.done = Promise.race([
      failed,
      new Promise<number[]>((resolve) => {
        this.#finish = resolve;
      }),
    ]);
    this.done.catch(() => undefined);
  }

  end(): void {
    this.#connection.stream.write(COPY_DONE);
  }

  fail(message: string): void {
    this.#connection.sendCopyFail(message);
  }

  submit(connection: Connection): void {
    this.#connection = connection;
    connection.query(this.#text);
  }

  handleCopyInResponse(connection: Connection): void {
    this.#start(connection.stream);
  }

  handleCommandComplete({ text }: { readonly text: string }): void {
    this.#rows.push(Number(/^COPY (\d+)/.exec(text)?.[1] ?? 0));
  }

  handleReadyForQuery(): void {
    this.#finish(this.#rows);
  }

  handleError(error: unknown): void {
    this.failed = true;
    this.#fail(error);
  }
}

/**
 * CopyData; and what may stand between: CopyOutResponse, CommandComplete (of a COPY that others follow), NoticeResponse,
 * ParameterStatus, NotificationResponse.
 */
const DATA = 0x64;
const BETWEEN = [0x48, 0x43, 0x4e, 0x53, 0x41];
const DONE = 0x63;
const NOTHING = Buffer.alloc(0);
/** The type of a message, and its length without it. */
const HEADER = 5;

/** Takes whole or broken-off frames, which are its own until they are `written`. */
type OnFrames = (frames: Buffer, written: () => void) => void;

class Sender {
  readonly done: Promise<void>;
  /** Of the rows of each COPY that is through, without what frames them. */
  readonly bytes: number[] = [];
  readonly #text: string;
  /** Of the present one so far. */
  #bytes = 0;
  readonly #copies: number;
  readonly #onFrames: OnFrames;
  #stream: Socket | undefined;
  #giveBackTo!: (rest: Buffer) => void;
  /** Of a header that has not come whole. */
  #pending: Buffer | null = null;
  /** How much of the present message is still to come, and whether it is data. */
  #left = 0;
  #isData = false;
  #stopped = false;
  #holds = 0;
  #finish!: () => void;
  #fail!: (error: unknown) => void;

  constructor(statements: readonly string[], onFrames: OnFrames) {
    this.#text = statements.join('; ');
    this.#copies = statements.length;
    this.#onFrames = onFrames;
    this.done = new Promise((resolve, reject) => {
      this.#finish = resolve;
      this.#fail = reject;
    });
  }

  get insideMessage(): boolean {
    return this.#isData && this.#left > 0;
  }

  /** From the end of the present message on what comes is read and dropped: a COPY cannot be left half-way. */
  dropRest(): void {
    this.#stopped = true;
    this.#stream?.resume();
  }

  /** Has nothing more come until what it returns is called; if it was called several times, until all of them are. */
  hold(): () => void {
    this.#holds++;
    this.#stream?.pause();
    return () => {
      if (--this.#holds === 0) this.#stream?.resume();
    };
  }

  /** Takes what comes from the driver, which would take it apart, until the rows are through. */
  submit(connection: Connection): void {
    const { stream } = connection;
    this.#giveBackTo = takeOver(stream, this.#take);
    this.#stream = stream;
    connection.query(this.#text);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#finish();
  }

  handleError(error: unknown): void {
    this.#giveBack(NOTHING);
    this.#fail(error);
  }

  /** What comes next is the driver's, and what has come of it. */
  #giveBack(rest: Buffer): void {
    const stream = this.#stream;
    this.#stream = undefined;
    if (stream === undefined) return;
    stream.resume();
    this.#giveBackTo(rest);
  }

  readonly #take = (chunk: Buffer, release: () => void): void => {
    const loan = new Loan(release);
    const bytes = this.#pending === null ? chunk : Buffer.concat([this.#pending, chunk]);
    this.#pending = null;
    this.#walk(bytes, loan);
    loan.end();
  };

  #walk(bytes: Buffer, loan: Loan): void {
    let at = 0;
    let start = 0;
    while (at < bytes.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, bytes.length - at);
        at += step;
        this.#left -= step;
        if (!this.#isData) start = at;
        else {
          this.#bytes += step;
          if (this.#stopped && this.#left === 0) start = this.#forward(bytes, start, at, loan);
        }
      } else if (bytes.length - at < HEADER) {
        this.#pending = Buffer.from(bytes.subarray(at));
        break;
      } else {
        const type = bytes[at] as number;
        // The end of a COPY that others follow is for the receiver as it is, like data.
        const passes = type === DATA || (type === DONE && this.bytes.length + 1 < this.#copies);
        if (type === DONE) this.#count();
        if (!passes || this.#stopped) start = this.#forward(bytes, start, at, loan);
        if (!passes && !BETWEEN.includes(type)) {
          this.#giveBack(bytes.subarray(type === DONE ? at + HEADER : at));
          return;
        }
        this.#isData = passes && !this.#stopped;
        this.#left = bytes.readInt32BE(at + 1) - (HEADER - 1);
        at += HEADER;
        if (!this.#isData) start = at;
      }
    }
    this.#forward(bytes, start, at, loan);
  }

  #count(): void {
    this.bytes.push(this.#bytes);
    this.#bytes = 0;
  }

  /** Hands on the frames that stand between two places; resolves to where the next ones can start. */
  #forward(bytes: Buffer, start: number, end: number, loan: Loan): number {
    if (end > start) this.#onFrames(bytes.subarray(start, end), loan.part());
    return end;
  }
}

/** Bytes that are lent, in parts: they are given back once all parts are. */
class Loan {
  readonly #release: () => void;
  #parts = 1;

  constructor(release: () => void) {
    this.#release = release;
  }

  part(): () => void {
    this.#parts++;
    return this.end;
  }

  readonly end = (): void => {
    if (--this.#parts === 0) this.#release();
  };
}
