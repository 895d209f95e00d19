/**
 * The daemon killed again and again, the queue emptied under it, a backlog larger than its memory: the rows are
 * equal in the end and nobody had to do anything.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type RunningIbex, STOPS_WITHIN_MS, startIbex } from '../support/ibex.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { onBoth, readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

/** How often a daemon is killed: a third of the time anywhere, then once its sync runs. */
const KILLS = Number(process.env.TEST_KILLS ?? 12);

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

function start(redisUrl?: string): RunningIbex {
  const redis: Record<string, string> = redisUrl === undefined ? {} : { IBEX_REDIS_URL: redisUrl };
  return startIbex(['run', '--log-format', 'json', '--log-level', process.env.TEST_LOG_LEVEL ?? 'info'], {
    env: { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl, ...redis },
  });
}

const TABLES = 10;

async function createTables(rows: number): Promise<void> {
  const tables = Array.from(
    { length: TABLES },
    (_, i) => `create table big_${i} (id int primary key, v int not null, pad text);`,
  );
  await onBoth(
    databases,
    `${tables.join('\n')}
    create table parent (id int primary key, code text unique);
    create table child (id serial primary key, parent int references parent on delete cascade, v int);
    create table history (at timestamptz default now(), what text, amount int);`,
  );
  for (let i = 0; i < TABLES; i++) {
    await databases.source.query(
      `insert into big_${i} select g, 0, repeat('x', 100) from generate_series(1, ${rows}) g`,
    );
  }
  await databases.source.query(`insert into parent select g, 'c' || g from generate_series(1, 500) g;
    insert into child (parent, v) select 1 + g % 500, 0 from generate_series(1, 2000) g`);
}

/** Writes at random, as an application does, until it is stopped. Errors of the application fail the test. */
async function writeUntil(stop: AbortSignal, random: () => number): Promise<void> {
  const client = new pg.Client({ connectionString: databases.sourceUrl });
  await client.connect();
  const some = (below: number) => Math.floor(random() * below);
  while (!stop.aborted) {
    const statements = [
      `update big_${some(TABLES)} set v = v + 1 where id between ${some(3000)} and ${some(6000)}`,
      `insert into history (what, amount) select 'w', g from generate_series(1, ${1 + some(20)}) g`,
      `delete from history where ctid in (select ctid from history limit ${some(5)})`,
      `insert into child (parent, v) values (${1 + some(250)}, 1)`,
      `update parent set code = code || 'x' where id = ${1 + some(250)}`,
      `delete from big_${some(TABLES)} where id = ${some(6000)}`,
      `insert into big_${some(TABLES)} values (${100_000 + some(1_000_000)}, 1, 'new') on conflict (id) do update set v = -1`,
      `update big_${some(TABLES)} set id = -id where id = ${some(6000)}`,
    ];
    try {
      await client.query('begin');
      for (let i = 0; i <= some(4); i++) await client.query(statements[some(statements.length)] as string);
      await client.query(random() < 0.1 ? 'rollback' : 'commit');
    } catch (error) {
      // Two writers may well deadlock with each other, as they would without us.
      if ((error as pg.DatabaseError).code !== '40P01') throw error;
      await client.query('rollback');
    }
    await sleep(some(10));
  }
  await client.end();
}

/** Rows copied of each table whose copy is finished. */
async function finishedCopies(): Promise<Map<string, string>> {
  const { rows } = await databases.target
    .query(`select table_name, copied from ibex.target_table where state in ('joining', 'streaming')`)
    .catch(() => ({ rows: [] }));
  return new Map(rows.map((row) => [row.table_name, row.copied]));
}

async function expectEverythingEqual(): Promise<void> {
  await waitUntilCaughtUp(databases, 120_000).catch((error) => {
    throw new Error(`${error.message}\n${daemon?.stderr.split('\n').slice(-15).join('\n')}`);
  });
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
  for (const table of (await readSyncStatus(databases)).tables) {
    expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
  }
}

test('kill -9, again and again over setup, backfill and streaming, each followed at once by a new start', async () => {
  const seed = seedOf('crash');
  const random = randomFrom(seed);
  await using redis = await redisForTests();
  await createTables(6_000);
  const stop = new AbortController();
  const writers = [
    writeUntil(stop.signal, randomFrom(seed + 1)),
    writeUntil(stop.signal, randomFrom(seed + 2)),
  ];
  const finished = new Map<string, string>();
  for (let kill = 0; kill < KILLS; kill++) {
    daemon = start(random() < 0.5 ? redis?.url : undefined);
    // The first kills fall anywhere, setup included; the later ones, however slow the machine, into the backfill,
    // reading, applying and acknowledging.
    if (kill >= KILLS / 3) await daemon.waitForLog(/^sync main runs/);
    await sleep(kill < KILLS / 3 ? 350 + random() * 900 : random() * 1200);
    // So that some copies are over by the last kills, also where none is within a second.
    if (kill === Math.floor((KILLS * 2) / 3)) {
      await waitFor(async () => (await finishedCopies()).size > 0, {
        what: 'a finished copy',
      });
    }
    await daemon.kill9();
    for (const [table, copied] of await finishedCopies()) {
      expect(copied, `${table} was copied again`).toBe(finished.get(table) ?? copied);
      finished.set(table, copied);
    }
  }
  stop.abort();
  await Promise.all(writers);
  daemon = start(redis?.url);
  await expectEverythingEqual();
  expect(finished.size).toBeGreaterThan(0);
  const { code, tookMs } = await daemon.stop();
  expect(code).toBe(0);
  expect(tookMs).toBeLessThan(STOPS_WITHIN_MS);
}, 480_000);

test('Redis emptied in mid-stream, again and again: equal, without any command', async (context) => {
  await using redis = await redisForTests();
  if (redis === undefined) return context.skip('no redis-server on the PATH');
  const seed = seedOf('flushall');
  await createTables(2_000);
  daemon = start(redis.url);
  await waitUntilCaughtUp(databases, 120_000);
  const stop = new AbortController();
  const writers = [1, 2, 3].map((n) => writeUntil(stop.signal, randomFrom(seed + n)));
  const client = new Redis(redis.url);
  client.on('error', () => undefined);
  for (let i = 0; i < 15; i++) {
    await sleep(300);
    await client.flushall();
  }
  client.disconnect();
  await redis.restart();
  await sleep(1_000);
  stop.abort();
  await Promise.all(writers);
  await expectEverythingEqual();
  expect(daemon.running).toBe(true);
});

test('a backlog of half a million keys, 200 MB, fits into 256 MB', { timeout: 480_000 }, async () => {
  await onBoth(databases, 'create table wide (id int primary key, v int, pad text)');
  await databases.source.query(
    `insert into wide select g, 0, repeat('x', 400) from generate_series(1, 500000) g`,
  );
  daemon = start();
  await waitUntilCaughtUp(databases, 200_000);
  await daemon.stop();
  await databases.source.query('update wide set v = v + 1');
  daemon = start();
  await waitUntilCaughtUp(databases, 200_000);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
  const peak =
    Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))?.[1]) / 1024;
  console.log(`peak resident memory: ${peak.toFixed(0)} MB`);
  expect(peak).toBeLessThan(256);
});

test('a table that somebody has written to and not committed holds up only its own arming, and status names it', async () => {
  await onBoth(databases, 'create table free (id int primary key); create table busy (id int primary key)');
  const writer = new pg.Client({ connectionString: databases.sourceUrl });
  await writer.connect();
  await writer.query('begin; insert into busy values (1)');
  daemon = start();
  await databases.source.query('insert into free values (1)');
  await waitFor(async () => (await databases.target.query('select from free')).rowCount === 1, {
    what: 'the free table',
  });
  await waitFor(
    async () => {
      const { tables } = await readSyncStatus(databases);
      return /waiting to arm .*busy.* pid \d+/.test(
        tables.find((table) => table.table === 'public.busy')?.reason ?? '',
      );
    },
    { what: 'status to name the busy table and its blocker' },
  );
  await writer.query('commit');
  await writer.end();
  await expectEverythingEqual();
});
