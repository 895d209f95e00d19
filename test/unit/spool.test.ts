/** The spool's promises: order, bounded memory, a bounded file that leaves no trace, and no silent end. */
import { createHash, type Hash } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, afterEach, expect, it, vi } from 'vitest';
import type { BatchPart } from '../../src/core/batch.ts';
import { Spool, type SpoolOptions } from '../../src/queue/spool.ts';
import { heldBytes } from '../support/memory.ts';

const MIB = 1024 * 1024;
const spoolDir = await mkdtemp(join(tmpdir(), 'ibex-spool-test-'));
afterAll(() => rm(spoolDir, { recursive: true }));

const spools: Spool[] = [];
afterEach(async () => {
  for (const spool of spools.splice(0)) await spool.dispose();
  expect(await readdir(spoolDir)).toEqual([]);
});

function makeSpool(options: Partial<SpoolOptions> = {}): Spool {
  const spool = new Spool({ spoolDir, ...options });
  spools.push(spool);
  return spool;
}

/** A part that tells itself from every other of its size. */
function makePart(n: number, size = 64 * 1024): BatchPart {
  const bytes = Buffer.alloc(size, n);
  if (size >= 4) bytes.writeUInt32LE(n);
  return { table: n % 7, bytes };
}

/** What parts hold, pieces of a table joined: the spool may cut. Digests, as comparing large Buffers is slow. */
function digest(parts: BatchPart[]): string[] {
  const joined: { table: number; length: number; hash: Hash }[] = [];
  for (const { table, bytes } of parts) {
    if (joined.at(-1)?.table !== table) joined.push({ table, length: 0, hash: createHash('md5') });
    const last = joined.at(-1) as (typeof joined)[0];
    last.length += bytes.length;
    last.hash.update(bytes);
  }
  return joined.map(({ table, length, hash }) => `${table} ${length} ${hash.digest('hex')}`);
}

async function drain(spool: AsyncIterable<BatchPart>): Promise<BatchPart[]> {
  const parts: BatchPart[] = [];
  for await (const part of spool) parts.push(part);
  return parts;
}

/** True while the promise has not settled after everything that is ready has run. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let pending = true;
  const settle = () => {
    pending = false;
  };
  promise.then(settle, settle);
  for (let n = 0; n < 20; n += 1) await nextTurn();
  return pending;
}

it('gives back what was pushed, in order, from memory alone', async () => {
  const spool = makeSpool();
  const parts = Array.from({ length: 100 }, (_, n) => makePart(n, 1000));
  for (const part of parts) await spool.push(part);
  spool.end();
  expect(digest(await drain(spool))).toEqual(digest(parts));
});

it('keeps the order across memory and disk, whoever is faster', async () => {
  const spool = makeSpool({ memoryBytes: 256 * 1024 });
  const sent: BatchPart[] = [];
  const received: BatchPart[] = [];
  const reading = (async () => {
    for await (const part of spool) {
      received.push(part);
      // Now faster than the writer, now slower: memory, disk and empty take turns.
      if (received.length % 50 < 25) await nextTurn();
    }
  })();
  for (let n = 0; n < 2000; n += 1) {
    const part = makePart(n, 1 + ((n * 7919) % 40_000));
    sent.push(part);
    await spool.push(part);
    if (n % 300 > 200) await nextTurn();
  }
  spool.end();
  await reading;
  expect(digest(received)).toEqual(digest(sent));
});

it('never waits for the reader below the bound of the disk, and wraps around in the file', async () => {
  const diskBytes = 3 * MIB + 12_345;
  const spool = makeSpool({ memoryBytes: 0, diskBytes });
  const sent: BatchPart[] = [];
  const push = (n: number) => {
    const part = makePart(n, 100_003);
    sent.push(part);
    return spool.push(part);
  };
  const received: BatchPart[] = [];
  const parts = spool[Symbol.asyncIterator]();
  let n = 0;
  for (let round = 0; round < 10; round += 1) {
    for (; n < (round + 1) * 20; n += 1) await push(n);
    while (received.length < n - 5) received.push((await parts.next()).value);
  }
  spool.end();
  for await (const part of parts) received.push(part);
  expect(digest(received)).toEqual(digest(sent));
});

it('waits when the disk is full, until something is read back', async () => {
  const spool = makeSpool({ memoryBytes: 0, diskBytes: 2 * MIB });
  const sent = [0, 1, 2, 3].map((n) => makePart(n, MIB / 2));
  for (const part of sent.slice(0, 3)) await spool.push(part);
  const fourth = spool.push(sent[3] as BatchPart);
  expect(await isPending(fourth)).toBe(true);
  const parts = spool[Symbol.asyncIterator]();
  const first = (await parts.next()).value;
  await fourth;
  spool.end();
  expect(digest([first, ...(await drain(parts))])).toEqual(digest(sent));
});

it('carries a part larger than memory and block', async () => {
  const spool = makeSpool({ memoryBytes: 0 });
  const part = makePart(3, 20 * MIB + 1);
  await spool.push(part);
  spool.end();
  expect(digest(await drain(spool))).toEqual(digest([part]));
});

it('holds little in memory, however much is pushed and read back', async () => {
  const spool = makeSpool();
  const before = heldBytes();
  const held: number[] = [];
  const measure = () => held.push(heldBytes() - before);
  for (let n = 0; n < 200; n += 1) {
    await spool.push(makePart(n, MIB));
    if (n % 10 === 0) measure();
  }
  spool.end();
  let bytes = 0;
  for await (const part of spool) {
    bytes += part.bytes.length;
    if (bytes % (10 * MIB) < MIB) measure();
  }
  expect(bytes).toBe(200 * MIB);
  // 16 MiB, and what is on its way to the disk.
  expect(Math.max(...held)).toBeLessThan(64 * MIB);
});

it('waits for parts, and ends only when told', async () => {
  const spool = makeSpool();
  const parts = spool[Symbol.asyncIterator]();
  const first = parts.next();
  expect(await isPending(first)).toBe(true);
  await spool.push(makePart(1));
  expect(digest([(await first).value])).toEqual(digest([makePart(1)]));
  const end = parts.next();
  expect(await isPending(end)).toBe(true);
  spool.end();
  expect((await end).done).toBe(true);
});

it('fails at both ends with the first error, rows or not', async () => {
  const spool = makeSpool({ memoryBytes: 0, diskBytes: 2 * MIB });
  for (let n = 0; n < 3; n += 1) await spool.push(makePart(n, MIB / 2));
  const waiting = spool.push(makePart(3, MIB / 2));
  const error = new Error('the queue is gone');
  spool.fail(error);
  spool.fail(new Error('later'));
  await expect(waiting).rejects.toBe(error);
  await expect(spool.push(makePart(4))).rejects.toBe(error);
  await expect(drain(spool)).rejects.toBe(error);
});

it('wakes a reader that waits when it fails', async () => {
  const spool = makeSpool();
  const reading = drain(spool);
  const error = new Error('the source is gone');
  spool.fail(error);
  await expect(reading).rejects.toBe(error);
});

it.skipIf(process.platform === 'win32')('keeps no file that others can find', async () => {
  const spool = makeSpool({ memoryBytes: 0 });
  await spool.push(makePart(1, MIB));
  expect(await readdir(spoolDir)).toEqual([]);
});

it('deletes the file when disposed, where it could not be unlinked while open', async () => {
  vi.resetModules();
  let refuse = true;
  vi.doMock('node:fs/promises', async (original) => {
    const fs = await original<typeof import('node:fs/promises')>();
    const unlink = async (path: string) => {
      if (refuse) throw new Error('EBUSY');
      await fs.unlink(path);
    };
    return { ...fs, unlink };
  });
  const { Spool: WindowsSpool } = await import('../../src/queue/spool.ts');
  vi.doUnmock('node:fs/promises');
  const spool = new WindowsSpool({ spoolDir, memoryBytes: 0 });
  await spool.push(makePart(1, MIB));
  expect(await readdir(spoolDir)).toHaveLength(1);
  refuse = false;
  await spool.dispose();
  expect(await readdir(spoolDir)).toEqual([]);
});

it('says where it could not write', async () => {
  const file = join(tmpdir(), `ibex-no-directory-${process.pid}`);
  await writeFile(file, '');
  try {
    const spool = makeSpool({ spoolDir: file, memoryBytes: 0 });
    const failure = { kind: 'resources', message: expect.stringContaining(file) };
    await expect(spool.push(makePart(1, MIB))).rejects.toMatchObject(failure);
    await expect(drain(spool)).rejects.toMatchObject(failure);
  } finally {
    await rm(file);
  }
});

it('can be disposed of twice, in the middle, and without having been used', async () => {
  const spool = makeSpool({ memoryBytes: 0 });
  await spool.dispose();
  const used = makeSpool({ memoryBytes: 0 });
  await used.push(makePart(1, MIB));
  const writing = used.push(makePart(2, MIB));
  const failing = expect(writing).rejects.toMatchObject({ kind: 'internal' });
  await used.dispose();
  await used.dispose();
  await failing;
  await expect(used.push(makePart(3))).rejects.toMatchObject({ kind: 'internal' });
});
