/** Columns of one type here and another there: carried to the byte of their text, or refused by name up front. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** Type here, type there, values. */
const CARRIED: readonly (readonly [source: string, target: string, ...values: string[]])[] = [
  ['int2', 'int8', '-32768'],
  ['int4', 'numeric', '-2147483648'],
  ['int8', 'numeric(19,0)', '-9223372036854775808'],
  ['numeric(10,2)', 'numeric(30,2)', '1.50', '-99999999.99'],
  ['numeric(10,2)', 'numeric', '1.50', 'NaN'],
  ['timestamp(3)', 'timestamp(6)', '2024-01-01 00:00:00.123'],
  ['timestamptz', 'timestamptz(6)', '2024-01-01 00:00:00.123456', 'infinity'],
  ['varchar(5)', 'varchar(6)', 'a    '],
  ['varchar(5)', 'text', 'a    '],
  ['char(5)', 'text', 'a'],
  ['bool', 'text', 'true'],
  ['inet', 'varchar', '10.1.2.3'],
  ['"char"', 'text', 'x'],
  ['name', 'text', 'a name'],
  ['bit(3)', 'text', '101'],
  ['mood', 'text', 'sad'],
  ['text', 'mood', 'ok'],
  ['mood', 'feeling', 'ok'],
  ['uuid', 'text', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  ['timestamptz', 'text', '2024-01-01 00:00:00.5+05'],
  ['float8', 'text', '0.1', '-0', '5e-324'],
  ['jsonb', 'json', '{"a": 1e2, "b": []}'],
  ['bytea', 'text', '\\x00ff'],
  ['regclass', 'text', 'public.keyless'],
  ['int4', 'small', '7'],
  ['small', 'int4', '7'],
  ['varchar(3)[]', 'text[]', '{a,"b,",NULL}'],
  ['int4[]', 'int8[]', '[0:1]={1,2}'],
  ['mood[]', 'text[]', '{sad,NULL}'],
  ['pair_here', 'text', '(1,"a b")'],
  ['pair', 'pair', '(1,"a b",sad)'],
];

const HERE = `create type mood as enum ('sad', 'ok'); create domain small as int check (value < 10);
  create type pair_here as (a int, b text); create type pair as (a int, b varchar(5), m mood)`;
const THERE = `create type feeling as enum ('ok', 'sad'); create type mood as enum ('ok', 'sad');
  create domain small as int check (value < 10); create type pair as (a bigint, b text, m mood)`;

test('types that hold every value of the other carry it, with its text unchanged', async () => {
  await pair.source.query(HERE);
  await pair.target.query(THERE);
  const columns = (side: 0 | 1) => CARRIED.map((types, i) => `c${i} ${types[side]}`).join(', ');
  for (const [client, side] of [
    [pair.source, 0],
    [pair.target, 1],
  ] as const) {
    await client.query(
      `create table carried (id ${['int', 'bigint'][side]} primary key, ${columns(side)});
       create table keyless (${columns(side)});
       create table by_uuid (id ${['uuid', 'text'][side]} primary key, v int);
       create table by_bool (id ${['bool', 'text'][side]} primary key, v int);
       create table by_mood (id ${['mood', 'feeling'][side]} primary key, v int);
       create table by_number (id ${['int', 'numeric'][side]}, id2 ${['smallint', 'int'][side]}, v int, primary key (id, id2))`,
    );
  }
  const row = (n: number) => CARRIED.map(([, , ...values]) => `'${values[n % values.length]}'`).join(', ');
  const keys = `insert into by_uuid values (gen_random_uuid(), 1), (gen_random_uuid(), 2);
                insert into by_bool values (true, 1), (false, 2);
                insert into by_mood values ('ok', 1), ('sad', 2); insert into by_number values (1, 1, 1), (2, 1, 1)`;
  const both = async (n: number) => {
    await pair.source.query(
      `insert into carried values (${n}, ${row(n)}); insert into keyless values (${row(n)})`,
    );
  };
  for (const n of [0, 1]) await both(n);
  await pair.source.query(keys);
  pair.start();
  await pair.equal();
  for (const n of [2, 3, 4]) await both(n);
  await pair.source.query(
    `update carried set c0 = null, c1 = 5, c7 = 'b    ', c10 = false where id = 0;
     update keyless set c10 = false, c9 = 'b', c24 = 8 where c14 is not null; delete from carried where id = 3;
     delete from by_bool where id; update by_bool set v = 3;
     delete from by_uuid where v = 1; delete from by_mood where id = 'ok'; update by_mood set v = 3;
     delete from by_number where id = 1; update by_number set id = 9, v = 9`,
  );
  await pair.equal();
  await pair.source.query(`delete from keyless where c4 = 'NaN'`);
  await pair.equal();
});

/** Type here, type there, how both are called, a value that would not arrive as it is. */
const REFUSED: readonly (readonly [source: string, target: string, value: string])[] = [
  ['numeric(10,4)', 'numeric(10,2)', '1.2345'],
  ['numeric(10,2)', 'numeric(12,4)', '1.23'],
  ['numeric', 'numeric(10,2)', '1.234'],
  ['timestamp without time zone', 'timestamp(0) without time zone', '2024-01-01 00:00:00.5'],
  ['timestamp with time zone', 'timestamp without time zone', '2024-01-01 00:00:00+05'],
  ['timestamp without time zone', 'timestamp with time zone', '2024-01-01 00:00:00'],
  ['json', 'jsonb', '{"a":1,"a":2}'],
  ['double precision', 'real', '0.123456789'],
  ['real', 'double precision', '0.1'],
  ['text', 'character(5)', 'a'],
  ['character varying(20)', 'character varying(5)', 'a         '],
  ['text', 'integer', '007'],
  ['xml', 'text', '<?xml version="1.0" encoding="UTF-8"?><a/>'],
  ['bigint', 'integer', '1'],
  ['bit(3)', 'bit(5)', '101'],
  ['interval', 'interval year to month', '1 day'],
  ['text[]', 'character varying(3)[]', '{"a     "}'],
  ['public.twins', 'public.twins', '(1,2)'],
];

test('types that would round, pad, cut or rewrite are refused by name before a row moves', async () => {
  await pair.source.query('create type twins as (a int, b int)');
  await pair.target.query('create type twins as (b int, a int)');
  const tables = REFUSED.map(([source, target, value], i) => ({ name: `t${i}`, source, target, value }));
  for (const { name, source, target, value } of tables) {
    await pair.source.query(
      `create table ${name} (id int primary key, v ${source}); insert into ${name} values (1, '${value}')`,
    );
    await pair.target.query(`create table ${name} (id int primary key, v ${target})`);
  }
  await onBoth(pair.databases, 'create table fine (id int primary key)');
  await pair.source.query('insert into fine values (1)');
  pair.start();
  await waitFor(async () => (await pair.target.query('select from fine')).rowCount === 1, {
    what: 'the other table',
  });
  const reasons = async () => (await pair.sync.status()).tables.flatMap(({ reason }) => reason ?? []);
  await waitFor(async () => (await reasons()).length === tables.length, {
    what: 'the reasons of all others',
  });
  const told = await reasons();
  for (const { name, source, target } of tables) {
    const reason = told.find((one) => one.includes(`public.${name}: `));
    expect(reason).toContain(`column v is ${source} on the source and ${target} on the target`);
    expect((await pair.target.query(`select from ${name}`)).rowCount, name).toBe(0);
  }
});
