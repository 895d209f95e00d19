/**
 * One contract, two queues: what `core/ports.ts` promises is tested against the in-process queue and the one
 * through Redis alike. Then what only Redis can do: lose things, go away, be shared.
 */
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import type { BatchHeader, BatchPart } from '../../src/core/batch.ts';
import { IbexError } from '../../src/core/errors.ts';
import type {
  BatchHandler,
  BatchOutcome,
  BatchQueue,
  BatchWriter,
  IncomingBatch,
} from '../../src/core/ports.ts';
import { startRedis } from '../../src/embedded/redis.ts';
import { createRedisQueue } from '../../src/queue/bullmq.ts';
import { createInProcessQueue } from '../../src/queue/in-process.ts';
import { heldBytes } from '../support/memory.ts';
import { redisForTests, waitFor } from '../support/servers.ts';

const MIB = 1024 * 1024;
const BUDGET = 32 * MIB;
const SILENT = pino({ level: 'silent' });

const redis = await redisForTests();
afterAll(() => redis?.stop());

const queues: BatchQueue[] = [];
afterEach(async () => {
  for (const queue of queues.splice(0)) await queue.close();
});

let counter = 0;
function makeHeader(sync = 'main'): BatchHeader {
  counter += 1;
  return {
    sync,
    id: `1-${counter}`,
    epoch: 1,
    from: '10:10:',
    to: '20:20:',
    source: { system: '7', database: '5', timeline: 1 },
    tables: [],
    inStep: [],
    witness: 0,
    oldestAt: null,
  };
}

function makePart(bytes: string | Buffer, table = 0): BatchPart {
  return { table, bytes: Buffer.from(bytes) };
}

function outcomeOf(batch: IncomingBatch): BatchOutcome {
  return { id: batch.header.id, position: batch.header.to };
}

/** All parts as text, pieces of a table joined, since cuts fall anywhere. */
async function readAll(batch: IncomingBatch): Promise<string> {
  const text: string[] = [];
  let table = -1;
  for await (const part of batch.parts()) {
    if (part.table !== table) text.push(`[${part.table}]`);
    table = part.table;
    text.push(part.bytes.toString());
  }
  return text.join('');
}

const reading: BatchHandler = async (batch) => {
  await readAll(batch);
  return outcomeOf(batch);
};

/** A promise to be settled by hand. */
function gate(): { readonly opened: Promise<void>; open(): void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

function contract(makeQueue: () => Promise<BatchQueue>): void {
  const start = async (handler?: BatchHandler) => {
    const queue = await makeQueue();
    queues.push(queue);
    await queue.clear();
    if (handler !== undefined) queue.consume(handler);
    return queue;
  };

  it('hands batches and parts over in order', async () => {
    const seen: string[] = [];
    const queue = await start(async (batch) => {
      seen.push(`${batch.header.id} ${await readAll(batch)}`);
      return outcomeOf(batch);
    });
    const expected: string[] = [];
    const applied: Promise<BatchOutcome>[] = [];
    for (let n = 0; n < 20; n += 1) {
      const header = makeHeader();
      const writer = await queue.open(header);
      await writer.write(makePart('a'));
      await writer.write(makePart('b'));
      await writer.write(makePart(`c${n}`, 1));
      await writer.write(makePart('d', 65_535));
      await writer.end();
      expected.push(`${header.id} [0]ab[1]c${n}[65535]d`);
      applied.push(writer.applied);
    }
    const outcomes = await Promise.all(applied);
    expect(seen).toEqual(expected);
    expect(outcomes.map(({ id, position }) => `${id} ${position}`)).toEqual(
      expected.map((line) => `${line.split(' ')[0]} 20:20:`),
    );
  });

  it('keeps every byte of parts of any size', async () => {
    const sizes = [1, 7, 262_137, 262_144, 300_000, 3 * MIB + 1, 40 * MIB];
    const sent = sizes.map((size, n) => Buffer.alloc(size, n + 1));
    const received: Buffer[] = [];
    const queue = await start(async (batch) => {
      for await (const part of batch.parts()) received.push(part.bytes);
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader());
    for (const bytes of sent) await writer.write({ table: 3, bytes });
    await writer.end();
    await writer.applied;
    expect(Buffer.concat(received).equals(Buffer.concat(sent))).toBe(true);
  });

  it('lets the handler start before the batch ends', async () => {
    const seen: string[] = [];
    const queue = await start(async (batch) => {
      for await (const part of batch.parts()) seen.push(part.bytes.toString());
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader());
    await writer.write(makePart('first'));
    await waitFor(() => seen.length === 1, { what: 'the first part' });
    await writer.write(makePart('second'));
    await waitFor(() => seen.length === 2, { what: 'the second part' });
    await writer.end();
    await writer.applied;
  });

  it('carries a batch without parts', async () => {
    const queue = await start(reading);
    const header = makeHeader();
    const writer = await queue.open(header);
    await writer.end();
    expect(await writer.applied).toEqual({ id: header.id, position: '20:20:' });
  });

  it('tells the handler why a batch was aborted', async () => {
    const reason = new IbexError('source_moved', 'the table was rewritten', { table: 'public.t' });
    const seen: unknown[] = [];
    const queue = await start(async (batch) => {
      await readAll(batch).catch((error) => {
        seen.push(error);
        throw error;
      });
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader());
    await writer.write(makePart('row'));
    await writer.abort(reason);
    await expect(writer.applied).rejects.toBe(reason);
    expect(seen).toEqual([reason]);
  });

  it('brings the error of the handler to the writer, and goes on with the next batch', async () => {
    const failure = new IbexError('gap', 'the batch does not start at the checkpoint');
    const handlers: BatchHandler[] = [
      async () => {
        throw failure;
      },
      reading,
    ];
    const queue = await start((batch) => (handlers.shift() as BatchHandler)(batch));
    const first = await queue.open(makeHeader());
    await expect(first.applied).rejects.toBe(failure);
    await expect(first.write(makePart('late'))).rejects.toBe(failure);
    await expect(first.end()).rejects.toBe(failure);
    await first.abort(failure);
    const second = await queue.open(makeHeader());
    await second.end();
    await second.applied;
  });

  it('discards the rest of a batch that the handler skips', async () => {
    const queue = await start(async (batch) => outcomeOf(batch));
    const writer = await queue.open(makeHeader());
    await writer.applied;
    for (let n = 0; n < 100; n += 1) await writer.write(makePart(Buffer.alloc(MIB)));
    await writer.end();
    expect(queue.bytes()).toBe(0);
  });

  it('lets the writer wait for a slow handler, within its budget', async () => {
    let read = 0;
    let peak = 0;
    const queue = await start(async (batch) => {
      await waitFor(() => queue.bytes() > 8 * MIB, { what: 'the writer to be ahead' });
      for await (const part of batch.parts()) {
        read += part.bytes.length;
        peak = Math.max(peak, queue.bytes());
        // About 400 MB/s, whatever size the parts have here.
        await sleep(part.bytes.length / 400_000);
      }
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader());
    const before = heldBytes();
    let held = 0;
    for (let n = 0; n < 1600; n += 1) {
      await writer.write(makePart(Buffer.alloc(64 * 1024)));
      if (n % 100 === 0) held = Math.max(held, heldBytes() - before);
    }
    await writer.end();
    await writer.applied;
    expect(read).toBe(100 * MIB);
    expect(peak).toBeLessThan(BUDGET + 4 * MIB);
    // Far from all.
    expect(held).toBeLessThan(BUDGET + 32 * MIB);
    expect(queue.bytes()).toBe(0);
  });

  it('applies batches in the order of open, however they are written', async () => {
    const seen: string[] = [];
    const queue = await start(async (batch) => {
      seen.push(`${batch.header.id} ${(await readAll(batch)).length - '[0]'.length}`);
      return outcomeOf(batch);
    });
    const headers = [makeHeader(), makeHeader(), makeHeader()];
    const writers: BatchWriter[] = [];
    for (const header of headers) writers.push(await queue.open(header));
    const write = async (n: number) => {
      for (let written = 0; written < 20; written += 1) await writers[n]?.write(makePart(Buffer.alloc(MIB)));
      await writers[n]?.end();
    };
    // The last ones fill the budget before the first one writes anything.
    const later = [write(2), write(1)];
    await sleep(200);
    await Promise.all([write(0), ...later]);
    await Promise.all(writers.map(({ applied }) => applied));
    expect(seen).toEqual(headers.map(({ id }) => `${id} ${20 * MIB}`));
  });

  it('forgets what waits when it is cleared', async () => {
    const queue = await start();
    const writer = await queue.open(makeHeader());
    await writer.write(makePart('row'));
    await writer.end();
    await queue.clear();
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
    const seen: string[] = [];
    queue.consume(async (batch) => {
      seen.push(batch.header.id);
      return reading(batch);
    });
    const header = makeHeader();
    const next = await queue.open(header);
    await next.end();
    await next.applied;
    expect(seen).toEqual([header.id]);
  });

  it('closes when idle, and takes nothing after that', async () => {
    const queue = await start(reading);
    const writer = await queue.open(makeHeader());
    await writer.end();
    await writer.applied;
    await queue.close();
    await expect(queue.open(makeHeader())).rejects.toMatchObject({ kind: 'queue_lost' });
  });

  it('closes under a batch that nobody ends', async () => {
    let begun = false;
    let error: unknown;
    const queue = await start(async (batch) => {
      begun = true;
      await readAll(batch).catch((caught) => {
        error = caught;
        throw caught;
      });
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader());
    await writer.write(makePart('row'));
    const waiting = await queue.open(makeHeader());
    await waiting.end();
    await waitFor(() => begun, { what: 'the handler to begin' });
    await queue.close();
    expect(error).toMatchObject({ kind: 'queue_lost' });
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
    await expect(waiting.applied).rejects.toMatchObject({ kind: 'queue_lost' });
    await expect(writer.write(makePart('row'))).rejects.toMatchObject({ kind: 'queue_lost' });
  });

  it('waits with closing for a handler that has all it needs', async () => {
    const { opened, open } = gate();
    const events: string[] = [];
    const queue = await start(async (batch) => {
      events.push('begun');
      await opened;
      const outcome = await reading(batch);
      events.push('done');
      return outcome;
    });
    const writer = await queue.open(makeHeader());
    await writer.write(makePart('row'));
    await writer.end();
    await waitFor(() => events.length > 0, { what: 'the handler to begin' });
    const closing = queue.close().then(() => events.push('closed'));
    // Time for a queue that does not wait to show it.
    await sleep(100);
    open();
    await closing;
    await writer.applied;
    expect(events).toEqual(['begun', 'done', 'closed']);
  });
}

describe('in-process queue', () => {
  contract(async () => createInProcessQueue());
});

describe.skipIf(redis === undefined)('queue through Redis', () => {
  const url = redis?.url ?? '';
  contract(() => createRedisQueue({ url, sync: 'main', log: SILENT }));

  const client = new Redis(url, { lazyConnect: true });
  client.on('error', () => {});
  afterAll(() => client.disconnect());

  const open = async (sync: string, at = url) => {
    const queue = await createRedisQueue({ url: at, sync, log: SILENT });
    queues.push(queue);
    return queue;
  };
  const ownKeys = async (sync: string) => (await client.keys('*')).filter((key) => key.includes(`{${sync}}`));

  it('keeps rows out of jobs, lets keys expire, and leaves no rows behind', async () => {
    const { opened, open: openGate } = gate();
    const queue = await open('rows');
    queue.consume(async (batch) => {
      await opened;
      return reading(batch);
    });
    const header = makeHeader('rows');
    const writer = await queue.open(header);
    await writer.write(makePart('SECRET'.repeat(1000)));
    await writer.end();

    const job = await client.hgetall(`{ibex}:rows:rows-${header.id}`);
    expect(JSON.parse(job.data ?? '')).toEqual(header);
    expect(JSON.stringify(job)).not.toContain('SECRET');
    const keys = await ownKeys('rows');
    expect(keys.sort()).toEqual([`ibex:{rows}:${header.id}`, `ibex:{rows}:${header.id}:pushed`]);
    for (const key of keys) expect(await client.pttl(key)).toBeGreaterThan(60_000);

    openGate();
    await writer.applied;
    await waitFor(async () => (await ownKeys('rows')).length === 0, {
      what: 'an empty Redis',
    });
    const noJob = async () => (await client.keys('{ibex}:rows:rows-*')).length === 0;
    await waitFor(noJob, { what: 'the job to go' });
    for (const key of await client.keys('{ibex}:rows:*')) {
      expect(String(await client.dumpBuffer(key))).not.toContain('SECRET');
    }
  });

  it('holds its budget in Redis while the handler is slow', async () => {
    const usedMemory = async () => Number(/used_memory:(\d+)/.exec(await client.info('memory'))?.[1]);
    const before = await usedMemory();
    const { opened, open: openGate } = gate();
    const queue = await open('budget');
    queue.consume(async (batch) => {
      await opened;
      return reading(batch);
    });
    const header = makeHeader('budget');
    const writer = await queue.open(header);
    const writing = (async () => {
      for (let n = 0; n < 100; n += 1) await writer.write(makePart(Buffer.alloc(MIB)));
      await writer.end();
    })();
    const used = async () => (await usedMemory()) - before;
    await waitFor(async () => (await used()) > 28 * MIB, { what: 'the budget to be used' });
    // Time for a writer that does not keep to it to show it.
    await sleep(300);
    expect(await used()).toBeLessThan(BUDGET + 8 * MIB);
    const entries = await client.lrangeBuffer(`ibex:{budget}:${header.id}`, 0, -1);
    expect(Math.max(...entries.map(({ length }) => length))).toBeLessThanOrEqual(MIB);
    openGate();
    await writing;
    await writer.applied;
  });

  it.each([
    ['while the handler waits for more', false],
    ['while the handler is busy with a part', true],
  ])('notices FLUSHALL in mid-batch, %s', async (_, busy) => {
    const { opened, open: openGate } = gate();
    let begun = false;
    let seen: unknown;
    const queue = await open('flushed');
    queue.consume(async (batch) => {
      try {
        for await (const _part of batch.parts()) {
          begun = true;
          if (busy) await opened;
        }
      } catch (error) {
        seen = error;
        throw error;
      }
      return outcomeOf(batch);
    });
    const writer = await queue.open(makeHeader('flushed'));
    await writer.write(makePart('row'));
    await waitFor(() => begun, { what: 'the handler to begin' });
    await client.flushall();
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
    openGate();
    await waitFor(() => seen, { what: 'the error in the handler' });
    expect(seen).toMatchObject({ kind: 'queue_lost' });
    const next = await queue.open(makeHeader('flushed'));
    await next.end();
    await next.applied;
  });

  it.each([
    ['all of them', (list: string) => client.unlink(list)],
    ['some of them', (list: string) => client.lpop(list)],
  ])('notices that the parts are gone: %s', async (_, lose) => {
    const { opened, open: openGate } = gate();
    const queue = await open('evicted');
    queue.consume(async (batch) => {
      await opened;
      return reading(batch);
    });
    const header = makeHeader('evicted');
    const writer = await queue.open(header);
    await writer.write(makePart(Buffer.alloc(3 * MIB)));
    await writer.end();
    await lose(`ibex:{evicted}:${header.id}`);
    openGate();
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
  });

  it.each([
    ['the job', (id: string) => `{ibex}:jobless:jobless-${id}`],
    ['the list of jobs that wait', () => '{ibex}:jobless:wait'],
  ])('notices a loss before the job is started: %s', async (_, keyOf) => {
    const queue = await open('jobless');
    const header = makeHeader('jobless');
    const writer = await queue.open(header);
    await writer.end();
    await client.unlink(keyOf(header.id));
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
  });

  it('notices that a job was handed over, but the reply was lost', async () => {
    const { opened, open: openGate } = gate();
    const queue = await open('unheard');
    queue.consume(async (batch) => {
      await opened;
      return reading(batch);
    });
    const current = makeHeader('unheard');
    const writer = await queue.open(current);
    await writer.end();
    const key = '{ibex}:unheard';
    const job = ({ id }: BatchHeader) => `unheard-${id}`;
    const lockOf = async () => (await client.get(`${key}:${job(current)}:lock`)) ?? '';
    const lock = await waitFor(lockOf, { what: 'the first job' });
    const unheard = makeHeader('unheard');
    const next = await queue.open(unheard);
    await next.end();
    // What fetching a job does on the server.
    await client.rpoplpush(`${key}:wait`, `${key}:active`);
    await client.set(`${key}:${job(unheard)}:lock`, lock);
    await expect(next.applied).rejects.toMatchObject({ kind: 'queue_lost' });
    openGate();
    await writer.applied;
  });

  it('fails a job that is run again after its parts were taken', async () => {
    const writing = await open('stalled');
    const header = makeHeader('stalled');
    const writer = await writing.open(header);
    await writer.write(makePart('row'));
    await writer.end();
    // What a worker that died in the middle leaves.
    await client.lpop(`ibex:{stalled}:${header.id}`, 2);
    const reading2 = await open('stalled');
    reading2.consume(reading);
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue_lost' });
  });

  it('carries batches to a consumer in another process, and back what became of them', async () => {
    const writing = await open('shared');
    const consuming = await open('shared');
    const handlers: BatchHandler[] = [
      reading,
      async () => {
        throw new IbexError('gap', 'a batch is missing');
      },
      reading,
    ];
    consuming.consume((batch) => (handlers.shift() as BatchHandler)(batch));
    const good = await writing.open(makeHeader('shared'));
    for (let n = 0; n < 40; n += 1) await good.write(makePart(Buffer.alloc(MIB)));
    await good.end();
    expect(await good.applied).toMatchObject({ position: '20:20:' });
    const bad = await writing.open(makeHeader('shared'));
    await expect(bad.applied).rejects.toMatchObject({ kind: 'gap', message: 'a batch is missing' });
    const aborted = await writing.open(makeHeader('shared'));
    await aborted.write(makePart('row'));
    await aborted.abort(new IbexError('source_moved', 'the table was rewritten'));
    await expect(aborted.applied).rejects.toMatchObject({ kind: 'source_moved' });
    await waitFor(async () => (await ownKeys('shared')).length === 0, { what: 'an empty Redis' });
  });

  it('clears what an earlier process left, and nothing else', async () => {
    const others = ['ibex:{left}:0-1', 'ibex:{l}:0-1', 'ibex:{l%2At2}:0-1'];
    for (const key of ['ibex:{l%2At}:0-1', ...others]) await client.set(key, 'row');
    const first = await open('l*t');
    await first.open(makeHeader('l*t'));
    const second = await open('l*t');
    await second.clear();
    expect(await client.keys('{ibex}:l%2At:*')).toEqual([]);
    expect((await client.keys('ibex:{l*')).sort()).toEqual(others.sort());
    await client.unlink(...others);
  });

  it('takes any name of a sync', async () => {
    const sync = 'a:b*{c} d';
    const queue = await open(sync);
    await queue.clear();
    queue.consume(reading);
    const writer = await queue.open(makeHeader(sync));
    await writer.write(makePart('row'));
    await writer.end();
    await writer.applied;
  });

  it('survives a server that is killed and comes back empty', async () => {
    await using server = (await startRedis()) ?? expect.fail();
    const queue = await open('killed', server.url);
    let reads = 0;
    queue.consume(async (batch) => {
      for await (const _ of batch.parts()) reads += 1;
      return outcomeOf(batch);
    });
    const current = await queue.open(makeHeader('killed'));
    await current.write(makePart('row'));
    await waitFor(() => reads === 1, { what: 'the first part' });
    const waiting = await queue.open(makeHeader('killed'));
    await waiting.end();

    process.kill(server.pid, 'SIGKILL');
    const lost = { kind: expect.stringMatching(/^queue(_lost)?$/) };
    await expect(current.applied).rejects.toMatchObject(lost);
    await expect(waiting.applied).rejects.toMatchObject(lost);
    await expect(current.write(makePart('row'))).rejects.toMatchObject(lost);
    await expect(queue.open(makeHeader('killed'))).rejects.toMatchObject({ kind: 'queue' });

    await server.restart();
    const writer = await waitFor(() => queue.open(makeHeader('killed')), { what: 'Redis to be back' });
    await writer.write(makePart('row'));
    await writer.end();
    await writer.applied;
    expect(reads).toBe(2);
  });

  it('closes when Redis is gone', async () => {
    await using server = (await startRedis()) ?? expect.fail();
    const queue = await open('gone', server.url);
    queue.consume(reading);
    const writer = await queue.open(makeHeader('gone'));
    await writer.write(makePart('row'));
    await server.stop();
    await queue.close();
    await expect(writer.applied).rejects.toMatchObject({ kind: expect.stringMatching(/^queue/) });
  });

  it('gives up a server that stands still', async () => {
    await using server = (await startRedis()) ?? expect.fail();
    const queue = await open('still', server.url);
    queue.consume(reading);
    const writer = await queue.open(makeHeader('still'));
    await writer.write(makePart('row'));
    process.kill(server.pid, 'SIGSTOP');
    try {
      await expect(writer.applied).rejects.toMatchObject({ kind: 'queue' });
    } finally {
      process.kill(server.pid, 'SIGCONT');
    }
  });

  it('reports a server that is full', async () => {
    await using server = (await startRedis({ args: ['--maxmemory', '16mb'] })) ?? expect.fail();
    const queue = await open('full', server.url);
    const writer = await queue.open(makeHeader('full'));
    const writing = (async () => {
      for (let n = 0; n < 30; n += 1) await writer.write(makePart(Buffer.alloc(MIB)));
      await writer.end();
    })();
    await expect(writing).rejects.toMatchObject({ kind: 'queue', message: expect.stringContaining('OOM') });
    await expect(writer.applied).rejects.toMatchObject({ kind: 'queue' });
  });

  it('refuses a server that it cannot use, without showing the password', async () => {
    const attempt = (at: string) => createRedisQueue({ url: at, sync: 'x', log: SILENT });
    await expect(attempt('redis://user:s3cret@127.0.0.1:1/2')).rejects.toMatchObject({
      kind: 'queue',
      message: 'cannot use Redis at redis://127.0.0.1:1/2: connect ECONNREFUSED 127.0.0.1:1',
    });
    await expect(attempt('http://user:s3cret@127.0.0.1')).rejects.toMatchObject({
      kind: 'config',
      message: expect.not.stringContaining('s3cret'),
    });
    await using server = (await startRedis({ args: ['--requirepass', 'other'] })) ?? expect.fail();
    await expect(attempt(server.url.replace('//', '//:s3cret@'))).rejects.toMatchObject({
      kind: 'authentication',
      message: expect.not.stringContaining('s3cret'),
    });
  });

  it('refuses an old server', async () => {
    const info = '# Server\r\nredis_version:6.0.16\r\n';
    const server = createServer((socket) => {
      socket.on('data', (data) => {
        for (const [command] of data.toString().matchAll(/^(HELLO|CLIENT|INFO)\r$/gim)) {
          if (/info/i.test(command)) socket.write(`$${info.length}\r\n${info}\r\n`);
          else socket.write(/hello/i.test(command) ? '-ERR unknown command `HELLO`\r\n' : '+OK\r\n');
        }
      });
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    try {
      await expect(
        createRedisQueue({ url: `redis://127.0.0.1:${port}`, sync: 'x', log: SILENT }),
      ).rejects.toMatchObject({ kind: 'unsupported', message: expect.stringContaining('6.0.16') });
    } finally {
      server.close();
    }
  });

  it('warns about a server that may drop data', async () => {
    await using server = (await startRedis({ args: ['--maxmemory-policy', 'allkeys-lru'] })) ?? expect.fail();
    const lines: string[] = [];
    const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
    const queue = await createRedisQueue({ url: server.url, sync: 'x', log });
    await queue.close();
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('noeviction');
  });
});
