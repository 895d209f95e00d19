/** Tables of unusual names and kinds: carried like any other, refused by name, or left alone. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const LONG = 'x'.repeat(60);
const NAMES = [
  `${LONG}one`,
  `${LONG}two`,
  'é'.repeat(31),
  '表'.repeat(21),
  'Upper Case',
  'a.b',
  '"quoted"',
  `it's`,
  'select',
  'user',
  '%s %I $1',
  'back\\slash',
  'new',
  '*',
];
const quote = (name: string) => `"${name.replaceAll('"', '""')}"`;

/** Each name as schema, as table and as column. */
const NAMED = NAMES.map((name, i) => ({
  schema: i % 3 === 0 ? quote(name) : 'public',
  table: quote(name),
  keyless: quote(`${i} rows`),
  key: quote(NAMES[(i + 5) % NAMES.length] as string),
  value: quote(name),
}));
const SCHEMA = NAMED.map(
  ({ schema, table, keyless, key, value }) => `
    create schema if not exists ${schema};
    create table ${schema}.${table} (${key} text primary key, ${value} int, "op" int, xid text);
    create table ${schema}.${keyless} (${value} text, ${key} int)`,
).join(';');

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('names of every length, alphabet and spelling, for schemas, tables and columns', async () => {
    await pair.inStep(
      `${SCHEMA}; create schema "a"; create table "a"."b.c" (id int primary key, v text); create schema "d.b";
       create table "d.b".c (id int primary key, v text); create schema d; create table d."b.c" (id int primary key, v text)`,
      NAMED.map(
        ({ schema, table }) =>
          `insert into ${schema}.${table} select 'k' || i, i from generate_series(1, 20) i`,
      ).join(';'),
    );
    const { source } = pair;
    for (const { schema, table, keyless, key, value } of NAMED) {
      await source.query(`update ${schema}.${table} set ${key} = ${key} || '!', ${value} = -1 where ${value} < 5; delete from ${schema}.${table} where ${value} = 7;
        insert into ${schema}.${keyless} values ('a'), ('b'); update ${schema}.${keyless} set ${key} = 1`);
    }
    // One label for both would mix them up.
    await source.query(
      `insert into "d.b".c values (1, 'of d.b'); insert into d."b.c" values (2, 'of d'); insert into a."b.c" values (3, 'of a')`,
    );
    await pair.equal();
    const { rows } = await pair.target.query(
      `select v from "d.b".c union all select v from d."b.c" order by 1`,
    );
    expect(rows).toEqual([{ v: 'of d' }, { v: 'of d.b' }]);
    await source.query(`truncate d."b.c", public."a.b"; insert into d."b.c" values (9, 'again')`);
    await pair.equal();
  });

  test('unlogged tables, and tables with rules, are carried like any other', async () => {
    await pair.inStep(
      `create unlogged table fast (id int primary key, v int); create unlogged table fast_rows (v int);
       create table ruled (id int primary key, v int); create table log (what text, id int);
       create rule noted as on insert to ruled do also insert into log values ('inserted', new.id);
       create rule kept as on delete to ruled do instead update ruled set v = -1 where id = old.id;
       create rule written as on update to log do instead nothing`,
      'insert into fast select i, i from generate_series(1, 50) i; insert into ruled select i, i from generate_series(1, 20) i',
    );
    const { source } = pair;
    await source.query(
      `update fast set v = -v where id % 2 = 0; delete from fast where id = 3; insert into fast_rows values (1), (1)`,
    );
    await source.query(
      'insert into ruled values (100, 100); delete from ruled where id = 5; update log set id = 0; update ruled set id = 200 where id = 6',
    );
    await pair.equal();
    await source.query('truncate fast; insert into fast values (1, 1)');
    await pair.equal();
  });
});

describe('what is not carried', () => {
  const pair = usePair(servers);

  test('a table without columns of its own, or hidden by row level security, is refused by name', async () => {
    await onBoth(
      pair.databases,
      `create table none (); create table computed (c int generated always as (1) stored);
       create table hidden (id int primary key); create table walled (id int primary key); create table open (id int primary key)`,
    );
    await pair.source.query(`alter table hidden enable row level security; alter table hidden force row level security;
      create policy nobody on hidden using (false) with check (true); insert into hidden values (1); insert into open values (1);
      insert into walled values (1); insert into none default values`);
    await pair.target.query(`insert into hidden values (1), (2);
      alter table walled enable row level security; alter table walled force row level security`);
    pair.start();
    await pair.becomesEqual(['public.open']);
    const why = async () => (await pair.sync.status()).why.join('\n');
    for (const reason of [
      /hidden.*row-level security/,
      /walled.*row-level security/,
      /public\.none.*no column/,
      /public\.computed.*no column/,
    ])
      await waitFor(async () => reason.test(await why()), { what: `${reason}` });
    expect(
      (
        (await pair.target.query(`set row_security = off; select from hidden`)) as never as {
          rowCount: number;
        }[]
      )[1]?.rowCount,
    ).toBe(2);
    await pair.source.query('insert into open values (2)');
    await pair.becomesEqual(['public.open']);
  });

  test('temporary tables, views and what belongs to an extension are left alone', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key, v int)');
    await pair.databases.sourceAdmin.query(`create table part_of_it (id int primary key);
      alter extension plpgsql add table part_of_it; grant all on part_of_it to public`);
    await pair.source.query(`create temp table passing (id int primary key); create temp table passing_too (v int);
      create view seen as select * from t; create materialized view kept as select * from t; create unique index on kept (id)`);
    pair.start();
    await pair.sync.caughtUp();
    await pair.source.query(`insert into passing values (1); update passing set id = 2; insert into passing_too values (1); truncate passing_too;
      insert into seen values (1, 1); update seen set v = 2; refresh materialized view concurrently kept; insert into part_of_it values (1);
      update part_of_it set id = 2; delete from part_of_it; create temp table later (like t including all); insert into later select * from t;
      drop table passing`);
    await pair.sync.caughtUp();
    const { tables, why } = await pair.sync.status();
    expect({ tables: tables.map(({ table }) => table), why }).toEqual({ tables: ['public.t'], why: [] });
    expect((await pair.target.query('select v from t')).rows).toEqual([{ v: 2 }]);
    await pair.databases.sourceAdmin.query('alter extension plpgsql drop table part_of_it');
  });
});
