/**
 * Frames: the entries of a batch's list in Redis. Parts are cut and joined to a useful size; the sequence numbers
 * show when Redis lost one.
 */

/** Bytes of one list entry, at most. */
const FRAME = 256 * 1024;

// u8 kind, u16 table, u32 sequence number within the batch, bytes.

export const DATA = 0;
export const END = 1;
export const ABORT = 2;
export const FRAME_HEADER = 7;
export const EMPTY = Buffer.alloc(0);

/** Cuts and joins parts into frames of a useful size: nobody on the way reads the bytes. */
export class FrameBuilder {
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

export interface Frame {
  readonly kind: number;
  readonly sequence: number;
  readonly table: number;
  readonly bytes: Buffer;
}

export function decodeFrame(frame: Buffer): Frame {
  return {
    kind: frame.readUInt8(0),
    table: frame.readUInt16LE(1),
    sequence: frame.readUInt32LE(3),
    bytes: frame.subarray(FRAME_HEADER),
  };
}

export function sizeOf(buffers: readonly Buffer[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.length, 0);
}
