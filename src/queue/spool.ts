/**
 * A first-in first-out store between the reader and the queue's writer, so that the reader never waits for the
 * queue while its transaction is open on the source (an open reader makes the application's ALTER wait, and
 * everybody behind it).
 *
 * Parts stay in memory up to `memoryBytes`, then go to one temporary file used as a ring of `diskBytes`. Only
 * when that is full too does `push` wait, and with it the source's transaction: the disk has a bound, and
 * losing rows is no choice. The file is written and read back in blocks, so memory is bounded on both sides
 * and small parts cost little.
 */
import { randomUUID } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { type FileHandle, mkdir, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { BatchPart } from '../core/batch.ts';
import { IbexError } from '../core/errors.ts';

export interface SpoolOptions {
  readonly spoolDir: string;
  readonly memoryBytes?: number;
  readonly diskBytes?: number;
}

const MIB = 1024 * 1024;
const MEMORY_BYTES = 16 * MIB;
const DISK_BYTES = 8 * 1024 * MIB;
/** Read back at once. */
const BLOCK = MIB;
/** A record on disk: u32 length, u16 table, bytes. At least one always fits into a block. */
const RECORD_HEADER = 6;
const RECORD_BYTES = BLOCK / 2;
/** Gathered before it is written. */
const WRITE_BYTES = BLOCK / 2;

export class Spool {
  readonly #memoryBytes: number;
  readonly #ring: Ring;
  readonly #changed = new EventEmitter();
  /** Older than anything on disk. */
  #memory: BatchPart[] = [];
  #inMemory = 0;
  /** Newer than anything on disk, to be written together. */
  #tail: BatchPart[] = [];
  #inTail = 0;
  #ended = false;
  #failed: { readonly error: unknown } | undefined;

  constructor(options: SpoolOptions) {
    this.#memoryBytes = options.memoryBytes ?? MEMORY_BYTES;
    this.#ring = new Ring(options.spoolDir, options.diskBytes ?? DISK_BYTES);
  }

  /** Takes a part, whose bytes belong to the spool from now on. One call at a time. */
  async push(part: BatchPart): Promise<void> {
    this.#check();
    const inOrder = this.#ring.empty && this.#tail.length === 0;
    if (inOrder && this.#inMemory < this.#memoryBytes) this.#remember(part);
    else await this.#store(part).catch((error) => this.fail(error));
    this.#check();
    this.#changed.emit('change');
  }

  /** Nothing follows: the iteration ends after what was pushed. */
  end(): void {
    this.#ended = true;
    this.#changed.emit('change');
  }

  /** Makes both ends fail with the first such error, `push` and the iteration, whatever was pushed before. */
  fail(error: unknown): void {
    this.#failed ??= { error };
    this.#changed.emit('change');
  }

  /** The parts in order, cut where it suits; once. */
  async *[Symbol.asyncIterator](): AsyncGenerator<BatchPart> {
    for (;;) {
      // Taken off the end, one by one: what the queue is done with can be collected at once.
      const taken = this.#memory.reverse();
      this.#memory = [];
      for (let part = taken.pop(); part !== undefined; part = taken.pop()) {
        this.#check();
        this.#inMemory -= part.bytes.length;
        yield part;
      }
      this.#check();
      if (this.#memory.length > 0) continue;
      if (!this.#ring.empty) await this.#load().catch((error) => this.fail(error));
      else if (this.#tail.length > 0) for (const part of this.#takeTail()) this.#remember(part);
      else if (this.#ended) return;
      else await once(this.#changed, 'change');
    }
  }

  /** Drops what is left and deletes the file. */
  async dispose(): Promise<void> {
    this.fail(new IbexError('internal', 'the spool was used after it was disposed of'));
    this.#memory = [];
    this.#tail = [];
    await this.#ring.close();
  }

  async #store({ table, bytes }: BatchPart): Promise<void> {
    for (let at = 0; at < bytes.length; at += RECORD_BYTES) {
      const piece = { table, bytes: bytes.subarray(at, at + RECORD_BYTES) };
      this.#tail.push(piece);
      this.#inTail += RECORD_HEADER + piece.bytes.length;
      if (this.#inTail >= WRITE_BYTES) await this.#spill();
    }
  }

  async #spill(): Promise<void> {
    while (!this.#ring.fits(this.#inTail)) {
      await once(this.#changed, 'change');
      this.#check();
    }
    // Nothing to do if meanwhile the reader came as far as to take it.
    if (this.#tail.length > 0) await this.#ring.append(this.#takeTail());
  }

  #takeTail(): BatchPart[] {
    const tail = this.#tail;
    this.#tail = [];
    this.#inTail = 0;
    return tail;
  }

  async #load(): Promise<void> {
    const { parts, bytes } = await this.#ring.read();
    // In one step: a `push` in between would find the ring empty and put its part before these.
    for (const part of parts) this.#remember(part);
    this.#ring.release(bytes);
    this.#changed.emit('change');
  }

  #remember(part: BatchPart): void {
    this.#memory.push(part);
    this.#inMemory += part.bytes.length;
  }

  #check(): void {
    if (this.#failed !== undefined) throw this.#failed.error;
  }
}

/** Records in a file that wraps around. Offsets count on for ever; the file's are theirs modulo its size. */
class Ring {
  readonly #directory: string;
  readonly #size: number;
  #file: Promise<FileHandle> | undefined;
  #path: string | undefined;
  #readAt = 0;
  #writeAt = 0;

  constructor(directory: string, size: number) {
    this.#directory = directory;
    // What is written at once always fits into an empty ring.
    this.#size = Math.max(size, WRITE_BYTES + RECORD_HEADER + RECORD_BYTES);
  }

  get empty(): boolean {
    return this.#readAt === this.#writeAt;
  }

  fits(bytes: number): boolean {
    return this.#writeAt - this.#readAt + bytes <= this.#size;
  }

  async append(parts: readonly BatchPart[]): Promise<void> {
    const records = Buffer.concat(parts.flatMap(({ table, bytes }) => [recordHeader(table, bytes), bytes]));
    await this.#io(async (file) => {
      if (this.empty) {
        // Gives the space back, and keeps the file as small as what it holds.
        await file.truncate(0);
        this.#readAt = this.#writeAt = 0;
      }
      for (const [position, piece] of this.#pieces(this.#writeAt, records)) {
        await writeAll(file, piece, position);
      }
    });
    this.#writeAt += records.length;
  }

  /** The oldest records that fit into a block, and how many bytes to release once they are safe. */
  async read(): Promise<{ parts: BatchPart[]; bytes: number }> {
    const block = Buffer.allocUnsafe(Math.min(BLOCK, this.#writeAt - this.#readAt));
    await this.#io(async (file) => {
      for (const [position, piece] of this.#pieces(this.#readAt, block)) await readAll(file, piece, position);
    });
    const parts: BatchPart[] = [];
    let at = 0;
    while (at + RECORD_HEADER <= block.length) {
      const start = at + RECORD_HEADER;
      const end = start + block.readUInt32LE(at);
      if (end > block.length) break;
      parts.push({ table: block.readUInt16LE(at + 4), bytes: block.subarray(start, end) });
      at = end;
    }
    return { parts, bytes: at };
  }

  release(bytes: number): void {
    this.#readAt += bytes;
  }

  async close(): Promise<void> {
    const file = await this.#file?.catch(() => undefined);
    await file?.close();
    if (this.#path !== undefined) await unlink(this.#path).catch(() => {});
    this.#file = undefined;
    this.#path = undefined;
  }

  /** Where in the file `buffer` belongs that starts at offset `at`: up to the end, and the rest in front. */
  #pieces(at: number, buffer: Buffer): [position: number, piece: Buffer][] {
    const position = at % this.#size;
    const room = this.#size - position;
    const first: [number, Buffer] = [position, buffer.subarray(0, room)];
    return buffer.length > room ? [first, [0, buffer.subarray(room)]] : [first];
  }

  async #io(work: (file: FileHandle) => Promise<void>): Promise<void> {
    try {
      this.#file ??= this.#open();
      await work(await this.#file);
    } catch (cause) {
      const { message } = cause as Error;
      throw new IbexError('resources', `cannot spool to ${this.#directory}: ${message}`, {
        cause,
        hint: 'Free disk space there, or choose another directory for spooling.',
      });
    }
  }

  async #open(): Promise<FileHandle> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = join(this.#directory, `ibex-spool-${process.pid}-${randomUUID()}`);
    const file = await open(path, 'wx+', 0o600);
    // Without a name the file goes with the process, however that ends. Windows may refuse: `close` deletes it.
    await unlink(path).catch(() => {
      this.#path = path;
    });
    return file;
  }
}

function recordHeader(table: number, bytes: Buffer): Buffer {
  const header = Buffer.allocUnsafe(RECORD_HEADER);
  header.writeUInt32LE(bytes.length, 0);
  header.writeUInt16LE(table, 4);
  return header;
}

async function writeAll(file: FileHandle, bytes: Buffer, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    at += (await file.write(bytes, at, bytes.length - at, position + at)).bytesWritten;
  }
}

async function readAll(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await file.read(into, at, into.length - at, position + at);
    if (bytesRead === 0) throw new Error('the spool file is shorter than what was written to it');
    at += bytesRead;
  }
}
