/** Where rows end in binary COPY: found at every one of them, however the bytes are cut. */
import { expect, test } from 'vitest';
import { COPY_END, COPY_HEADER, RowEnds } from '../../src/postgres/copy-rows.ts';
import { randomFrom, seedOf } from '../support/random.ts';

/** A row of these fields; null for NULL. */
function row(fields: readonly (Buffer | null)[]): Buffer {
  const numbers = (size: 2 | 4, value: number) => {
    const bytes = Buffer.alloc(size);
    bytes.writeIntBE(value, 0, size);
    return bytes;
  };
  const values = fields.flatMap((field) => [numbers(4, field?.length ?? -1), field ?? Buffer.alloc(0)]);
  return Buffer.concat([numbers(2, fields.length), ...values]);
}

test('of all rows, in pieces of any size', () => {
  const random = randomFrom(seedOf('row ends'));
  const below = (limit: number) => Math.floor(random() * limit);
  // Values that look like ends, lengths and counts themselves.
  const value = () => (below(4) === 0 ? null : Buffer.alloc(below(300), [0xff, 0, 2][below(3)]));
  const rows = Array.from({ length: 500 }, () => row(Array.from({ length: 1 + below(5) }, value)));
  const stream = Buffer.concat([COPY_HEADER, ...rows, COPY_END]);
  const ends = [COPY_HEADER.length];
  for (const { length } of rows) ends.push((ends.at(-1) as number) + length);
  for (const most of [1, 2, 7, 100, 5_000, stream.length]) {
    const follow = new RowEnds();
    for (let at = 0; at < stream.length; ) {
      const bytes = stream.subarray(at, at + 1 + below(most));
      const last = ends.filter((end) => end > at && end <= at + bytes.length).at(-1) ?? at;
      expect(follow.lastIn(bytes)).toBe(last - at);
      at += bytes.length;
    }
  }
});
