/** Tables that are taken into a sync, out of it, and copied again by the command, while its daemon runs. */
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

/** A daemon, and another one for the same sync with one table more. It waits for half a minute, during the other tests. */
let refused: {
  readonly databases: Databases;
  readonly holder: RunningIbex;
  readonly code: Promise<number | null>;
};

beforeAll(async () => {
  const databases = await freshDatabases(servers);
  await onBoth(databases, 'create table t (id int primary key); create table other (id int primary key)');
  const env = { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl };
  const holder = startIbex(['run', '--tables', 'public.t'], { env });
  await holder.waitForLog(/sync main runs/);
  const second = startIbex(['run', '--tables', 'public.t,public.other'], { env });
  await second.waitForLog(/waiting for .* to let go/);
  refused = { databases, holder, code: second.exited };
});

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

const env = () => ({ IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl });

async function call(code: number, ...args: string[]) {
  const result = await ibex(args, { env: env() });
  expect(result.code, `${args.join(' ')}: ${result.stdout}${result.stderr}`).toBe(code);
  return result;
}

async function json(code: number, ...args: string[]) {
  return JSON.parse((await call(code, ...args, '--json')).stdout);
}

async function start(...args: string[]): Promise<void> {
  daemon = startIbex(['run', ...args], { env: env() });
  await daemon.waitForLog(/sync main runs/);
}

const equal = (...tables: string[]) =>
  waitFor(async () => (await compareTables(databases.source, databases.target, tables)).length === 0, {
    what: `${tables} to be equal`,
  });

/** How often the daemon's lane has begun. */
const lives = () => (daemon as RunningIbex).logs.filter(({ msg }) => /sync main runs/.test(msg)).length;

async function armedTables({ source } = databases): Promise<string[]> {
  const { rows } = await source.query(
    `select distinct tgrelid::regclass::text as t from pg_trigger where tgname ~ '^ibex_' order by 1`,
  );
  return rows.map(({ t }) => t);
}

test('a table is added to a running sync, taken out and added again, while the others stream', async () => {
  await onBoth(
    databases,
    'create table old (id int primary key, v int); create table scratch (id int primary key)',
  );
  await start('--tables', 'public.old');
  await call(0, 'wait');
  await onBoth(databases, 'create table fresh (id int primary key, v text, n int)');
  await databases.target.query(`create function spoil() returns trigger language plpgsql as $$ begin new.v := 'spoilt'; return new; end $$;
    create trigger spoil before insert or update on fresh for each row execute function spoil()`);
  await databases.source.query(`insert into fresh select i, 'v' || i, i from generate_series(1, 3000) i`);
  expect(await json(0, 'tables', 'add', 'public.fresh')).toEqual({
    sync: 'main',
    added: ['public.fresh'],
    already: [],
  });
  await databases.source.query(
    `update fresh set v = 'early' where id % 10 = 0; insert into old values (1, 1)`,
  );
  await call(0, 'wait');
  await databases.source.query(`delete from fresh where id % 7 = 0; insert into old values (2, 2)`);
  await call(0, 'wait');
  expect(await compareTables(databases.source, databases.target, ['public.old', 'public.fresh'])).toEqual([]);
  expect(lives()).toBe(1);
  const { stdout } = await call(0, 'tables', 'add', 'public.*');
  expect(stdout).toMatch(/public\.scratch: added/);
  expect(stdout).toMatch(/public\.fresh: part of the sync already/);
  await equal('public.scratch');

  const removed = await json(0, 'tables', 'remove', 'public.fresh', 'public.scratch');
  expect(removed.removed).toEqual(['public.fresh', 'public.scratch']);
  expect(await armedTables()).toEqual(['old']);
  await databases.source.query(
    `update fresh set v = 'unseen'; delete from fresh where id < 100; insert into old values (3, 3)`,
  );
  await call(0, 'wait');
  await equal('public.old');
  const { rows } = await databases.target.query(`select count(*)::int as n from fresh where v = 'unseen'`);
  expect(rows[0].n).toBe(0);
  await databases.target.query(`insert into fresh values (-1, 'left behind', 1)`);
  await call(0, 'tables', 'add', 'public.fresh');
  await call(0, 'wait');
  await equal('public.fresh', 'public.old');
  await databases.source.query(`update fresh set v = 'seen again' where id % 3 = 0`);
  await call(0, 'wait');
  await equal('public.fresh');
  await waitFor(async () => (await ibex(['status'], { env: env() })).code === 0, {
    what: 'status to be READY',
  });
});

test('what was taken out stays out of the next start, what was added stays in', async () => {
  await onBoth(
    databases,
    'create table a (id int primary key); create table b (id int primary key); create table c (id int primary key)',
  );
  await start('--tables', 'public.a,public.b');
  await call(0, 'wait');
  await call(0, 'tables', 'remove', 'public.b');
  await (daemon as RunningIbex).stop();
  await call(0, 'tables', 'add', 'public.c');
  await databases.source.query(
    'insert into a values (1); insert into b values (1); insert into c values (1)',
  );
  await start('--tables', 'public.a,public.b');
  await call(0, 'wait');
  await equal('public.a', 'public.c');
  const [status] = await json(0, 'status');
  expect(status.tables.map(({ table }: { table: string }) => table)).toEqual(['public.a', 'public.c']);
  expect((await databases.target.query('select from b')).rowCount).toBe(0);
  expect(await armedTables()).toEqual(['a', 'c']);
});

test('a table is copied again on request, through the daemon', async () => {
  await onBoth(databases, 'create table t (id int primary key, v int); create table u (id int primary key)');
  await databases.source.query('insert into t select i, i from generate_series(1, 500) i');
  await start();
  await call(0, 'wait');
  await databases.target.query(
    'update t set v = -1 where id < 10; delete from t where id = 20; insert into t values (9999, 1)',
  );
  expect(await json(0, 'tables', 'recopy', 'public.t')).toEqual({ sync: 'main', tables: ['public.t'] });
  await databases.source.query('update t set v = v + 1 where id % 5 = 0; insert into u values (1)');
  await equal('public.t', 'public.u');
  await call(0, 'wait');
  expect(lives()).toBe(1);
});

test('what cannot be done is said, and nothing changes', async () => {
  await onBoth(databases, 'create table t (id int primary key)');
  await databases.source.query('create table only_here (id int primary key, "Odd" numeric(5,2))');
  const nothing = await call(3, 'tables', 'add', 'public.t');
  expect(nothing.said[0]).toMatch(/sync main is not set up/);
  await start('--tables', 'public.t');
  await call(0, 'wait');
  expect((await call(2, 'tables', 'add', 'public.nope')).said[0]).toMatch(/no table matches public\.nope/);
  expect((await call(2, 'tables', 'add')).said[0]).toMatch(/missing required argument/);
  expect((await call(2, 'tables', 'remove', 'public.only_here')).said[0]).toMatch(
    /has no table that matches/,
  );
  expect((await call(2, 'tables', 'remove', 'public.t')).said.join(' ')).toMatch(
    /no table left.*ibex teardown/,
  );
  expect((await call(2, 'tables', 'recopy', 'public.nope')).said[0]).toMatch(/has no table that matches/);
  expect((await call(3, 'tables', 'add', 'public.only_here')).said.join(' ')).toMatch(
    /public\.only_here does not exist on the target.*create table public\.only_here \(id integer not null, "Odd" numeric\(5,2\), PRIMARY KEY \(id\)\);/,
  );
  expect(await armedTables()).toEqual(['t']);
  const { rows } = await databases.source.query('select count(*)::int as n from ibex.captured');
  expect(rows[0].n).toBe(1);
});

test('a daemon that is refused has registered nothing', async () => {
  const { databases, holder, code } = refused;
  expect(await code).toBe(3);
  expect(await armedTables(databases)).toEqual(['t']);
  const { rows } = await databases.target.query('select table_name from ibex.target_table');
  expect(rows).toEqual([{ table_name: 't' }]);
  expect(holder.running).toBe(true);
  await holder.kill9();
  await databases.dropAll();
});
