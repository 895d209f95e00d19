/**
 * An application that uses what its servers can do, and no more: every type of both majors with its edge values,
 * partitions, tables without a key, cascades, values that swap owners, two-phase commits. `since` and the like are
 * the first major that knows a thing.
 */

interface Sample {
  readonly type: string;
  /** SQL expressions. */
  readonly values: readonly string[];
  readonly since?: number;
}

const text = (...values: string[]) => values.map((value) => `'${value.replaceAll("'", "''")}'`);

const SAMPLES: readonly Sample[] = [
  { type: 'bool', values: text('t', 'f') },
  { type: 'int2', values: text('-32768', '32767') },
  { type: 'int8', values: text('-9223372036854775808', '9223372036854775807') },
  { type: 'oid', values: text('4294967295') },
  { type: 'float4', values: text('-0', 'NaN', 'Infinity', '1e-45', '3.4028235e38', '0.1') },
  { type: 'float8', values: text('-0', 'NaN', '-Infinity', '5e-324', '1.7976931348623157e308', '0.1') },
  { type: 'numeric', values: ["'NaN'", "'1.00'", "'1.0'", `repeat('9', 1000)::numeric`, "'1e-1000'"] },
  { type: 'numeric(12,4)', values: text('12345678.1234', '-0.0001') },
  { type: 'money', values: text('-92233720368547758.08', '0.01') },
  { type: 'char(5)', values: text('a', 'ab   ') },
  { type: '"char"', values: text('x', '') },
  { type: 'name', values: text('some name') },
  { type: 'varchar(9)', values: text('', 'Grüße 漢') },
  { type: 'text', values: [`''`, `'a' || chr(9) || chr(10) || '\\N'`, `repeat('日本', 5000)`] },
  { type: 'bytea', values: [`'\\x00ff00'`, `''`, `decode(repeat('00', 9000), 'hex')`] },
  { type: 'date', values: text('4713-01-01 BC', 'infinity', '-infinity', '5874897-12-31') },
  { type: 'time(3)', values: text('24:00:00', '00:00:00.001') },
  { type: 'timetz', values: text('23:59:59.999999-15:59', '00:00+15:59') },
  { type: 'timestamp', values: text('4713-01-01 00:00:00 BC', 'infinity', '294276-12-31 23:59:59.999999') },
  { type: 'timestamptz', values: text('-infinity', '2026-03-29 02:30:00+02', '0044-03-15 12:00:00+00 BC') },
  { type: 'interval', values: text('1 mon -1 day 00:00:00.000001', '24:00:00', '1 day', '-178000000 years') },
  { type: 'uuid', values: text('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11') },
  { type: 'json', values: text('{"a":1, "a" : 2}', '"\\u0000"', ' null') },
  { type: 'jsonb', values: text('{"n":1e400, "d":1.10}', 'null') },
  { type: 'jsonpath', values: text('$.a[*] ? (@ > 1)') },
  { type: 'bit(3)', values: text('101') },
  { type: 'varbit', values: text('', '1010101010101') },
  { type: 'inet', values: text('::1', '10.0.0.1/8') },
  { type: 'cidr', values: text('10.0.0.0/8') },
  { type: 'macaddr', values: text('08:00:2b:01:02:03') },
  { type: 'macaddr8', values: text('08:00:2b:01:02:03:04:05') },
  { type: 'point', values: text('(-0,1e300)') },
  { type: 'line', values: text('{1,2,3}') },
  { type: 'lseg', values: text('[(0,0),(1,1)]') },
  { type: 'box', values: text('(1,1),(0,0)') },
  { type: 'path', values: text('((0,0),(1,1))', '[(0,0),(1,1)]') },
  { type: 'polygon', values: text('((0,0),(1,1),(1,0))') },
  { type: 'circle', values: text('<(0,0),1>') },
  { type: 'tsvector', values: text(`'a':1A 'b c':2`) },
  { type: 'tsquery', values: text('a & !b <2> c:*') },
  { type: 'pg_lsn', values: text('FFFFFFFF/FFFFFFFF') },
  { type: 'txid_snapshot', values: text('10:20:10,14') },
  { type: 'pg_snapshot', values: text('10:20:10,14'), since: 13 },
  { type: 'xid8', values: text('18446744073709551615'), since: 13 },
  { type: 'xid', values: text('4294967295') },
  { type: 'tid', values: text('(4294967295,65535)') },
  { type: 'regclass', values: text('pg_catalog.pg_class') },
  { type: 'regtype', values: text('integer[]') },
  { type: 'regprocedure', values: text('pg_catalog.abs(integer)') },
  { type: 'int4range', values: text('empty', '[1,10)', '(,)') },
  { type: 'numrange', values: text('[1.00,2.0]') },
  { type: 'tstzrange', values: text('[-infinity,infinity]') },
  { type: 'int4multirange', values: text('{}', '{[1,3),[5,)}'), since: 14 },
  { type: 'int4[]', values: text('{}', '[-1:0][2:3]={{1,2},{3,NULL}}') },
  { type: 'text[]', values: text('{"a,b","NULL",NULL,""}') },
  { type: 'numeric[]', values: text('{NaN,1.00}') },
  { type: 'interval[]', values: text('{"1 day","24:00:00"}') },
  { type: 'json[]', values: text('{"{\\"a\\": 1}"}') },
  { type: 'regtype[]', values: text('{text,integer}') },
  { type: 'app.mood', values: text('sad') },
  { type: 'app.mood[]', values: text('{sad,NULL,glad}') },
  { type: 'app.pair', values: text('(1,"a ""b""")') },
  { type: 'app.pair[]', values: text('{"(1,a)",NULL}') },
  { type: 'app.even', values: text('42') },
  { type: 'app.span', values: text('[0.5,1.5)') },
];

/** The types that both majors have, those of the application among them. */
function samplesFor(major: number): readonly Sample[] {
  return SAMPLES.filter(({ since = 0 }) => since <= major);
}

/** Statements for both sides. `major` is the older of the two. */
export function schema(major: number): string {
  const every = samplesFor(major).map(({ type }, i) => `v${i} ${type}`);
  return `
    create schema app;
    create type app.mood as enum ('glad', 'calm', 'sad');
    create type app.pair as (n int, t text);
    create domain app.even as int check (value % 2 = 0);
    create type app.span as range (subtype = float8);
    create table app.every (id int primary key, ${every.join(', ')});

    create table app.numbers (n numeric primary key, v text);
    create table app.moods (m app.mood, at timestamptz, v text, primary key (m, at));
    create table app.shelf (id int generated always as identity primary key, place int not null unique,
                            double int generated always as (place * 2) stored, label text default 'none');
    create table app.tree (id int primary key, parent int references app.tree on delete cascade, v text);
    create table app.parent (id int primary key, code text unique);
    create table app.child (id int primary key, parent int references app.parent on update cascade on delete set null,
                            code text references app.parent (code) on delete cascade);
    create table app.loose (a int, b numeric, c text);
    create table app.log (id serial primary key, v text);

    create table app.hashed (id int primary key, v text) partition by hash (id);
    create table app.hashed_0 partition of app.hashed for values with (modulus 3, remainder 0);
    create table app.hashed_1 partition of app.hashed for values with (modulus 3, remainder 1);
    create table app.hashed_2 partition of app.hashed for values with (modulus 3, remainder 2);
    create table app.event (id int, day date, region text, v text, primary key (day, id, region))
      partition by range (day);
    create table app.event_a partition of app.event for values from ('2026-01-01') to ('2026-02-01')
      partition by list (region);
    create table app.event_a_eu partition of app.event_a for values in ('eu', 'uk');
    create table app.event_a_rest partition of app.event_a default;
    create table app.event_b partition of app.event for values from ('2026-02-01') to ('2026-03-01');
    create table app.bag (a int, b text) partition by list (a);
    create table app.bag_low partition of app.bag for values in (0, 1, 2);
    create table app.bag_rest partition of app.bag default;
    create table app.animal (id int primary key, name text);
    create table app.dog (tricks text[], primary key (id)) inherits (app.animal);
    create table app.booking (id int primary key, slot int references app.hashed on delete cascade);
    ${major < 15 ? '' : 'create table app.nulls (id int primary key, a int, b int, unique nulls not distinct (a, b));'}
    ${major < 17 ? '' : 'create table app.numbered (id int generated by default as identity, v text, primary key (id)) partition by range (id); create table app.numbered_1 partition of app.numbered for values from (0) to (1000);'}
    ${major < 18 ? '' : 'create table app.virtual (id int primary key, a int, twice int generated always as (a * 2) virtual);'}
  `;
}

/** Rows of the source before the sync begins. */
export function rows(major: number): string {
  return `
    ${everyRows(major, 0)}
    insert into app.numbers select n / 10.0, n from generate_series(1, 50) n;
    insert into app.numbers values ('NaN', 'nan'), ('1e-20', 'tiny');
    insert into app.moods select m, timestamptz '2026-01-01' + interval '1 day' * n + interval '1 hour' * length(m::text), n
      from unnest(enum_range(null::app.mood)) m, generate_series(1, 20) n;
    insert into app.shelf (place) select generate_series(1, 200);
    insert into app.tree select n, nullif(n / 2, 0), n from generate_series(1, 100) n;
    insert into app.parent select n, 'c' || n from generate_series(1, 100) n;
    insert into app.child select n, 1 + n % 100, 'c' || (1 + n % 90) from generate_series(1, 300) n;
    insert into app.loose select n % 7, n % 3, 'x' from generate_series(1, 100) n;
    insert into app.hashed select n, n from generate_series(1, 300) n;
    insert into app.event select n, date '2026-01-01' + n % 59, (array['eu','us','uk'])[1 + n % 3], n from generate_series(1, 300) n;
    insert into app.bag select n % 5, 'x' from generate_series(1, 100) n;
    insert into app.animal select n, 'a' from generate_series(1, 50) n;
    insert into app.dog select n, 'd', array['sit'] from generate_series(25, 75) n;
    insert into app.booking select n, n from generate_series(1, 100) n;
    ${major < 15 ? '' : 'insert into app.nulls values (1, null, null), (2, 1, null), (3, null, 1);'}
    ${major < 17 ? '' : 'insert into app.numbered (v) select n from generate_series(1, 50) n;'}
    ${major < 18 ? '' : 'insert into app.virtual select n, n from generate_series(1, 50) n;'}
  `;
}

/** One row for each value that some type has, the others taking turns; ids from `from` on. */
function everyRows(major: number, from: number): string {
  const samples = samplesFor(major);
  const count = Math.max(...samples.map(({ values }) => values.length));
  const tuples = Array.from({ length: count }, (_, row) => {
    const cells = samples.map(({ type, values }) => `(${values[row % values.length]})::${type}`);
    return `(${from + row}, ${cells.join(', ')})`;
  });
  return `insert into app.every values ${tuples.join(',\n')}, (${from + count}${', null'.repeat(samples.length)});`;
}

/** Transactions for the source, one a string. `own` is the source's major. */
export function changes(major: number, own: number): string[] {
  const shift = samplesFor(major).map((_, i) => `v${i} = n.v${i}`);
  return [
    everyRows(major, 100),
    `update app.every e set ${shift.join(', ')} from app.every n where n.id = (e.id + 1) % 6 and e.id < 100`,
    'delete from app.every where id = 103; update app.every set id = -id where id > 100',

    `update app.numbers set n = -n, v = v || '!' where n <> 'NaN';
     update app.numbers set n = -2.50 where n = -2.5; delete from app.numbers where v = '7!'`,
    `update app.moods set m = case m when 'glad' then 'sad' when 'sad' then 'glad' else m end::app.mood;
     insert into app.moods values ('calm', 'infinity', 'last') on conflict do nothing`,

    // Unique values that swap owners and shift, identities, columns that the target generates itself.
    `begin; update app.shelf set place = -place; update app.shelf set place = -place + 1 where id > 1;
     update app.shelf set place = 1 where id = 1; commit`,
    "insert into app.shelf (place, label) values (1000, null), (1001, 'b'); delete from app.shelf where place = 50",
    'update app.tree set id = id + 1000 where id > 60; delete from app.tree where id = 3; insert into app.tree values (5000, 1)',
    `update app.parent set id = id + 500 where id < 20; delete from app.parent where id between 30 and 40;
     begin; update app.parent set code = '?' where code = 'c95'; update app.parent set code = 'c95' where code = 'c96';
     update app.parent set code = 'c96' where code = '?'; commit`,

    // Without a key: duplicates count.
    "insert into app.loose select 1, 1.0, 'x' from generate_series(1, 3); delete from app.loose where a = 2; update app.loose set b = 1.00 where a = 1",

    `update app.bag set a = 4 where a = 1; delete from app.bag where a = 3; insert into app.bag values (0, null), (0, null);
     begin; truncate app.bag_low; insert into app.bag values (2, 'y'); commit`,
    `update app.animal set name = name || '!' where id between 20 and 30; delete from only app.animal where id < 10;
     update app.dog set id = id + 100 where id > 70; delete from app.animal where id = 40`,

    // Rows that change their partition, writes that name a leaf, a leaf that is truncated.
    `update app.hashed set id = id + 1000 where id % 2 = 0 and id > 100;
     insert into app.hashed values (7, 'seven'), (5000, 'new') on conflict (id) do update set v = excluded.v`,
    own < 15
      ? 'update app.hashed set id = id + 10000 where id between 201 and 260'
      : `merge into app.hashed h using generate_series(201, 260) s(id) on s.id = h.id
           when matched then update set id = h.id + 10000;
         merge into app.event e using (values (1, 'merged')) s(id, v) on e.id = s.id
           when matched then update set v = s.v when not matched then insert values (s.id, '2026-01-01', 'eu', s.v)`,
    `update app.event set day = day + 31, region = 'us' where day < '2026-01-20' and region = 'eu';
     update app.event set region = 'uk' where region = 'us' and day < '2026-02-01';
     insert into app.event_a_eu values (9000, '2026-01-05', 'eu', 'direct'); delete from app.event_b where id % 5 = 0`,
    'truncate app.event_a_rest',

    `begin; insert into app.log (v) select 'before'; truncate app.log restart identity; insert into app.log (v) values ('a'), ('b'); commit`,
    `begin; truncate app.parent cascade; insert into app.parent values (1, 'one'); insert into app.child values (1, 1, 'one'); commit`,

    // Two-phase, committed in another order than prepared.
    `begin; insert into app.log (v) values ('first'); update app.tree set v = 'p1' where id = 1; prepare transaction 'p1';
     begin; insert into app.log (v) values ('second'); update app.tree set v = 'p2' where id = 2; prepare transaction 'p2';
     begin; delete from app.tree where id = 5000; prepare transaction 'p3'`,
    `commit prepared 'p2'`,
    `rollback prepared 'p3'`,
    `commit prepared 'p1'`,

    ...(major < 15
      ? []
      : ['begin; delete from app.nulls where id = 1; insert into app.nulls values (9, null, null); commit']),
    ...(major < 17
      ? []
      : [
          "update app.numbered set id = id + 100; insert into app.numbered (id, v) overriding user value values (7, 'x')",
        ]),
    ...(major < 18
      ? []
      : ['update app.virtual set a = -a; update app.virtual set id = id + 1000 where id > 25']),
  ];
}
