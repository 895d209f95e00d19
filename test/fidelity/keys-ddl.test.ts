/** Keys that the application alters while they are captured. Its own writes never fail, not even in the same transaction. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

interface Case {
  readonly name: string;
  /** Columns of the table `t`, on both sides, and what it holds. */
  readonly columns: string;
  readonly rows: string;
  readonly ddl: string;
  /** Written in the transaction of the DDL, and once more after it. */
  readonly writes: readonly [inside: string, after: string];
}

const CASES: readonly Case[] = [
  {
    name: 'renamed',
    columns: 'id int primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t rename id to "new id"',
    writes: [
      'update t set v = $$w$$ where "new id" < 5; delete from t where "new id" = 9',
      'delete from t where "new id" = 7',
    ],
  },
  {
    name: 'changed_names',
    columns: 'id int primary key, v int',
    rows: 'select i, -i from generate_series(1, 50) i',
    ddl: 'alter table t rename id to x; alter table t rename v to id; alter table t rename x to v',
    writes: ['update t set id = 7 where v < 5; delete from t where v = 9', 'delete from t where v = 7'],
  },
  {
    name: 'dropped',
    columns: 'id int primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t drop column id',
    writes: [
      `insert into t values ('w'); delete from t where ctid in (select ctid from t limit 3)`,
      `insert into t values ('x'), ('x')`,
    ],
  },
  {
    name: 'replaced',
    columns: 'id int primary key, k int not null, v text',
    rows: `select i, -i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t drop constraint t_pkey, add primary key (k)',
    writes: [
      'update t set v = $$w$$, id = 1 where k < -40',
      'update t set id = 2, k = k - 1000; delete from t where k = -1001',
    ],
  },
  {
    name: 'given',
    columns: 'id int not null, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t add primary key (id)',
    writes: ['update t set v = $$w$$ where id < 5', 'update t set id = -id'],
  },
  {
    name: 'taken',
    columns: 'id int primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t drop constraint t_pkey',
    writes: [
      'insert into t select id, v from t where id < 5',
      'delete from t where id = 3; insert into t values (4, $$v$$)',
    ],
  },
  {
    name: 'int_to_bigint',
    columns: 'id int primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id type bigint',
    writes: ['insert into t values (8000000000)', 'update t set id = id + 5000000000'],
  },
  {
    name: 'int_to_text',
    columns: 'id int primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id type text',
    writes: [`insert into t values ('not a number')`, `update t set id = id || '!'`],
  },
  {
    name: 'uuid_to_date',
    columns: 'id uuid primary key, v text',
    rows: `select lpad(i::text, 32, '0')::uuid, 'v' from generate_series(1, 50) i`,
    ddl: `alter table t alter id type date using date '2020-01-01' + right(id::text, 6)::int`,
    writes: [`insert into t values ('infinity')`, `update t set id = id - 1000 where isfinite(id)`],
  },
  {
    name: 'varchar_widened',
    columns: 'id varchar(5) primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id type varchar(50)',
    writes: [`insert into t values ('longer than five')`, `update t set id = id || ' and longer still'`],
  },
  {
    name: 'numeric_widened',
    columns: 'id numeric(10,2) primary key, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id type numeric(12,4)',
    writes: ['insert into t values (1.2345)', 'update t set id = id + 0.0001'],
  },
  {
    name: 'seconds_widened',
    columns: 'id timestamptz(0) primary key, v text',
    rows: `select timestamptz '2020-01-01' + i * interval '1 s', 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id type timestamptz(6)',
    writes: [
      `insert into t values ('2020-01-01 00:00:00.123456+00')`,
      `update t set id = id - interval '5000.000001 s'`,
    ],
  },
  {
    name: 'null_allowed',
    columns: 'id int not null unique, v text',
    rows: `select i, 'v' from generate_series(1, 50) i`,
    ddl: 'alter table t alter id drop not null',
    writes: [
      'insert into t values (null), (null)',
      'update t set id = null where id < 5; delete from t where id = 7',
    ],
  },
];

/** The same statements about `t` for the table of a case. */
const about = ({ name }: Case, sql: string) =>
  sql.replaceAll(/\bt\b|\bt_pkey\b/g, (word) => word.replace('t', name));

test('keys that are renamed, retyped, replaced, dropped and added, with writes in the same transaction and after it', async () => {
  const schema = CASES.map(({ name, columns }) => `create table ${name} (${columns})`).join(';');
  const rows = CASES.map((one) => `insert into ${one.name} ${one.rows}`).join(';');
  await pair.inStep(schema, rows);
  for (const one of CASES) {
    const [inside, after] = one.writes;
    await pair.target.query(about(one, one.ddl));
    await pair.source.query(about(one, `begin; ${one.ddl}; ${inside}; commit`));
    await pair.source.query(about(one, after));
  }
  await pair.becomesEqual();
  await pair.equal();
});

test('columns of tables without a key that are renamed, with writes in the same transaction', async () => {
  const types = ['int', 'bool', 'yes', 'size', 'text', 'varchar(9)', 'char(9)', 'timestamp', 'jsonb'];
  const values = ['1', 'true', 'true', "'s'", "'t'", "'v'", "'c'", "'2020-01-01'", "'{}'"];
  const schema = types.map((type, i) => `create table t${i} (a ${type}, n int)`).join(';');
  const rows = values.map((value, i) => `insert into t${i} values (${value}, 1), (${value}, 2)`).join(';');
  await pair.inStep(
    `create type size as enum ('s', 'm'); create domain yes as bool check (value); ${schema}`,
    rows,
  );
  for (const [i, value] of values.entries()) {
    const rename = `alter table t${i} rename a to b`;
    await pair.target.query(rename);
    await pair.source.query(
      `begin; ${rename}; insert into t${i} (b, n) values (${value}, 3); delete from t${i} where n = 1; commit`,
    );
  }
  await pair.becomesEqual();
  await pair.equal();
});

test('a key that is altered by others all the time', async () => {
  await pair.inStep(
    'create table t (id int primary key, v int)',
    'insert into t select i, 0 from generate_series(1, 500) i',
  );
  const ddl = [
    'alter id type bigint',
    'alter id type int',
    'rename id to k',
    'rename k to id',
    'drop constraint t_pkey',
    'add primary key (id)',
  ];
  const names = ['id', 'id', 'k', 'id', 'id', 'id'];
  for (const [round, change] of [...ddl, ...ddl].entries()) {
    const key = names[round % names.length];
    await pair.source.query(`alter table t ${change}`);
    await pair.source.query(
      `update t set v = v + 1 where ${key} % 7 = ${round % 7}; update t set ${key} = -${key} where ${key} = ${round + 1}`,
    );
    await pair.source.query(
      `delete from t where ${key} = ${100 + round}; insert into t values (${1000 + round}, 1)`,
    );
  }
  await pair.becomesEqual();
  await pair.equal();
  expect((await pair.target.query('select from t')).rowCount).toBe(500);
});

test('labels of an enum key that are added and renamed while changes are waiting', async () => {
  await pair.inStep(
    `create type size as enum ('s', 'm', 'l'); create table t (id size primary key, v int)`,
    `insert into t values ('s', 1), ('m', 2)`,
  );
  await pair.target.query(`alter type size rename value 'm' to 'medium'; alter type size add value 'xl'`);
  await pair.source.query(`update t set v = 3; alter type size rename value 'm' to 'medium'`);
  await pair.source.query(`alter type size add value 'xl'`);
  await pair.source.query(`insert into t values ('xl', 4); delete from t where id = 's'`);
  await pair.becomesEqual();
  await pair.equal();
});

test('a domain key whose CHECK comes later than rows that it would refuse, and whose type goes', async () => {
  await pair.inStep(
    `create domain code as text not null check (value <> ''); create type size as enum ('s', 'm');
     create table t (id code primary key, v int); create table e (id size primary key, v int)`,
    `insert into t values ('old', 1), ('new', 2); insert into e values ('s', 1), ('m', 2)`,
  );
  const alter = `alter domain code add constraint long_enough check (length(value) > 3) not valid`;
  await pair.target.query(alter);
  await pair.source.query(
    `update t set v = 3; delete from t where id = 'old'; ${alter}; insert into t values ('newer', 4)`,
  );
  const retype = 'alter table e alter id type text; drop type size';
  await pair.target.query(retype);
  await pair.source.query(
    `begin; update e set v = 5 where id = 's'; commit; ${retype}; insert into e values ('xxl', 1)`,
  );
  await pair.source.query('truncate t');
  await pair.becomesEqual();
  await pair.equal();
});

test('a write between the renaming of a key and its noticing is carried by a new copy, one before it is not', async () => {
  await pair.inStep(
    'create table t (id int primary key, v int)',
    'insert into t select i, 0 from generate_series(1, 500) i',
  );
  const copied = async () => (await pair.sync.status()).tables[0]?.copied;
  expect(await copied()).toBe(500);
  await pair.source.query('update t set v = 1; alter table t rename id to k');
  await pair.target.query('alter table t rename id to k');
  await waitFor(
    async () => (await pair.source.query(`select from ibex.captured where columns = '{k}'`)).rowCount === 1,
    { what: 'the renamed key to be followed' },
  );
  await pair.source.query('delete from t where k = 7');
  await pair.becomesEqual();
  await pair.equal();
});
