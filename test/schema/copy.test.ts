/** A schema that is copied is the same on both sides, object by object, and what is there already stays. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { fingerprint, RICH } from './rich.ts';
import { schemaCommand } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);
/** Without a pg_dump on the PATH. */
const schema = schemaCommand(pair, { PATH: '/nowhere' });

const names = (objects: { kind: string; name: string }[]) =>
  objects.map(({ kind, name }) => `${kind} ${name}`);

test('everything is copied, and then there is no difference', async () => {
  await pair.source.query(RICH);
  const copied = await schema('copy');
  expect(copied.failed).toEqual([]);
  expect(copied).toMatchObject({ code: 0, way: 'catalogs', because: 'there is no pg_dump on the PATH' });
  expect(await fingerprint(pair.target)).toEqual(await fingerprint(pair.source));
  expect(await schema('diff')).toMatchObject({ code: 0, missing: [], different: [], extra: [] });
  expect((await schema('copy')).created).toEqual([]);
});

test('what the server notes for itself beside the options of a column is not copied', async () => {
  const { source, target, databases } = pair;
  await source.query(`create table noted (id int primary key, v int, w int);
    alter table noted alter v set (n_distinct = 5)`);
  await databases.sourceAdmin.query(
    `update pg_attribute set attoptions = array_prepend('pg_attver=26504112', attoptions)
      where attrelid = 'noted'::regclass and attnum > 0`,
  );
  expect(await schema('copy')).toMatchObject({ code: 0, failed: [] });
  const { rows } = await target.query(
    `select attname, attoptions from pg_attribute where attrelid = 'noted'::regclass and attoptions is not null`,
  );
  expect(rows).toEqual([{ attname: 'v', attoptions: ['n_distinct=5'] }]);
  expect(await schema('diff')).toMatchObject({ code: 0, missing: [], different: [], extra: [] });
});

test('what cannot be created is listed with its statement, and the rest goes on', async () => {
  const { source, target, databases } = pair;
  await databases.sourceAdmin.query('create role only_here; grant only_here to current_user');
  await databases.sourceAdmin.query('create extension if not exists dict_int; create extension pageinspect');
  await source.query(`create schema app; create table app.t (id int primary key, v text)`);
  await source.query(`create policy p on app.t to only_here using (true); create index on app.t (v);
    create operator app.=== (leftarg = int, rightarg = int, function = int4eq);
    create text search dictionary app.numbers (template = intdict_template, maxlen = 5)`);
  await target.query('create table unrelated (id int)');
  const { code, failed, created } = await schema('copy');
  expect(code).toBe(1);
  expect(names(failed).sort()).toEqual([
    'extension pageinspect',
    'operator app.===(integer,integer)',
    'policy p on app.t',
    'text search dictionary app.numbers',
  ]);
  const policy = failed.find(({ kind }: { kind: string }) => kind === 'policy');
  expect(policy.statement).toBe('create policy p on app.t as permissive for all to only_here using (true)');
  expect(policy.error).toContain('role "only_here" does not exist');
  expect(names(created)).toContain('index app.t_v_idx');
  const text = await schema.text('copy');
  expect(text.stdout).toContain('could not create policy p on app.t: ');
  expect(text.stdout).toContain('    create policy p on app.t as permissive');
  expect(text.stdout).toMatch(
    /^extension pageinspect: \S+ on the source, none, \S+ to be had on the target$/m,
  );
  await databases.sourceAdmin.query('drop policy p on app.t; drop role only_here');
});

test('in one call with the rows, and what cannot be created keeps no row from coming', async () => {
  const { source, target, databases } = pair;
  await source.query(`create table parent (id int primary key);
    create table child (id int generated always as identity primary key, parent int references parent);
    insert into parent values (1), (2); insert into child (parent) select 1 + i % 2 from generate_series(1, 10) i`);
  const backfill = async () => {
    const env = {
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: databases.targetUrl,
      PATH: '/nowhere',
    };
    const { code, stdout, stderr } = await ibex(['backfill', '--schema', '--json'], {
      env,
      timeout: 180_000,
    });
    if (stdout === '') throw new Error(stderr);
    return { ...JSON.parse(stdout), code };
  };
  const first = await backfill();
  expect(first).toMatchObject({ code: 0, schema: { way: 'catalogs', failed: [] }, copy: { copied: 12 } });
  expect(await fingerprint(target)).toEqual(await fingerprint(source));
  const rows = 'select c.id, p.id as parent from child c join parent p on p.id = c.parent order by c.id';
  expect((await target.query(rows)).rows).toEqual((await source.query(rows)).rows);
  await source.query(`create table late (id int primary key); insert into late values (1);
    create text search dictionary numbers (template = simple)`);
  const second = await backfill();
  expect(second.code).toBe(1);
  expect(names(second.schema.failed)).toEqual(['text search dictionary public.numbers']);
  expect((await target.query('select from late')).rowCount).toBe(1);
});

test('a pg_dump that fails is no obstacle, and is told no password where others can read it', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ibex-pg-dump-'));
  const script = `#!/bin/sh
    test "$1" = --version && echo 'pg_dump (PostgreSQL) 99.1' && exit
    echo "$@" > '${directory}/arguments.'$PGPORT; echo "$PGPASSWORD" > '${directory}/password.'$PGPORT
    echo 'pg_dump: error: permission denied for table secret' >&2; exit 1`;
  writeFileSync(join(directory, 'pg_dump'), script, { mode: 0o755 });
  await pair.source.query('create table t (id int primary key)');
  const copied = await schemaCommand(pair, { PATH: directory })('copy');
  expect(copied).toMatchObject({ code: 0, failed: [], way: 'catalogs' });
  expect(copied.because).toBe('pg_dump failed: pg_dump: error: permission denied for table secret');
  expect((await pair.target.query('select from t')).rowCount).toBe(0);
  const { port, password: written } = new URL(pair.databases.sourceUrl);
  const password = decodeURIComponent(written);
  expect(readFileSync(join(directory, `password.${port}`), 'utf8').trim()).toBe(password);
  expect(readFileSync(join(directory, `arguments.${port}`), 'utf8')).not.toContain(password.slice(0, 12));
  rmSync(directory, { recursive: true });
});

test('what is there stays, and the difference is shown with both statements', async () => {
  const { source, target } = pair;
  await source.query(`create table t (id int primary key, v text, w int default 1); create index by_v on t (v);
    create function f() returns int language sql as 'select 1'; create view seen as select id from t`);
  await target.query(`create table t (id bigint, v text, w int default 2); create index by_v on t (v desc);
    create function f() returns int language sql as 'select 2'; create table beyond (id int)`);
  const before = await schema('diff');
  expect(before.code).toBe(1);
  expect(names(before.missing)).toEqual(['view public.seen', 'key t_pkey on public.t']);
  expect(names(before.different)).toEqual([
    'function public.f()',
    'table public.t',
    'default public.t.w',
    'index public.by_v',
  ]);
  expect(before.different.at(-1)).toMatchObject({
    source: 'CREATE INDEX by_v ON public.t USING btree (v)',
    target: 'CREATE INDEX by_v ON public.t USING btree (v DESC)',
  });
  expect(names(before.extra)).toEqual(['table public.beyond']);
  const { code, created } = await schema('copy');
  expect([code, names(created)]).toEqual([0, ['view public.seen', 'key t_pkey on public.t']]);
  expect((await target.query('select f()')).rows).toEqual([{ f: 2 }]);
  expect(names((await schema('diff')).different)).toEqual(names(before.different));
});

test('in two sections: rows that contradict an unchecked constraint come in between', async () => {
  const { source, target } = pair;
  await source.query(`create table t (id int primary key, v int); insert into t values (1, -1), (2, 2);
    alter table t add constraint positive check (v > 0) not valid;
    create view grouped as select id, v, count(*) from t group by id;
    create materialized view stored as select count(*) as n from t;
    create materialized view of_stored as select n from stored`);
  const before = await schema('copy', '--section', 'pre-data');
  expect(names(before.created)).toEqual([
    'table public.t',
    'materialized view public.stored',
    'materialized view public.of_stored',
  ]);
  await target.query('insert into t values (1, -1), (2, 2)');
  const after = await schema('copy', '--section', 'post-data');
  expect(after.failed).toEqual([]);
  expect(names(after.created).sort()).toEqual([
    'check positive on public.t',
    'key t_pkey on public.t',
    'rows of materialized view public.of_stored',
    'rows of materialized view public.stored',
    'view public.grouped',
  ]);
  expect((await target.query('select n from of_stored')).rows).toEqual([{ n: '2' }]);
  expect((await schema('diff')).code).toBe(0);
});

test('of single tables with what they need, and of all but some', async () => {
  await pair.source.query(`${RICH}; set search_path = public`);
  const some = await schema('copy', '--tables', 'app.orders,Größe*.*');
  expect(some.failed.map(({ name }: { name: string }) => name)).toEqual(['orders_customer on app.orders']);
  const { rows } = await pair.target.query(
    `select c.oid::regclass::text as name
      from pg_class c where relkind in ('r', 'p', 'v', 'm', 'S') and oid >= 16384 order by 1`,
  );
  expect(rows.map(({ name }) => name)).toEqual([
    '"Größe 日本"."Zeit;raum"',
    'app.orders',
    'app.orders_eu',
    'app.orders_rest',
    'app.orders_us',
    'app.orders_us_1',
  ]);
  expect((await schema('diff', '--tables', 'Größe*.*')).code).toBe(0);
  const others = await schema('copy', '--exclude', 'app.booking');
  expect(others.failed).toEqual([]);
  expect(names((await schema('diff')).missing)).toEqual([
    'table app.booking',
    'key booking_during_excl on app.booking',
    'check late on app.booking',
  ]);
  expect((await schema.text('copy', '--tables', 'app.nothing')).code).toBe(2);
});

test('a partition that comes later has the indexes of its table already', async () => {
  await onBoth(
    pair.databases,
    `create table p (id int primary key, v int) partition by range (id); create index by_v on p (v);
     create table p_1 partition of p for values from (0) to (10)`,
  );
  await pair.source.query(`create table p_2 (v int, id int not null); create index mine on p_2 (v);
    alter table p_2 add constraint my_key primary key (id);
    alter table p attach partition p_2 for values from (10) to (20)`);
  expect(names((await schema('copy')).created)).toEqual(['table public.p_2', 'partition public.p_2']);
  const { rows } = await pair.target.query(
    `select count(*)::int as n from pg_index where indrelid = 'p_2'::regclass`,
  );
  expect(rows).toEqual([{ n: 2 }]);
  expect((await schema('diff')).code).toBe(0);
  // A check of the table brings those of its partitions along.
  await pair.source.query('alter table p add constraint positive check (v > 0)');
  expect(await schema('copy')).toMatchObject({ code: 0, failed: [] });
  expect((await schema('diff')).code).toBe(0);
});

test('what a sync has set aside on the target is there', async () => {
  const { source, target } = pair;
  await onBoth(
    pair.databases,
    `create table a (id int primary key); create table b (id int primary key, a int not null references a);
     create unique index by_a on b (a); alter table b replica identity using index by_a;
     alter table b cluster on b_pkey;
     comment on index by_a is 'x'; comment on constraint b_pkey on b is 'y';
     comment on constraint b_a_fkey on b is 'z';
     create function f() returns trigger language plpgsql as 'begin return new; end';
     create trigger fires before insert on a for each row execute function f()`,
  );
  await source.query('insert into a values (1)');
  pair.start();
  await pair.sync.caughtUp();
  await pair.sync.stop();
  expect(
    (await target.query(`select tgenabled from pg_trigger where tgname = 'fires'`)).rows[0].tgenabled,
  ).toBe('D');
  expect(await schema('diff')).toMatchObject({ missing: [], different: [], extra: [], code: 0 });
  await target.query(`alter table b drop constraint if exists b_a_fkey, drop constraint if exists b_pkey;
    drop index if exists by_a;
    insert into ibex.parked (sync, kind, schema_name, table_name, name, referenced, restore)
    values ('main', 'foreign_key', 'public', 'b', 'b_a_fkey', 'public.a', 'select 1'),
           ('main', 'index', 'public', 'b', 'b_pkey', null, 'select 1'),
             ('main', 'index', 'public', 'b', 'by_a', null, 'select 1')
        on conflict do nothing`);
  expect(await schema('copy')).toMatchObject({ created: [], failed: [], code: 0 });
});

test('NOT NULL has a name, and may be unchecked, from PostgreSQL 18 on', async () => {
  const { source, target } = pair;
  const { rows } = await source.query(`select current_setting('server_version_num')::int >= 180000 as new`);
  if (!rows[0].new) return;
  await source.query(`create table t (a int constraint mine not null, b int not null no inherit, c int);
    insert into t values (1, 1, null); alter table t add constraint later not null c not valid`);
  expect((await schema('copy', '--section', 'pre-data')).failed).toEqual([]);
  await target.query('insert into t values (1, 1, null)');
  expect((await schema('copy', '--section', 'post-data')).failed).toEqual([]);
  const there = `select conname, pg_get_constraintdef(oid) as text
    from pg_constraint where conrelid = 'public.t'::regclass order by 1`;
  expect((await target.query(there)).rows).toEqual((await source.query(there)).rows);
});
