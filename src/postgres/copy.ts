/**
 * COPY streams: bytes out of one server, bytes into another. Nobody here looks into them.
 */
import { EventEmitter, once } from 'node:events';
import type { Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import type pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { driver } from './driver.ts';
import { takeOver } from './socket.ts';
import { FailedAt } from './together.ts';

/** A piece of what several COPYs give, and the place of the COPY among them. */
export interface CopyPiece {
  readonly place: number;
  readonly bytes: Buffer;
}

/** Of bytes that nobody has taken yet; with more, no more is read. */
const HIGH_WATER = 1024 * 1024;

/** Several `COPY .. TO STDOUT` in one go, one after the other. Throws `FailedAt`, or what ended the connection. */
export async function* copyOutTogether(
  client: pg.Client,
  statements: readonly string[],
): AsyncGenerator<CopyPiece> {
  if (statements.length === 0) return;
  const copies = new CopiesOut(statements);
  client.query(copies as unknown as pg.Submittable);
  yield* copies.pieces();
}

const DATA = 0x64;
const DONE = 0x63;
/** What comes before the last COPY has ended: CopyOutResponse, CommandComplete, notices and the like. */
const PASSING = [DATA, DONE, 0x48, 0x43, 0x4e, 0x53, 0x41];
/** The type of a message, and its length without it. */
const HEADER = 5;

/** Takes apart what comes, as far as it says to which COPY it belongs and where the last one ends. */
class CopiesOut {
  readonly #text: string;
  readonly #copies: number;
  readonly #changed = new EventEmitter();
  /** How many COPYs have come to their end. */
  #place = 0;
  #pieces: CopyPiece[] = [];
  #waiting = 0;
  #header = Buffer.alloc(0);
  /** How much of the present message is still to come, and whether it is data. */
  #left = 0;
  #isData = false;
  #stream: Socket | undefined;
  #giveBackTo!: (rest: Buffer) => void;
  #ended = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(statements: readonly string[]) {
    this.#text = statements.join('; ');
    this.#copies = statements.length;
  }

  async *pieces(): AsyncGenerator<CopyPiece> {
    for (;;) {
      const pieces = this.#pieces;
      this.#pieces = [];
      this.#waiting = 0;
      this.#stream?.resume();
      yield* pieces;
      if (this.#pieces.length > 0) continue;
      if (this.#failure !== undefined) throw this.#failure.error;
      if (this.#ended) return;
      await once(this.#changed, 'change');
    }
  }

  /** Takes what comes from the driver, which would take it apart, until the rows are through. */
  submit(connection: { readonly stream: Socket; query(text: string): void }): void {
    const { stream } = connection;
    this.#giveBackTo = takeOver(stream, this.#take);
    this.#stream = stream;
    connection.query(this.#text);
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.#ended = true;
    this.#changed.emit('change');
  }

  handleError(error: unknown): void {
    this.#giveBack(Buffer.alloc(0));
    this.#failure ??= { error: new FailedAt(this.#place, error) };
    this.#changed.emit('change');
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
    const bytes = this.#header.length === 0 ? chunk : Buffer.concat([this.#header, chunk]);
    const rest = this.#walk(bytes);
    if (rest !== undefined) this.#giveBack(rest);
    release();
    this.#changed.emit('change');
    if (this.#waiting >= HIGH_WATER) this.#stream?.pause();
  };

  /** Gives what is the driver's, once the last COPY or an error has come. */
  #walk(bytes: Buffer): Buffer | undefined {
    const data = Buffer.allocUnsafe(bytes.length);
    let [at, from, to] = [0, 0, 0];
    const flush = () => {
      if (to > from) this.#pieces.push({ place: this.#place, bytes: data.subarray(from, to) });
      this.#waiting += to - from;
      from = to;
    };
    while (at < bytes.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, bytes.length - at);
        if (this.#isData) to += bytes.copy(data, to, at, at + step);
        at += step;
        this.#left -= step;
        continue;
      }
      if (bytes.length - at < HEADER) break;
      const type = bytes[at] as number;
      if (!PASSING.includes(type)) {
        flush();
        return Buffer.from(bytes.subarray(at));
      }
      at += HEADER;
      this.#isData = type === DATA;
      this.#left = bytes.readInt32BE(at - HEADER + 1) - (HEADER - 1);
      if (type !== DONE) continue;
      flush();
      if (++this.#place === this.#copies) return Buffer.from(bytes.subarray(at));
    }
    flush();
    this.#header = Buffer.from(bytes.subarray(at));
    return undefined;
  }
}

/** The receiving end of `COPY .. FROM STDIN`. */
export interface CopyIn {
  write(bytes: Buffer): Promise<void>;
  /** Ends the stream; resolves to the number of rows the server took. */
  end(): Promise<number>;
  /** Makes the server throw away what it got. */
  fail(reason: Error): Promise<void>;
}

export function copyIn(client: pg.Client, statement: string): CopyIn {
  const stream = client.query(copyFrom(statement));
  const done = finished(stream);
  // Once the server has refused, the stream has let go of its connection without a word: it must not be touched.
  let refused = false;
  done.catch(() => {
    refused = true;
  });
  return {
    async write(bytes) {
      if (refused || stream.destroyed) return done;
      if (!stream.write(bytes)) {
        await Promise.race([new Promise<void>((resolve) => stream.once('drain', resolve)), done]);
      }
    },
    async end() {
      if (!refused) stream.end();
      await done;
      return stream.rowCount;
    },
    async fail(reason) {
      if (!refused) stream.destroy(reason);
      await done.catch(() => undefined);
    },
  };
}

/** A COPY FROM STDIN, and all that it is to be given. */
export interface Load {
  readonly statement: string;
  readonly parts: readonly Buffer[];
}

const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);

/**
 * Runs COPYs, and other statements after them, in one go: what each COPY is to be given goes along without waiting until
 * it asks. A server that refuses one of them passes over what is still to come. Resolves to what each gave; rejects with
 * `FailedAt`, or with what ended the connection.
 */
export function loadTogether(
  client: pg.Client,
  loads: readonly Load[],
  then: readonly string[],
): Promise<pg.QueryResult[]> {
  const text = [...loads.map(({ statement }) => statement), ...then].join('; ');
  return new Promise((resolve, reject) => {
    let answered = 0;
    const query = new driver.Query(text, (error, result) => {
      if (error) reject(new FailedAt(answered, error));
      else resolve([result].flat() as pg.QueryResult[]);
    }) as pg.Query & Answered;
    const { handleCommandComplete } = query;
    query.submit = (connection) => {
      connection.stream.cork();
      connection.query(text);
      connection.stream.write(
        Buffer.concat(loads.flatMap(({ parts }) => [...parts.flatMap(framed), COPY_DONE])),
      );
      connection.stream.uncork();
    };
    query.handleCopyInResponse = () => undefined;
    query.handleCommandComplete = (message, connection) => {
      answered++;
      handleCommandComplete.call(query, message, connection);
    };
    client.query(query);
  });
}

/** What `pg` calls a query object while it is answered. */
interface Answered {
  handleCopyInResponse(): void;
  handleCommandComplete(message: object, connection: object): void;
}

function framed(bytes: Buffer): Buffer[] {
  const head = Buffer.alloc(5);
  head[0] = DATA;
  head.writeInt32BE(bytes.length + 4, 1);
  return [head, bytes];
}
