/**
 * How trigger capture loses rows or breaks the application when it is built naively: one test a trap, each red
 * without the rule that prevents it.
 */
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let sync: RunningSync;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await sync.stop();
  await databases.dropAll();
});

/** Sets both sides up, fills the source, and returns once the target is in step. */
async function inStep(schema: string, rows = ''): Promise<pg.Client> {
  await onBoth(databases, schema);
  if (rows !== '') await databases.source.query(rows);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  return databases.source;
}

async function connect(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databases.sourceUrl });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

/** Waits until the rows are equal, however often tables are copied again meanwhile. */
async function becomesEqual(tables?: string[]): Promise<void> {
  await waitFor(async () => (await compareTables(databases.source, databases.target, tables)).length === 0, {
    what: 'both sides to be equal',
  }).catch(async (error) => {
    const differences = await compareTables(databases.source, databases.target, tables);
    const { why } = await sync.status();
    throw new Error([error.message, ...differences, ...why].join('\n'));
  });
}

test('a row that moves to another partition leaves its old key behind nowhere', async () => {
  const source = await inStep(
    `create table pt (id int, k int, v text, primary key (id, k)) partition by hash (k);
     create table pt_0 partition of pt for values with (modulus 3, remainder 0);
     create table pt_1 partition of pt for values with (modulus 3, remainder 1);
     create table pt_2 partition of pt for values with (modulus 3, remainder 2)`,
    `insert into pt select i, i, 'v' from generate_series(1, 200) i`,
  );
  await source.query('update pt set k = k + 1000 where id % 2 = 0');
  await source.query('update pt set id = -id');
  await expectEqual(databases, sync);
  await source.query(
    'merge into pt using generate_series(1, 50) s(i) on -s.i = pt.id when matched then update set k = pt.k + 7',
  );
  await expectEqual(databases, sync);
});

test('direct writes to a partition, and its TRUNCATE, are carried and leave the other partitions alone', async () => {
  const source = await inStep(
    `create table pt (id int primary key, v text) partition by range (id);
     create table pt_a partition of pt for values from (0) to (100);
     create table pt_b partition of pt for values from (100) to (200)`,
    `insert into pt select i, 'v' from generate_series(1, 199) i`,
  );
  await source.query(
    `insert into pt_b values (100, 'leaf') on conflict (id) do update set v = 'leaf'; delete from pt_a where id < 10`,
  );
  await source.query('truncate pt_b');
  await expectEqual(databases, sync);
  expect((await databases.target.query('select from pt')).rowCount).toBe(90);
});

test('partitions that are attached, created and detached are noticed', async () => {
  const source = await inStep(
    `create table pt (id int primary key, v text) partition by range (id);
     create table pt_a partition of pt for values from (0) to (100);
     create table pt_b partition of pt for values from (100) to (200)`,
    `insert into pt select i, 'v' from generate_series(1, 199) i`,
  );
  await databases.target.query('create table pt_c partition of pt for values from (200) to (300)');
  await source.query(
    `create table pt_c (id int primary key, v text); insert into pt_c select i, 'new' from generate_series(200, 250) i;
     alter table pt attach partition pt_c for values from (200) to (300)`,
  );
  await becomesEqual(['public.pt']);
  await source.query(`insert into pt_c values (299, 'direct')`);
  await source.query('alter table pt detach partition pt_b');
  await databases.target.query('delete from pt where false');
  await becomesEqual(['public.pt']);
});

test('a table that is rewritten while it is read is not taken for empty', async () => {
  const source = await inStep(
    'create table mv (id int primary key, v text)',
    `insert into mv select i, 'v' || i from generate_series(1, 20000) i`,
  );
  const app = await connect();
  for (let round = 0; round < 15; round++) {
    const writing = source.query('update mv set v = v || $1 where id % 5 = 0', [String(round)]);
    await app.query(
      round % 2 === 0
        ? `alter table mv alter v type varchar(${500 + round}) using v::text`
        : 'begin; create temp table kept on commit drop as select * from mv; truncate mv; insert into mv select * from kept; commit',
    );
    await writing;
    const { rows } = await databases.target.query(LOOK_AT_MV);
    expect(rows[0].n === 0 || rows[0].n === 20000 || rows[0].state !== 'streaming').toBe(true);
  }
  await app.end();
  await becomesEqual();
  await expectEqual(databases, sync);
});

/** Its rows and its state in one look. */
const LOOK_AT_MV = `
  select (select count(*)::int from mv) as n,
         (select state from ibex.target_table where table_name = 'mv') as state`;

test('an application that truncates all the time does not hold up the others', async () => {
  const source = await inStep(
    'create table scratch (id int); create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 2000) i',
  );
  const app = await connect();
  let stop = false;
  const truncating = (async () => {
    while (!stop) await app.query('truncate scratch; insert into scratch select generate_series(1, 50)');
  })();
  for (let i = 0; i < 10; i++) await source.query('update t set v = v + 1');
  await sync.caughtUp();
  stop = true;
  await truncating;
  await app.end();
  await expectEqual(databases, sync);
});

test('triggers that somebody disabled for a while make the table be copied again', async () => {
  const source = await inStep(
    'create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 100) i',
  );
  await source.query(`begin; alter table t disable trigger user; update t set v = -v; delete from t where id = 7;
    alter table t enable trigger user; commit`);
  await becomesEqual();
  await source.query('update t set v = v * 2');
  await expectEqual(databases, sync);
});

test('session_replication_role and ibex.origin of the application hide nothing', async () => {
  const source = await inStep('create table t (id int primary key, v int)');
  await source.query(`select set_config('ibex.origin', 'anything', false); insert into t values (1, 1)`);
  await source.query(
    `begin; select set_config('ibex.origin', 'anything', true); insert into t values (2, 2); commit; insert into t values (3, 3)`,
  );
  await databases.sourceAdmin.query(
    `set session_replication_role = replica; insert into public.t values (4, 4)`,
  );
  // Longer than any name of ours.
  await source.query(
    `select set_config('ibex.origin', repeat('x', 100), false); insert into t values (5, 5)`,
  );
  await expectEqual(databases, sync);
  expect((await databases.target.query('select from t')).rowCount).toBe(5);
});

test('a hostile search_path reaches nothing inside the triggers', async () => {
  const source = await inStep(
    'create table t (id text primary key, v text); create table n (v text)',
    `insert into t values ('a', '1')`,
  );
  await source.query(`
    create schema evil;
    create table evil.hits (who text);
    create function evil.eq(text, text) returns boolean language plpgsql as $$ begin insert into evil.hits values (current_user); return true; end $$;
    create operator evil.= (leftarg = text, rightarg = text, procedure = evil.eq);
    create function evil.current_setting(text, boolean) returns text language sql as $$ select 'spoofed'::text $$;
    create function evil.txid_current() returns bigint language sql as $$ select 3::bigint $$;
    set search_path = evil, pg_catalog, public`);
  await source.query(
    `insert into public.t values ('b', '2'); update public.t set id = id || 'x'; delete from public.t where id operator(pg_catalog.=) 'bx'`,
  );
  await source.query(`insert into public.n values ('r'); update public.n set v = 's'`);
  expect((await source.query('select from evil.hits')).rowCount).toBe(0);
  await source.query('reset search_path; drop schema evil cascade');
  await expectEqual(databases, sync);
});

test('a role that could dump the database before can read all of it after', async () => {
  const { sourceAdmin } = databases;
  const reader = `reader_${process.pid}`;
  await onBoth(databases, 'create table t (id int primary key)');
  await sourceAdmin.query(`create role ${reader}; grant select on t to ${reader}`);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  await databases.source.query(`select ibex.rotate('t'::regclass)`);
  const { rows } = await sourceAdmin.query(
    `select c.relname from pg_class c where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r'
        and not (has_schema_privilege($1, 'ibex', 'usage') and has_table_privilege($1, c.oid, 'select'))`,
    [reader],
  );
  expect(rows).toEqual([]);
  const { rows: writable } = await sourceAdmin.query(
    `select c.relname from pg_class c where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r'
        and has_table_privilege($1, c.oid, 'insert, update, delete, truncate')`,
    [reader],
  );
  expect(writable).toEqual([]);
  await sourceAdmin.query(`drop owned by ${reader}; drop role ${reader}`);
});

test('row level security ends in an error that names the table, never in rows taken for gone', async () => {
  const source = await inStep(
    'create table t (id int primary key, v int); create table u (id int primary key)',
    'insert into t select i, i from generate_series(1, 10) i',
  );
  await source.query(
    'alter table t enable row level security; alter table t force row level security; create policy none on t using (false) with check (true)',
  );
  await source.query('insert into t values (11, 11); insert into u values (1)');
  await waitFor(
    async () =>
      (await sync.status()).tables.some((table) => table.table === 'public.t' && table.reason !== null),
    {
      what: 'the table to be held',
    },
  );
  expect((await databases.target.query('select from t')).rowCount).toBe(10);
  await becomesEqual(['public.u']);
  await source.query('alter table t disable row level security; alter table t no force row level security');
  await becomesEqual();
});

test('keys that are equal and not the same (1.0 and 1.00, -0 and 0) are carried to the byte', async () => {
  const source = await inStep(
    `create table d (id numeric primary key, f float8, n numeric, j json, p point)`,
    `insert into d values (1.0, 0, 1.0, '{"a":1}', '(1,2)'), (2, 1, 2, '{}', null)`,
  );
  await source.query(`update d set id = 1.00, f = '-0', n = 1.000, j = '{"a": 1}' where id = 1`);
  await expectEqual(databases, sync);
});

test('rotation under load loses nothing and keeps the delta tables small', async () => {
  const source = await inStep(
    'create table t (id int primary key, v int, pad text)',
    `insert into t select i, 0, repeat('x', 20) from generate_series(1, 20000) i`,
  );
  const writers = await Promise.all(Array.from({ length: 6 }, connect));
  const generations = async () => {
    const { rows } = await databases.sourceAdmin.query(
      `select count(*)::int as n from ibex.generation where relid = 't'::regclass`,
    );
    return rows[0].n as number;
  };
  let rotated = false;
  const rotation = waitFor(async () => (await generations()) > 1, { what: 'a second generation' });
  void rotation
    .catch(() => undefined)
    .finally(() => {
      rotated = true;
    });
  await Promise.all(
    writers.map(async (client, writer) => {
      for (let i = 0; !rotated || i < 200; i++) {
        await client.query('update t set v = v + 1 where id between $1 and $1 + 300', [
          1 + writer * 3000 + ((i * 301) % 2600),
        ]);
        if (i % 20 === 0) await client.query('begin');
        if (i % 20 === 10) await client.query('commit');
      }
      await client.query('commit');
      await client.end();
    }),
  );
  await rotation;
  await expectEqual(databases, sync);
  await waitFor(
    async () => (await source.query('select from ibex.captured where forgotten is not null')).rowCount === 1,
    { what: 'a delta table to be emptied' },
  );
});

test('DDL on key columns: renamed and widened keys go on, a replaced key is copied again', async () => {
  const source = await inStep(
    'create table t (id int primary key, other int, v text)',
    `insert into t select i, i, 'v' from generate_series(1, 50) i`,
  );
  await onBoth(databases, 'alter table t rename column id to key');
  await waitFor(
    async () => (await source.query(`insert into t values (1000, 1000, 'after rename')`)).rowCount === 1,
    {
      what: 'the triggers to follow the new name',
    },
  );
  await becomesEqual();
  await databases.target.query('alter table t alter key type bigint');
  await source.query('alter table t alter key type bigint');
  await source.query(`insert into t values (5000000000, 1, 'wide')`);
  await becomesEqual();
  await onBoth(
    databases,
    'alter table t drop constraint t_pkey; update t set other = -1 where key = 5000000000; alter table t add primary key (other)',
  );
  await source.query(`update t set other = other + 100000 where other > 10`);
  await becomesEqual();
});
