/** Whoever writes on the source, and however their session is set: captured, and not disturbed by the capture. */
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const SCHEMA = `
  create table t (id int primary key, note text, n numeric);
  create table keyed (a text, b timestamptz, c uuid, v jsonb, primary key (a, b, c));
  create table keyless (what text, at date);
  create table parts (id int, k text, primary key (id, k)) partition by list (k);
  create table parts_x partition of parts for values in ('x');
  create table parts_y partition of parts default;`;

const ROWS = `
  insert into t select i, 'n', i from generate_series(1, 50) i;
  insert into keyed select i::text, now(), md5(i::text)::uuid, '{}' from generate_series(1, 20) i;
  insert into keyless select 'w', current_date from generate_series(1, 5);
  insert into parts select i, (array['x', 'y', 'z'])[1 + i % 3] from generate_series(1, 30) i;`;

/** Every operation on every table, in names that no search_path matters to. */
const WRITES = `
  insert into public.t values (1000 + (random() * 1e8)::int, 'new', 1.50);
  update public.t set note = 'changed' where id operator(pg_catalog.<) 10;
  update public.t set id = id operator(pg_catalog.+) 100000 where id operator(pg_catalog.=) (select pg_catalog.min(id) from public.t);
  delete from public.t where id operator(pg_catalog.=) (select pg_catalog.max(id) from public.t);
  update public.keyed set a = pg_catalog.concat(a, 'x'), v = '{"a": 1}' where a operator(pg_catalog.<) '15';
  delete from public.keyed where a operator(pg_catalog.=) (select pg_catalog.max(a) from public.keyed);
  insert into public.keyless values ('more', null);
  update public.keyless set what = 'less' where at is null;
  delete from public.keyless where ctid operator(pg_catalog.=) (select pg_catalog.min(ctid) from public.keyless);
  update public.parts set k = case when k operator(pg_catalog.=) 'x' then 'y' else 'x' end where id operator(pg_catalog.<) 5;
  insert into public.parts_y values ((random() * 1e8)::int, 'direct');
  truncate public.keyless;
  insert into public.keyless values ('after', null);`;

describe('whoever writes', () => {
  const pair = usePair(servers);
  /** A role of this test alone; it goes with its database's objects. */
  const named = (what: string) => `${what}_${pair.databases.sourceUrl.split('/').at(-1)}`;

  async function connectAs(role: string, options = ''): Promise<pg.Client> {
    await pair.databases.sourceAdmin.query(
      `create role ${role} login password 'secret' nosuperuser; grant usage on schema public to ${role}`,
    );
    const url = new URL(pair.databases.sourceUrl);
    url.username = role;
    url.password = 'secret';
    const client = new pg.Client({ connectionString: url.href, options });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  async function drop(...roles: string[]): Promise<void> {
    for (const role of roles)
      await pair.databases.sourceAdmin.query(`drop owned by ${role}; drop role ${role}`);
  }

  test('a role with DML rights alone, SET ROLE, and settings of the session hide nothing', async () => {
    await pair.inStep(SCHEMA, ROWS);
    const { sourceAdmin } = pair.databases;
    const [writer, group] = [named('writer'), named('team')];
    const client = await connectAs(writer);
    await sourceAdmin.query(`create role ${group}; grant ${group} to ${writer};
      grant select, insert, update, delete, truncate on all tables in schema public to ${writer}, ${group}`);
    await client.query(WRITES);
    await pair.equal();
    for (const settings of [
      `set role ${group}`,
      `reset role; set session_replication_role = default; select set_config('ibex.origin', 'source', false)`,
      `set ibex.origin = 'target'; set datestyle = 'german'; set intervalstyle = 'iso_8601'; set timezone = 'Asia/Kathmandu'`,
      `set standard_conforming_strings = off; set extra_float_digits = -15; set bytea_output = 'escape'; set xmloption = document`,
      `set row_security = off; set default_transaction_isolation = serializable; set check_function_bodies = off`,
      `set enable_hashjoin = off; set enable_nestloop = off; set work_mem = '64kB'; set plpgsql.variable_conflict = 'use_column'; set synchronous_commit = off`,
    ]) {
      await client.query(settings).catch((error) => {
        if (!/permission denied to set parameter/.test(error.message)) throw error;
      });
      await client.query(WRITES);
    }
    await sourceAdmin.query(
      `set session_replication_role = replica; ${WRITES} set session_replication_role = origin`,
    );
    await pair.equal();
    await client.end();
    await drop(writer, group);
  });

  test('row level security on the source hides nothing from the capture of what others write', async () => {
    await pair.inStep(SCHEMA, ROWS);
    const writer = named('writer');
    const client = await connectAs(writer);
    await pair.source.query(`grant select, insert, update, delete on t to ${writer}; alter table t enable row level security;
      create policy mine on t for all to ${writer} using (id % 2 = 0) with check (true)`);
    await client.query(
      `update t set note = 'seen by policy'; insert into t values (2001, 'odd', 1); delete from t where id < 20`,
    );
    await pair.equal();
    expect((await pair.target.query(`select from t where note = 'seen by policy'`)).rowCount).toBe(16);
    await client.end();
    await drop(writer);
  });

  test('operators and functions planted in front of the search_path are called by nothing of ours', async () => {
    await pair.inStep(SCHEMA, ROWS);
    const intruder = named('intruder');
    const client = await connectAs(intruder);
    const types = [
      'text',
      'int4',
      'int8',
      'timestamptz',
      'uuid',
      'bool',
      'name',
      'oid',
      'xid8',
      '"char"',
      'record',
    ];
    const operators = ['=', '<>', '<', '>', '||', '*=', '*<>'];
    const planted = types.flatMap((type, i) =>
      operators
        .filter((operator) => type !== 'record' || operator.startsWith('*') || operator !== '||')
        .map(
          (
            operator,
            j,
          ) => `create function evil.o_${i}_${j}(${type}, ${type}) returns boolean language plpgsql as
              $$ begin insert into evil.calls values (current_user::text); return false; end $$;
            create operator evil.${operator} (leftarg = ${type}, rightarg = ${type}, procedure = evil.o_${i}_${j});`,
        ),
    );
    await pair.databases.sourceAdmin.query(`
      create schema evil authorization ${intruder}; grant usage on schema evil to public;
      grant select, insert, update, delete, truncate on all tables in schema public to ${intruder}`);
    await client.query(`create table evil.calls (who text); grant insert on evil.calls to public; ${planted.join('')}
      create function evil.txid_current() returns bigint language sql as $$ insert into evil.calls values (current_user::text); select 3::bigint $$;
      create function evil.current_setting(text, boolean) returns text language sql as $$ insert into evil.calls values (current_user::text); select 'x'::text $$;
      create function evil.clock_timestamp() returns timestamptz language sql as $$ insert into evil.calls values (current_user::text); select null::timestamptz $$;
      create function evil.coalesce(text, text) returns text language sql as $$ insert into evil.calls values (current_user::text); select 'x'::text $$;
      create table evil.ibex (x int); set search_path = evil, pg_catalog, public`);
    await client.query(WRITES);
    expect((await pair.databases.sourceAdmin.query('select who from evil.calls')).rows).toEqual([]);
    await client.end();
    await pair.databases.sourceAdmin.query('drop schema evil cascade');
    await pair.equal();
    await drop(intruder);
  });

  test('a role that may only read can still dump all of the database', async () => {
    const reader = named('reader');
    await pair.source.query(SCHEMA);
    await pair.target.query(SCHEMA);
    const client = await connectAs(reader);
    await pair.source.query(`grant select on all tables in schema public to ${reader}`);
    await pair.source.query(ROWS);
    pair.start();
    await pair.equal();
    // What pg_dump does: it locks every table there is, and reads each.
    const { rows } = await client.query<{ name: string }>(
      `select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'`,
    );
    expect(rows.some(({ name }) => name.startsWith('ibex.delta_'))).toBe(true);
    await client.query(
      `begin isolation level repeatable read; lock table ${rows.map(({ name }) => name).join(', ')} in access share mode`,
    );
    for (const { name } of rows) await client.query(`select * from ${name}`);
    await client.query('commit');
    await client.end();
    await drop(reader);
  });

  test('a role of the application can neither change nor make up deltas, not even one that may dump all', async () => {
    await pair.inStep(SCHEMA, ROWS);
    const { sourceAdmin } = pair.databases;
    const [reader, outsider] = [named('reader'), named('outsider')];
    const clients = [await connectAs(outsider), await connectAs(reader)];
    await pair.source.query(`grant select on t, parts to ${reader}; grant insert on t to ${outsider}`);
    // Sharing is looked at anew when a table changes its shape.
    await pair.source.query('alter table t add column more int; alter table parts add column more int');
    await pair.target.query('alter table t add column more int; alter table parts add column more int');
    const shared = async () =>
      (
        await sourceAdmin.query(
          `select bool_and(has_table_privilege($1, c.oid, 'select')) as all from pg_class c
            where c.relnamespace = 'ibex'::regnamespace and c.relname like any (array['delta_' || 't'::regclass::oid || '_%', 'captured'])`,
          [reader],
        )
      ).rows[0].all;
    await waitFor(shared, { what: 'the deltas to be shared with the reader', timeout: 60_000 });
    const { rows: tables } = await sourceAdmin.query<{ name: string }>(
      `select c.oid::regclass::text as name from pg_class c where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r'`,
    );
    const { rows: functions } = await sourceAdmin.query<{ name: string }>(
      `select p.oid::regprocedure::text as name from pg_proc p
        where p.pronamespace = 'ibex'::regnamespace and p.prosecdef`,
    );
    expect(functions.length).toBeGreaterThan(12);
    for (const client of clients) {
      await client.query('create temporary table mine (id int, k text)');
      for (const { name } of tables)
        for (const statement of [
          `insert into ${name} overriding system value select * from ${name}`,
          `update ${name} set ctid = ctid`,
          `delete from ${name}`,
          `truncate ${name}`,
          `lock table ${name} in row exclusive mode`,
          `drop table ${name}`,
          `create trigger x after insert on ${name} for each row execute function suppress_redundant_updates_trigger()`,
        ])
          await expect(client.query(statement), statement).rejects.toThrow(
            /permission denied|must be owner|cannot assign|LOCK TABLE can only/,
          );
      for (const { name } of functions) {
        const table = `create trigger x after insert on mine referencing new table as n for each statement execute function ${name}`;
        await expect(client.query(table), table).rejects.toMatchObject({ code: '42501' });
        await expect(client.query(`select ${name}`), name).rejects.toThrow(
          /permission denied|called as trigger/,
        );
      }
    }
    // Who may not read the table sees none of its keys.
    for (const { name } of tables)
      await expect(clients[0]?.query(`select from ${name}`), name).rejects.toMatchObject({ code: '42501' });
    // Whoever claims to be of a node is captured like anybody else.
    for (const [n, origin] of ['source', 'target', 'main', 'x'].entries())
      await clients[0]?.query(
        `set ibex.origin = '${origin}'; insert into t values (${3000 + n}, '${origin}', 1)`,
      );
    await pair.equal();
    for (const client of clients) await client.end();
    await drop(reader, outsider);
  });

  test('rows that a policy hides from a reader are not shown by their deltas either', async () => {
    const [reader, former] = [named('reader'), named('former')];
    await onBoth(pair.databases, SCHEMA);
    const clients = [await connectAs(reader), await connectAs(former)];
    await pair.source.query(`grant select on t, keyed to ${reader}, ${former};
      alter table t enable row level security; create policy mine on t for all to public using (id % 2 = 0)`);
    pair.start();
    await pair.equal();
    const deltas = async (table: string) => {
      const { rows } = await pair.source.query<{ name: string }>(
        `select c.oid::regclass::text as name from pg_class c
          where c.relnamespace = 'ibex'::regnamespace and c.relname like 'delta_' || $1::regclass::oid || '_%'`,
        [table],
      );
      return rows.map(({ name }) => name);
    };
    await pair.source.query('insert into t values (1), (2), (3)');
    for (const name of await deltas('t')) {
      expect((await clients[0]?.query(`select from ${name}`))?.rowCount).toBe(0);
      // As pg_dump --enable-row-security does.
      await clients[0]?.query(`begin; lock table ${name} in access share mode; commit`);
    }
    // A policy that comes later, and a right that is taken away.
    await pair.source.query(`revoke select on t, keyed from ${former};
      alter table keyed enable row level security; create policy none on keyed for all to public using (false)`);
    for (const [client, table] of [
      [clients[1], 't'],
      [clients[1], 'keyed'],
      [clients[0], 'keyed'],
    ] as const) {
      if (table === 't') await pair.source.query('alter table t add column more int');
      await waitFor(
        async () => {
          const names = await deltas(table);
          const answers = await Promise.allSettled(names.map((name) => client?.query(`select from ${name}`)));
          return names.length > 0 && answers.every(({ status }) => status === 'rejected');
        },
        { what: `${table} to be hidden`, timeout: 60_000 },
      );
    }
    await pair.target.query('alter table t add column more int');
    await pair.becomesEqual();
    for (const client of clients) await client.end();
    await drop(reader, former);
  });

  test('the owner of a partitioned table, who is another one by now, makes partitions as before', async () => {
    const [team, heir] = [named('team'), named('heir')];
    const { sourceAdmin } = pair.databases;
    const me = new URL(pair.databases.sourceUrl).username;
    const client = await connectAs(heir);
    await sourceAdmin.query(
      `create role ${team}; grant ${team} to ${heir}, ${me}; grant all on schema public to ${team}, ${heir}`,
    );
    await pair.inStep(SCHEMA, ROWS);
    await sourceAdmin.query(
      `alter table parts owner to ${team}; alter table parts_x owner to ${team}; alter table parts_y owner to ${team}`,
    );
    await waitFor(
      async () =>
        (
          await sourceAdmin.query(
            `select has_function_privilege($1, p.oid, 'execute') as may from pg_proc p
            where p.proname = 'move_' || 'parts'::regclass::oid`,
            [team],
          )
        ).rows[0]?.may,
      { what: 'the new owner to be admitted', timeout: 60_000 },
    );
    await client.query(`set role ${team}; create table parts_q partition of parts for values in ('q');
      insert into parts values (7000, 'q')`);
    await pair.target.query(`create table parts_q partition of parts for values in ('q')`);
    await pair.becomesEqual();
    await client.end();
    await pair.sync.stop();
    await sourceAdmin.query(`reassign owned by ${team} to ${me}`);
    await drop(heir, team);
  });

  test('a low temp_file_limit refuses a statement over very many rows, and nothing of it is lost or half', async () => {
    const table = 'create table t (id int primary key, v int, pad text)';
    await onBoth(pair.databases, table);
    await pair.source.query(`insert into t select i, i, repeat('x', 100) from generate_series(1, 200000) i`);
    const writer = named('writer');
    const client = await connectAs(writer);
    await pair.source.query(`grant select, insert, update, delete on t to ${writer}`);
    await pair.databases.sourceAdmin.query(`grant set on parameter temp_file_limit to ${writer}`);
    await client.query(`set temp_file_limit = '10MB'`);
    await client.query('update t set v = v');
    pair.start();
    await pair.equal();
    // The rows of a statement are collected before they are noted; so much of them does not stay in memory.
    await expect(client.query('update t set v = v + 1')).rejects.toMatchObject({ code: '53400' });
    for (let from = 1; from < 200_000; from += 20_000) {
      await client.query('update t set v = v + 1 where id between $1 and $1 + 19999', [from]);
    }
    await pair.equal();
    expect((await pair.target.query('select from t where v <> id + 1')).rowCount).toBe(0);
    await client.end();
    await drop(writer);
  });
});
