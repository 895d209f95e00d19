/** Into how many chunks a table is divided, and how large they are. */
import { expect, test } from 'vitest';
import { chunkSize, planChunks } from '../../src/backfill/chunks.ts';

const MIB = 1024 * 1024;
const BLOCK = 8192;

function plan(bytes: number, bytesPerSecond: number | null = null) {
  const blocks = bytes / BLOCK;
  const heap = { relation: 1, filenode: 1, blocks, bytes };
  const options = {
    divisible: true,
    part: false,
    chunkBytes: chunkSize(bytesPerSecond),
    chunkBlocks: blocks,
  };
  const chunks = planChunks([heap], options);
  return { count: chunks.length, largest: Math.max(...chunks.map(({ planned }) => planned)) };
}

test.each([
  ['a table of 10 MiB', 10, 1, 10],
  ['one of 640 MiB', 640, 10, 64],
  ['one of 2 GiB', 2048, 16, 128],
  ['one of 64 GiB', 65536, 256, 256],
])('%s', (_, size, count, largest) => {
  expect(plan(size * MIB)).toEqual({ count, largest: largest * MIB });
});

test('a rate that is limited gives chunks of a minute', () => {
  expect(plan(2048 * MIB, MIB / 2)).toMatchObject({ largest: 30 * MIB });
});
