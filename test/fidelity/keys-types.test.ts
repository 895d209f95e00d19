/** Keys of every type that can be one. Extensions lie in another schema on the target. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { BUILT_IN, KEY_EXTENSIONS, type KeyType, OF_EXTENSIONS, OF_THE_APPLICATION } from './key-samples.ts';

const servers = await useServers();
const pair = usePair(servers);

const quote = (value: string) => `'${value.replaceAll("'", "''")}'`;

/** What is done to the table of one type, as SQL. */
interface Keyed {
  readonly table: string;
  /** Of the column, and of a literal. */
  readonly type: string;
  readonly cast: string;
  readonly values: readonly string[];
  readonly twins: readonly (readonly [string, string])[];
}

function keyed(table: string, { type, values, twins = [] }: KeyType): Keyed {
  const cast = type.replace(/ collate .*/, '');
  const literal = (value: string) => `${quote(value)}::${cast}`;
  return {
    table,
    type,
    cast,
    values: values.map(literal),
    twins: twins.map(([one, other]) => [literal(one), literal(other)]),
  };
}

/** Keys that are arrays of these. */
function arrayOf({ table, type, values, twins }: Keyed): Keyed {
  const array = (value: string) => `array[${values[0]}, ${value}]`;
  return {
    table: `${table}_array`,
    type: `${type}[]`,
    cast: `${type}[]`,
    values: values.map((value) => array(value)),
    twins: twins.map(([one, other]) => [array(one), array(other)]),
  };
}

const insert = ({ table }: Keyed, key: string | undefined, v: number) =>
  key === undefined ? '' : `insert into ${table} values (${key}, ${v});`;
const change = ({ table }: Keyed, from: string | undefined, to: string | undefined) =>
  from === undefined || to === undefined ? '' : `update ${table} set id = ${to} where id = ${from};`;

/** Writes of the application, one transaction each; the target is compared after each of them. */
const STEPS: readonly ((keyed: Keyed) => string)[] = [
  (k) =>
    `update ${k.table} set v = 2 where id = ${k.values[0]}; delete from ${k.table} where id = ${k.values[1]};
     ${insert(k, k.values[2], 3)} ${k.twins.map(([one, other]) => change(k, one, other)).join('')}`,
  (k) =>
    `${change(k, k.values[0], k.values[1])} ${change(k, k.values[2], k.values[3])}
     ${k.twins.map(([one, other]) => `${change(k, other, one)} update ${k.table} set v = 5 where id = ${one};`).join('')}`,
  (k) =>
    `${insert(k, k.values[0], 4)} ${change(k, k.values[3], k.values[2])}
     ${k.twins.map(([one, other]) => `delete from ${k.table} where id = ${one}; ${insert(k, other, 6)}`).join('')}`,
  (k) => `delete from ${k.table} where id in (${[k.values[0], ...k.twins.map(([one]) => one)].join(', ')});`,
];

async function carry(keys: readonly Keyed[]): Promise<void> {
  const schema = keys.map(({ table, type }) => `create table ${table} (id ${type} primary key, v int);`);
  const first = keys.map(
    (k) =>
      `${insert(k, k.values[0], 1)} ${insert(k, k.values[1], 1)} ${k.twins.map(([one]) => insert(k, one, 1)).join('')}`,
  );
  await pair.inStep(schema.join(''), first.join(''));
  for (const step of STEPS) {
    await pair.source.query(keys.map(step).join(''));
    await pair.equal();
  }
}

async function extend(): Promise<void> {
  for (const [client, schema] of [
    [pair.source, 'here'],
    [pair.target, 'there'],
  ] as const) {
    await client.query(`create schema ${schema}; set search_path = public, ${schema}`);
    for (const name of KEY_EXTENSIONS) await client.query(`create extension ${name} schema ${schema}`);
  }
}

test('a type that can be a key and has no sample here is named', async () => {
  await extend();
  const { rows } = await pair.source.query<{ name: string }>(
    `select t.oid::regtype::text as name
       from pg_type t join pg_namespace n on n.oid = t.typnamespace
      where n.nspname in ('pg_catalog', 'here') and t.typtype in ('b', 'r', 'm')
        and (t.typtype <> 'b' or exists (
              select from pg_opclass c join pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
               where c.opcdefault
                 and (c.opcintype = t.oid
                      or exists (select from pg_cast k where k.castsource = t.oid and k.casttarget = c.opcintype
                                    and k.castmethod = 'b' and k.castcontext = 'i'))))`,
  );
  // Nobody can put a value into a column of these.
  const unreadable = ['pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list'];
  const sampled = await pair.source.query<{ name: string }>('select unnest($1::regtype[])::text as name', [
    [...BUILT_IN, ...OF_EXTENSIONS].map(({ type }) => type),
  ]);
  const names = new Set([...unreadable, ...sampled.rows.map(({ name }) => name)]);
  expect(rows.map(({ name }) => name).filter((name) => !names.has(name))).toEqual([]);
});

test('keys of every built-in type', async () => {
  await carry(BUILT_IN.map((type, i) => keyed(`k${i}`, type)));
});

test('keys that are arrays of every built-in type', async () => {
  const types = BUILT_IN.filter(({ type }) => type !== '"char"' && type !== 'name').map((type, i) =>
    keyed(`k${i}`, type),
  );
  await carry(types.map(arrayOf));
});

test('keys of the types of extensions and of the application: enums, composites, domains, ranges, collations that ignore case', async () => {
  await extend();
  await pair.source.query(OF_THE_APPLICATION.ddl);
  await pair.target.query(`create type unlike_the_source as enum (); ${OF_THE_APPLICATION.ddl}`);
  const extended = OF_EXTENSIONS.map((type, i) => keyed(`e${i}`, type));
  const own = OF_THE_APPLICATION.types.map((type, i) => keyed(`o${i}`, type));
  await carry([...extended, ...extended.map(arrayOf), ...own]);
});
