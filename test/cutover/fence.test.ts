/** The fence: who meets it, who passes, whom it has to wait for, and how it goes down again. */
import pg from 'pg';
import { afterEach, describe, expect, test } from 'vitest';
import { prepareCaptures } from '../../src/capture/trigger/arming.ts';
import {
  liftFence,
  raiseFence,
  readFence,
  readWriters,
  tryPlaceFence,
  tryPullFence,
} from '../../src/capture/trigger/fence.ts';
import { registerSync } from '../../src/capture/trigger/registry.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { Session } from '../../src/postgres/session.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers({ max_prepared_transactions: '5' });
const pair = usePair(servers);

const SCHEMA = `
  create schema shop;
  create table public.t (id int primary key, v text);
  create table shop.child (id int primary key, t int references public.t on delete cascade);
  create table p (id int, k int, primary key (id, k)) partition by list (k);
  create table p_1 partition of p for values in (1);
  create view v as select * from t`;

const clients: pg.Client[] = [];
const sessions: Session[] = [];

afterEach(async () => {
  for (const session of sessions.splice(0)) session.abandon();
  for (const client of clients.splice(0)) await client.end();
});

/** A session of the application, as the owner of the tables unless a role is named. */
async function application(role?: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: pair.databases.sourceUrl });
  client.on('error', () => undefined);
  await client.connect();
  clients.push(client);
  if (role !== undefined) await client.query(`set role ${role}`);
  return client;
}

/** Captured tables, with the fence on each of them, down. */
async function fenced(): Promise<Session> {
  await pair.source.query(SCHEMA);
  await pair.source.query(`insert into t values (1, 'a'), (2, 'b'); insert into shop.child values (1, 1)`);
  const session = await Session.open({ url: pair.databases.sourceUrl, name: 'ibex:main:cutover' });
  sessions.push(session);
  await migrate(session, 'source');
  await registerSync(session, 'main', 0);
  const { rows } = await pair.source.query<{ oid: number }>(
    `select oid from pg_class where relname in ('t', 'child', 'p')`,
  );
  const relids = rows.map(({ oid }) => oid);
  await prepareCaptures(session, 'main', relids);
  expect(await tryPlaceFence(session, 'main', 100)).toEqual([]);
  expect(await readFence(session, 'main')).toMatchObject({ up: false, unfenced: [] });
  return session;
}

const raise = (session: Session) => raiseFence(session, 'main', ['source', 'target']);
const REFUSED = { code: '25006' };

describe('a fence that is up', () => {
  test('is met by every kind of statement, on tables, partitions, through views and cascades', async () => {
    const session = await fenced();
    const app = await application();
    await app.query(
      'insert into t values (3); update t set v = $$c$$ where id = 3; delete from t where id = 3',
    );
    await raise(session);
    for (const statement of [
      'insert into t values (9)',
      'update t set v = null',
      'delete from t where false',
      'truncate t cascade',
      'insert into t values (1) on conflict do nothing',
      'with w as (insert into t values (9) returning id) select * from w',
      'insert into v values (9)',
      'insert into p values (1, 1)',
      'insert into p_1 values (1, 1)',
      'truncate p',
      'insert into shop.child values (9)',
    ]) {
      await expect(app.query(statement), statement).rejects.toMatchObject(REFUSED);
    }
    await expect(pair.databases.sourceAdmin.query(`copy t from '/dev/null'`)).rejects.toMatchObject(REFUSED);
    expect((await app.query('select count(*)::int as n from t')).rows).toEqual([{ n: 2 }]);
  });

  test('is met by other roles, by replicas, and whatever the search_path', async () => {
    const session = await fenced();
    const admin = pair.databases.sourceAdmin;
    await admin.query('grant all on t to pg_monitor');
    await raise(session);
    await expect(admin.query('insert into t values (9)')).rejects.toMatchObject(REFUSED);
    await admin.query('set search_path = shop; set role pg_monitor');
    await expect(admin.query('insert into public.t values (9)')).rejects.toMatchObject(REFUSED);
    await admin.query('reset role; set session_replication_role = replica');
    await expect(admin.query('insert into public.t values (9)')).rejects.toMatchObject(REFUSED);
    await admin.query('reset all');
  });

  test('lets the changes through that the sync carries, and nobody else who names a node', async () => {
    const session = await fenced();
    await raise(session);
    const app = await application();
    await app.query(`set ibex.origin = 'target'`);
    await app.query('insert into t values (9)');
    await app.query(`set ibex.origin = 'another'`);
    await expect(app.query('insert into t values (10)')).rejects.toMatchObject(REFUSED);
  });

  test('is met by prepared statements and plans that were made before', async () => {
    const session = await fenced();
    const app = await application();
    const insert = (id: number) =>
      app.query({ name: 'insert', text: 'insert into t values ($1)', values: [id] });
    for (let id = 100; id < 110; id++) await insert(id);
    await app.query(
      `create function add(i int) returns void language plpgsql as 'begin insert into t values (i); end'`,
    );
    await app.query('select add(200)');
    await raise(session);
    await expect(insert(110)).rejects.toMatchObject(REFUSED);
    await expect(app.query('select add(201)')).rejects.toMatchObject(REFUSED);
    expect(await readWriters(session, 'main')).toEqual([]);
  });

  test('is met in the middle of a transaction that had not locked the table', async () => {
    const session = await fenced();
    const app = await application();
    await app.query('begin isolation level serializable; select * from t');
    await raise(session);
    expect(await readWriters(session, 'main')).toEqual([]);
    await expect(app.query('insert into t values (9)')).rejects.toMatchObject(REFUSED);
    await app.query('rollback');
  });

  test('is lifted by the one statement that was shown, by hand', async () => {
    const session = await fenced();
    const before = await readFence(session, 'main');
    await raise(session);
    const up = await readFence(session, 'main');
    expect(up).toMatchObject({ up: true, lifts: before.lifts });
    const app = await application();
    await app.query(up.lifts as string);
    await app.query('insert into t values (9)');
    const down = await readFence(session, 'main');
    expect(down.up).toBe(false);
    expect(new Set([before.mark, up.mark, down.mark]).size).toBe(3);
  });
});

describe('a fence that goes up', () => {
  test('waits for nobody, and whoever had a lock before is known until the end of the transaction', async () => {
    const session = await fenced();
    const app = await application();
    await app.query(`begin; insert into shop.child values (2, 2)`);
    await raise(session);
    const writers = await readWriters(session, 'main');
    expect(writers).toHaveLength(1);
    expect(writers[0]?.who).toMatch(/^pid \d+ \(.*idle in transaction/);
    await app.query('commit');
    expect(await readWriters(session, 'main')).toEqual([]);
  });

  test('knows prepared transactions, by their names', async () => {
    const session = await fenced();
    const app = await application();
    await app.query(`begin; insert into p_1 values (7, 1); prepare transaction 'left'`);
    await raise(session);
    const [writer] = await readWriters(session, 'main');
    expect(writer).toMatchObject({ pid: null });
    expect(writer?.who).toMatch(/^prepared transaction 'left' of /);
    await app.query(`commit prepared 'left'`);
    expect(await readWriters(session, 'main')).toEqual([]);
  });

  test('knows a truncate and a statement that are under way', async () => {
    const session = await fenced();
    const app = await application();
    await app.query('begin; truncate p');
    const slow = await application();
    await app.query('select pg_advisory_lock(7)');
    const writing = slow.query('insert into t select 50 from (select pg_advisory_xact_lock_shared(7)) waits');
    await waitFor(isHeldUp, { what: 'the statement to be under way' });
    await raise(session);
    expect(await readWriters(session, 'main')).toHaveLength(2);
    await app.query('rollback; select pg_advisory_unlock(7)');
    await writing;
    expect(await readWriters(session, 'main')).toEqual([]);
  });

  test('tells a partition that came after it was placed', async () => {
    const session = await fenced();
    await pair.source.query('create table p_2 partition of p for values in (2)');
    expect((await readFence(session, 'main')).unfenced).toEqual(['public.p_2']);
    await pair.source.query('alter table t disable trigger user');
    expect(new Set((await readFence(session, 'main')).unfenced)).toEqual(new Set(['public.p_2', 'public.t']));
    expect(await tryPlaceFence(session, 'main', 100)).toEqual([]);
    expect((await readFence(session, 'main')).unfenced).toEqual([]);
  });
});

test('a fence is placed past a table that others have locked, and taken off without a trace', async () => {
  const session = await fenced();
  const app = await application();
  await liftFence(session, 'main');
  expect(await tryPullFence(session, 'main', 50)).toEqual([]);
  expect((await readFence(session, 'main')).unfenced).toEqual([]);
  await session.run('delete from ibex.source_table');
  await app.query('begin; insert into t values (9)');
  expect((await tryPullFence(session, 'main', 50)).map(({ relation }) => relation)).toEqual(['public.t']);
  await app.query('insert into shop.child values (9)');
  await app.query('commit');
  expect(await tryPullFence(session, 'main', 50)).toEqual([]);
  const { rows } = await pair.source.query(
    `select tgname from pg_trigger where tgname like 'ibex_fence%' union all select proname from pg_proc where proname ~ '^fence_[0-9]'`,
  );
  expect(rows).toEqual([]);
});

async function isHeldUp(): Promise<boolean> {
  const { rows } = await pair.source.query(
    `select from pg_locks where locktype = 'advisory' and not granted`,
  );
  return rows.length > 0;
}
