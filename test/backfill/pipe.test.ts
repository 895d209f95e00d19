/** COPY from one server into the other: whatever is sent, and wherever it ends. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Piped } from '../../src/postgres/pipe.ts';
import { Session } from '../../src/postgres/session.ts';
import { type Databases, freshDatabases, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let source: Session;
let target: Session;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  source = await Session.open({ url: databases.sourceUrl, name: 'test' });
  target = await Session.open({ url: databases.targetUrl, name: 'test' });
});

afterEach(async () => {
  await Promise.all([source.close(), target.close()]);
  await databases.dropAll();
});

const pipe = async (
  read: string,
  write: string,
  { throttle = null, signal = new AbortController().signal }: Partial<Parameters<Session['pipe']>[3]> = {},
) => {
  const [reads, writes] = [[`copy (${read}) to stdout`], [`copy ${write} from stdin`]];
  const [piped] = await source.pipe(reads, target, writes, { throttle, signal });
  return piped as Piped;
};

/** Both can be used further, and are in no transaction. */
async function expectAtRest(): Promise<void> {
  for (const session of [source, target]) {
    expect(await session.row('select 1 as one')).toEqual({ one: 1 });
    expect(await session.row(`select txid_current_if_assigned() is null as none`)).toEqual({
      none: true,
    });
  }
}

test('rows of no bytes, of one and of megabytes go through whole, and are counted', async () => {
  await onBoth(databases, 'create table t (id int, v text)');
  await databases.source.query(`
    insert into t select i, repeat(chr(65 + i % 26), case when i % 100 = 0 then 3000000 else i % 7 end)
      from generate_series(1, 500) i; create table nothing ()`);
  const { rows, bytes } = await pipe('select * from public.t', 'public.t');
  expect(rows).toBe(500);
  const text = `select sum(length(id::text) + length(v) + 2)::int as bytes, md5(string_agg(v, '' order by id)) as sum from t`;
  const [there, here] = await Promise.all([databases.source.query(text), databases.target.query(text)]);
  expect(here.rows).toEqual(there.rows);
  expect(bytes).toBe(there.rows[0].bytes);
  expect(await pipe('select * from public.t where false', 'public.t')).toEqual({ rows: 0, bytes: 0 });
  await expectAtRest();
});

test('rows that wait for a slow receiver arrive as they were sent', async () => {
  await onBoth(databases, 'create table t (id int, v text)');
  await databases.target.query(`create function slow() returns trigger language plpgsql as $$
    begin perform pg_sleep(0.005); return new; end $$;
    create trigger slow before insert on t for each row execute function slow()`);
  await databases.source.query(`insert into t
    select i, string_agg(md5(i || ' ' || j), '') from generate_series(1, 100) i, generate_series(1, 4000) j group by i`);
  expect((await pipe('select * from public.t', 'public.t')).rows).toBe(100);
  const text = `select count(*)::int as count, md5(string_agg(v, '' order by id)) as sum from t`;
  const [there, here] = await Promise.all([databases.source.query(text), databases.target.query(text)]);
  expect(here.rows).toEqual(there.rows);
  await expectAtRest();
});

test('notices in between are no rows', async () => {
  await onBoth(databases, 'create table t (id int)');
  await databases.source.query(`create function loud(i int) returns int language plpgsql as $$
    begin raise notice 'number %', i; return i; end $$`);
  expect((await pipe('select public.loud(i) from generate_series(1, 1000) i', 'public.t')).rows).toBe(1000);
  await expectAtRest();
});

test('what the target refuses is told as its error, however much is still to come', async () => {
  await onBoth(databases, 'create table t (id int primary key, v text)');
  const many = `select i % 90000, repeat('x', 100) from generate_series(1, 200000) i`;
  await expect(pipe(many, 'public.t')).rejects.toMatchObject({
    kind: 'constraint',
    message: expect.stringContaining('t_pkey'),
  });
  await expect(pipe(many, 'public.missing')).rejects.toMatchObject({ kind: 'schema_mismatch' });
  await expectAtRest();
  expect((await pipe('select 1, null', 'public.t')).rows).toBe(1);
});

test('what fails on the source leaves nothing on the target', async () => {
  await onBoth(databases, 'create table t (v float8)');
  await expect(
    pipe('select 1.0 / (50000 - i) from generate_series(1, 100000) i', 'public.t'),
  ).rejects.toMatchObject({
    message: expect.stringContaining('division by zero'),
  });
  await expect(pipe('select * from public.missing', 'public.t')).rejects.toMatchObject({
    kind: 'schema_mismatch',
  });
  await expectAtRest();
  expect((await databases.target.query('select from t')).rowCount).toBe(0);
});

test('a source that goes away in the middle of its rows is told, and nothing is left', async () => {
  await onBoth(databases, 'create table t (v text)');
  const dying = `select case when i = 3 and pg_terminate_backend(pg_backend_pid()) then null else repeat('x', 9000000) end from generate_series(1, 3) i`;
  await expect(pipe(dying, 'public.t')).rejects.toMatchObject({ kind: 'connection' });
  expect((await databases.target.query('select from t')).rowCount).toBe(0);
});

test('a stop closes both sides at once, and a rate holds back what is sent', async () => {
  await onBoth(databases, 'create table t (v text)');
  const stop = new AbortController();
  let sent = 0;
  const throttle = (bytes: number) => {
    sent += bytes;
    if (sent > 1_000_000) stop.abort(new Error('enough'));
    return sent > 1_000_000 ? 60_000 : 1;
  };
  const endless = `select repeat('x', 10000) from generate_series(1, 1000000)`;
  await expect(pipe(endless, 'public.t', { throttle, signal: stop.signal })).rejects.toThrow('enough');
  expect([source.broken, target.broken].every((broken) => broken !== null)).toBe(true);
  expect((await databases.target.query('select from t')).rowCount).toBe(0);
});
