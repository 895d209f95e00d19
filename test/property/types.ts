/**
 * The column types of random tables, each with a small pool of literals, so that rows clash, change keys and come
 * back. Pools hold values that are equal and still different data: 1.0 and 1.00, 'a' and 'A' where case is ignored.
 */

export interface ColumnType {
  readonly sql: string;
  readonly pool: readonly string[];
  /** Has a B-tree, so that a key, a unique index or a foreign key can be made of it. */
  readonly keys: boolean;
  /** Numbers that an UPDATE can shift and negate. */
  readonly shifts?: boolean;
}

const text = (...values: string[]) => values.map((value) => `'${value}'`);

export const INTEGER: ColumnType = {
  sql: 'int4',
  pool: Array.from({ length: 16 }, (_, i) => String(i - 4)),
  keys: true,
  shifts: true,
};

export const TYPES: readonly ColumnType[] = [
  INTEGER,
  { ...INTEGER, sql: 'int8' },
  { ...INTEGER, sql: 'int2' },
  {
    sql: 'numeric',
    pool: ['0', '1', '1.0', '1.00', '-1', '-1.0', '2', '2.50', '2.5', "'NaN'", '1e30', '1e-30', "'Infinity'"],
    keys: true,
    shifts: true,
  },
  { sql: 'numeric(12,3)', pool: ['0', '1', '1.5', '-1.5', '2', '99.125'], keys: true, shifts: true },
  { sql: 'float8', pool: ["'-0'", '0', '1', '0.1', "'NaN'", "'-Infinity'", '5e-324', '2'], keys: true },
  {
    sql: 'text',
    pool: text('', 'a', 'A', 'á', 'b', 'ß', ' ', 'null', '\\', 'é', 'é', 'zz', 'y'),
    keys: true,
  },
  {
    sql: 'text collate public.folded',
    pool: text('a', 'A', 'á', 'b', 'B', 'c', 'C', 'd', 'e', 'f'),
    keys: true,
  },
  { sql: 'public.citext', pool: text('a', 'A', 'b', 'B', 'c', 'd', 'e', 'F', 'f'), keys: true },
  { sql: 'varchar(12)', pool: text('', 'a', 'a ', 'b', 'bb', 'c', 'd', 'e'), keys: true },
  { sql: 'char(4)', pool: text('', 'a', 'ab', 'abc', 'b', 'c'), keys: true },
  { sql: 'bool', pool: ['true', 'false'], keys: false },
  {
    sql: 'date',
    pool: text('2020-01-01', '2020-02-29', 'infinity', '-infinity', '0044-03-15 BC', '1970-01-01'),
    keys: true,
  },
  {
    sql: 'timestamptz',
    pool: text('2020-01-01 00:00:00+00', '2020-01-01 00:00:00.000001+00', 'infinity', '1900-01-01 12:00+01'),
    keys: true,
  },
  { sql: 'interval', pool: text('1 day', '24 hours', '1 mon', '30 days', '-1 sec', '0'), keys: true },
  {
    sql: 'uuid',
    pool: Array.from({ length: 10 }, (_, i) => `'00000000-0000-4000-8000-00000000000${i}'`),
    keys: true,
  },
  { sql: 'bytea', pool: text('\\x', '\\x00', '\\x0001ff', '\\xdeadbeef', '\\x5c'), keys: true },
  { sql: 'json', pool: text('{}', '{"a":1,"a":2}', '{ "b" : [1,2] }', '"x"', 'null'), keys: false },
  { sql: 'jsonb', pool: text('{}', '{"a":1}', '[1,2,3]', '1.0', '1.00', 'null'), keys: true },
  { sql: 'inet', pool: text('10.0.0.1', '10.0.0.1/8', '::1', '192.168.0.0/24'), keys: true },
  { sql: 'public.mood', pool: text('sad', 'ok', 'happy', 'a, "b"'), keys: true },
  { sql: 'public.mood[]', pool: text('{}', '{sad,ok}', '{"a, \\"b\\"",NULL}', '[0:1]={ok,ok}'), keys: true },
  { sql: 'public.positive', pool: ['1', '2', '3', '4', '5', '6', '7', '8'], keys: true },
  { sql: 'public.word', pool: text('a', 'b', 'c', 'dd', 'e'), keys: true },
  { sql: 'public.point3', pool: text('(1,2,x)', '(1,,)', '(0,0,"a, b")'), keys: true },
  { sql: 'int4[]', pool: text('{}', '{1,2}', '{{1,2},{3,4}}', '[-1:0]={7,8}', '{NULL}'), keys: true },
  { sql: 'text[]', pool: text('{}', '{a,"b c"}', '{NULL,"NULL"}', '{"\\\\"}'), keys: true },
  { sql: 'int4range', pool: text('empty', '[1,3)', '[2,5)', '[5,)', '(,0)', '[10,11)'), keys: true },
  { sql: 'varbit', pool: ["B''", "B'1'", "B'0101'", "B'000000001'"], keys: true },
  { sql: 'xml', pool: text('<a/>', '<a>b</a>', 'x'), keys: false },
  { sql: 'point', pool: text('(1,2)', '(-0,0)', '(NaN,1)'), keys: false },
];

export const KEY_TYPES = TYPES.filter((type) => type.keys);

/** What the types need, on both sides; the extension is installed by a superuser. */
export const TYPE_DEFINITIONS = `
  create collation public.folded (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
  create type public.mood as enum ('sad', 'ok', 'happy', 'a, "b"');
  create domain public.positive as int4 check (value > 0);
  create domain public.word as text check (length(value) < 10);
  create type public.point3 as (x int4, y numeric, label text);`;
