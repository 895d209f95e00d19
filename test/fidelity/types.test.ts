/**
 * Every type that PostgreSQL has, as rows that exist and rows that come, in tables with and without a key. The list
 * of types is the server's own.
 */
import pg from 'pg';
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { SAMPLES } from '../support/type-samples.ts';

const servers = await useServers();
const pair = usePair(servers);

interface Type {
  readonly name: string;
  readonly type: string;
  /** Of an array: the type of its elements. */
  readonly element: string | null;
  readonly elementType: string | null;
}

const LIST_TYPES = `
  select t.typname as name, format('%I.%I', n.nspname, t.typname) as type,
         e.typname as element, quote_ident(en.nspname) || '.' || quote_ident(e.typname) as "elementType"
    from pg_type t join pg_namespace n on n.oid = t.typnamespace
    left join pg_type e on e.typarray = t.oid left join pg_namespace en on en.oid = e.typnamespace
   where t.oid < 16384 and t.typtype not in ('p', 'c') and coalesce(e.typtype, '-') <> 'c'
   order by t.oid`;

/** The built-in types of which the server lets a column be made. Row types of catalogs are composites. */
async function columnTypes(client: pg.Client): Promise<Type[]> {
  const { rows } = await client.query<Type>(LIST_TYPES);
  const possible: Type[] = [];
  for (const row of rows) {
    const created = await client
      .query(`create temp table probe (v ${row.type}); drop table probe`)
      .catch(() => null);
    if (created !== null) possible.push(row);
  }
  return possible;
}

/** Whether the type takes no value from anybody: pg_node_tree and its like say so themselves. */
async function isUnwritable(client: pg.Client, type: string): Promise<boolean> {
  const said = await client.query(`select ''::${type}`).catch((error: Error) => error.message);
  return typeof said === 'string' && said.includes('cannot accept a value of type');
}

/** SQL of the values with which a column is filled, one a row. */
function valuesOf({ name, type, element, elementType }: Type): string[] {
  if (element === null) return (SAMPLES[name] ?? []).map((text) => `${pg.escapeLiteral(text)}::${type}`);
  const inside = (SAMPLES[element] ?? []).map((text) => `${pg.escapeLiteral(text)}::${elementType}`);
  const [one = 'null', two = one] = inside;
  return [
    `'{}'::${type}`,
    `array[null, ${inside.join(', ')}]::${type}`,
    `array[array[${one}, null], array[${two}, ${one}]]::${type}`,
    `array_fill(${two}, array[2, 1, 2], array[-7, 0, 3])::${type}`,
  ];
}

const REFERRED = `
  create type referred_mood as enum ('a', 'b');
  create table "Odd name" (id int primary key);
  create table referred (id int primary key);
  create function referred(int) returns int language sql as 'select 1'`;

/** Columns whose values differ, so that a failure names a type and not a row of two hundred values. */
async function differingColumns(table: string, columns: readonly string[]): Promise<string[]> {
  const digest = `select ${columns.map((c) => `md5(string_agg(coalesce(row(${c})::text, '-'), '|' order by id)) as ${c}`).join(', ')} from ${table}`;
  const pinned = 'set extra_float_digits = 3; set timezone = utc; set search_path = pg_catalog';
  await onBoth(pair.databases, pinned);
  const [here, there] = [await pair.source.query(digest), await pair.target.query(digest)];
  await onBoth(pair.databases, 'reset search_path');
  return columns.filter((column) => here.rows[0][column] !== there.rows[0][column]);
}

test('every built-in type and every array of one arrives, copied and streamed, with a key and without', async () => {
  const types = await columnTypes(pair.source);
  const writable: Type[] = [];
  for (const type of types)
    if (!(await isUnwritable(pair.source, type.elementType ?? type.type))) writable.push(type);
  expect(writable.filter((type) => valuesOf(type).length === 0).map(({ name }) => name)).toEqual([]);
  expect(
    writable.filter(({ element }) => element !== null && !(element in SAMPLES)).map(({ name }) => name),
  ).toEqual([]);
  expect(writable.length).toBeGreaterThan(140);

  // Other oids on the other side, for everything that has one inside.
  await pair.source.query('create table padding (id int primary key); drop table padding');
  await onBoth(pair.databases, REFERRED);
  const columns = writable.map(({ name }) => `"c_${name}"`);
  const declared = writable.map(({ name, type }) => `"c_${name}" ${type}`).join(', ');
  await onBoth(
    pair.databases,
    `create table samples (id int primary key, ${declared});
     create table streamed (id int primary key, ${declared});
     create table keyless (id int, ${declared})`,
  );
  const rows = Math.max(...writable.map((type) => valuesOf(type).length));
  for (let id = 0; id < rows; id++) {
    const values = writable.map((type) => valuesOf(type)[id % valuesOf(type).length]);
    await pair.source.query(`insert into samples values (${id}, ${values.join(', ')})`);
  }
  await pair.source.query(`insert into samples (id) values (${rows})`);
  await pair.source.query('insert into keyless select * from samples where id % 2 = 0');
  pair.start();
  const arrived = async () => {
    await pair.sync.caughtUp();
    for (const table of ['public.samples', 'public.streamed', 'public.keyless'])
      expect(await differingColumns(table, columns), table).toEqual([]);
    await pair.equal();
  };
  await arrived();

  await pair.source.query(
    'insert into streamed select * from samples; insert into keyless select * from samples',
  );
  await arrived();
  for (const table of ['streamed', 'keyless']) {
    await pair.source.query(
      `update ${table} t set (${columns.join(', ')}) =
              (select ${columns.join(', ')} from samples s where s.id = (t.id + 1) % ${rows + 1})`,
    );
  }
  await arrived();
  await pair.source.query('delete from streamed where id % 2 = 0; delete from keyless where id % 3 = 0');
  await arrived();
  // As its own text XML keeps the declaration that its output function leaves out.
  const { rows: xml } = await pair.target.query('select c_xml::text from samples where id = 0');
  expect(xml[0].c_xml).toContain('encoding="UTF-8"');
});

test('a type that takes no value holds its table by name, and only its table', async () => {
  await onBoth(
    pair.databases,
    `create table trees (id int primary key, v pg_node_tree); create table vectors (id int primary key, v gtsvector);
     create table fine (id int primary key)`,
  );
  await pair.source.query(`insert into trees values (1, null); insert into vectors values (1, null)`);
  pair.start();
  await pair.equal();
  // The one way to have such a value is to take it from a catalog.
  await pair.source.query('insert into trees select 2, ev_action from pg_rewrite limit 1');
  await waitFor(
    async () =>
      /public\.trees: .*cannot accept a value of type pg_node_tree/.test(
        (await pair.sync.status()).why.join(),
      ),
    { what: 'the reason' },
  );
  await pair.source.query('insert into fine values (1); insert into vectors values (2, null)');
  await pair.becomesEqual(['public.fine', 'public.vectors']);
});
