/**
 * Where rows end in a stream of binary COPY. That is told by the numbers of fields and their lengths, which stand before
 * the values; no value is looked at.
 */

/** What such a stream begins with: signature, no flags, no extension. */
export const COPY_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');
/** What it ends with, in the place of a number of fields. */
export const COPY_END = Buffer.from([0xff, 0xff]);

/** Bytes of a number of fields, and of a field's length. */
const COUNT = 2;
const LENGTH = 4;

/** Follows one stream, whose bytes may be cut anywhere. */
export class RowEnds {
  /** Bytes to pass over before the next number begins. */
  #pass = COPY_HEADER.length;
  /** Bytes of the next number that are still to come, and what has come of it. */
  #digits = COUNT;
  #number = 0;
  /** Fields of the present row that are still to come. */
  #fields = 0;

  /** How many of these bytes, the next of the stream, come before the end of the last row that ends in them. 0: none does. */
  lastIn(bytes: Buffer): number {
    let end = 0;
    for (let at = 0; at < bytes.length; ) {
      if (this.#pass > 0) {
        const step = Math.min(this.#pass, bytes.length - at);
        at += step;
        this.#pass -= step;
      } else {
        this.#number = (this.#number << 8) | (bytes[at++] as number);
        if (--this.#digits > 0) continue;
        this.#take(this.#number);
      }
      if (this.#pass === 0 && this.#fields === 0) end = at;
    }
    return end;
  }

  #take(number: number): void {
    if (this.#fields > 0) {
      this.#fields--;
      // NULL has a length of -1.
      this.#pass = Math.max(0, number);
    } else if (number === COPY_END.readUInt16BE()) {
      this.#pass = Number.POSITIVE_INFINITY;
    } else {
      this.#fields = number;
    }
    this.#digits = this.#fields > 0 ? LENGTH : COUNT;
    this.#number = 0;
  }
}
