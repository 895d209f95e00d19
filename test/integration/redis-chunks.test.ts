/** The chunks of a copy through Redis: shared by processes, and handed in again when Redis loses them. */
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { IbexError } from '../../src/core/errors.ts';
import type { ChunkHandler, ChunkJob, ChunkOutcome, ChunkQueue } from '../../src/core/ports.ts';
import { startRedis } from '../../src/embedded/redis.ts';
import { createRedisChunks } from '../../src/queue/redis-chunks.ts';
import { redisForTests, waitFor } from '../support/servers.ts';

const redis = await redisForTests();
afterAll(() => redis?.stop());

const log = pino({ level: 'silent' });
const queues: ChunkQueue[] = [];
afterEach(async () => {
  await Promise.all(queues.splice(0).map((queue) => queue.close()));
});

async function open(handsIn: boolean): Promise<ChunkQueue> {
  const options = { url: redis?.url as string, sync: 'main', log, handsIn };
  const queue = await createRedisChunks(options);
  queues.push(queue);
  return queue;
}

const jobOf = (n: number): ChunkJob => ({
  sync: 'main',
  epoch: 1,
  chunks: [{ relid: 16_384, n, plan: 'p', direct: true, divisible: true }],
});

const copied = (rows: number): ChunkOutcome[] => [{ result: 'copied', rows, bytes: rows, inTheWay: false }];

const numberOf = ({ chunks }: ChunkJob) => chunks[0]?.n as number;

/** A handler whose chunks stay under way until they are let go. */
function holding() {
  const begun: number[] = [];
  let letGo = () => {};
  const free = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const handler: ChunkHandler = async (job) => {
    begun.push(numberOf(job));
    await free;
    return copied(numberOf(job));
  };
  return { begun, handler, letGo };
}

describe.skipIf(redis === undefined)('chunks through Redis', () => {
  let client: Redis;
  beforeEach(async () => {
    client = new Redis(redis?.url as string);
    await client.flushall();
  });
  afterEach(() => client.disconnect());

  test('are shared by whoever takes them, and each comes to its own outcome', async () => {
    const [coordinator, worker] = [await open(true), await open(false)];
    const [here, there] = [holding(), holding()];
    coordinator.consume(here.handler, 2);
    worker.consume(there.handler, 3);
    const outcomes = Promise.all([1, 2, 3, 4, 5, 6, 7].map((n) => coordinator.run(jobOf(n))));
    await waitFor(() => here.begun.length === 2 && there.begun.length === 3, { what: 'both to be busy' });
    here.letGo();
    there.letGo();
    expect(await outcomes).toEqual([1, 2, 3, 4, 5, 6, 7].map(copied));
    expect([...here.begun, ...there.begun].sort()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test('bring what is wrong with a table back whole', async () => {
    const [coordinator, worker] = [await open(true), await open(false)];
    worker.consume(async () => {
      throw new IbexError('constraint', 'a row is in the way', { hint: 'Remove it.', table: 'public.t' });
    }, 1);
    await expect(coordinator.run(jobOf(1))).rejects.toMatchObject({
      kind: 'constraint',
      message: 'a row is in the way',
      hint: 'Remove it.',
      table: 'public.t',
    });
  });

  test('that Redis loses, waiting or under way, are handed in again', async () => {
    const coordinator = await open(true);
    const work = holding();
    coordinator.consume(work.handler, 1);
    const outcomes = Promise.all([1, 2, 3].map((n) => coordinator.run(jobOf(n))));
    await waitFor(() => work.begun.length === 1, { what: 'the first to begin' });
    await client.flushall();
    work.letGo();
    expect(await outcomes).toEqual([1, 2, 3].map(copied));
  });

  test('go on after Redis was away', async () => {
    const coordinator = await open(true);
    const work = holding();
    coordinator.consume(work.handler, 1);
    const outcomes = Promise.all([1, 2].map((n) => coordinator.run(jobOf(n))));
    await waitFor(() => work.begun.length === 1, { what: 'the first to begin' });
    await redis?.restart();
    work.letGo();
    expect(await outcomes).toEqual([1, 2].map(copied));
  });

  test('fail when Redis stays away, for the copy to start anew', async () => {
    const other = await startRedis();
    const options = { url: other?.url as string, sync: 'main', log, handsIn: true };
    const coordinator = await createRedisChunks(options);
    queues.push(coordinator);
    const lost = expect(coordinator.run(jobOf(1))).rejects.toMatchObject({ kind: 'queue' });
    await other?.stop();
    await lost;
  });

  test('of an earlier process are forgotten, and those that wait as the queue is closed fail', async () => {
    const earlier = await open(true);
    const left = expect(earlier.run(jobOf(1))).rejects.toMatchObject({ kind: 'queue_lost' });
    const coordinator = await open(true);
    const seen: number[] = [];
    coordinator.consume(async (job) => {
      seen.push(numberOf(job));
      return copied(numberOf(job));
    }, 1);
    await earlier.close();
    await left;
    expect(await coordinator.run(jobOf(2))).toEqual(copied(2));
    expect(seen).toEqual([2]);
  });
});
