/** Values for keys of every type that can be one. */

export interface KeyType {
  /** As in a column definition. */
  readonly type: string;
  /** Literals, all of them different keys: four, or two where there are no more. */
  readonly values: readonly [string, string, ...string[]];
  /** Pairs of literals that are equal, and not the same. */
  readonly twins?: readonly (readonly [string, string])[];
}

function key(type: string, values: KeyType['values'], ...twins: (readonly [string, string])[]): KeyType {
  return { type, values, twins };
}

/** Of pg_catalog. */
export const BUILT_IN: readonly KeyType[] = [
  { type: 'boolean', values: ['false', 'true'] },
  key('"char"', ['a', '\\200', '', 'z']),
  key('smallint', ['0', '-32768', '32767', '1']),
  key('integer', ['0', '-2147483648', '2147483647', '1']),
  key('bigint', ['0', '-9223372036854775808', '9223372036854775807', '1']),
  key('numeric', ['NaN', 'Infinity', `1${'0'.repeat(999)}.5`, '-1'], ['1.0', '1.00'], ['0', '0.000']),
  key('real', ['NaN', '-Infinity', '1e-45', '3.4028235e38'], ['0', '-0']),
  key('double precision', ['NaN', 'Infinity', '5e-324', '0.1'], ['-0', '0']),
  key('money', ['$1.00', '-$1.00', '$92233720368547758.07', '$0.01']),
  key('text', ['', 'a', 'A', 'ä\\x "\'']),
  key('character varying', ['', 'a', 'A', 'a ']),
  key('bpchar', ['', 'a', 'A', ' b'], ['x', 'x  ']),
  key('name', ['', 'a', 'A', 'b"']),
  key('bytea', ['', '\\x00', '\\x0001', '\\xff']),
  key('uuid', [
    '00000000-0000-0000-0000-000000000000',
    'ffffffff-ffff-ffff-ffff-ffffffffffff',
    '00000000-0000-0000-0000-000000000001',
    'a0000000-0000-0000-0000-000000000000',
  ]),
  key('date', ['infinity', '-infinity', '4713-01-01 BC', '2024-02-29']),
  key('time without time zone', ['00:00', '24:00', '12:34:56.123456', '00:00:00.000001']),
  key('time with time zone', ['00:00+00', '24:00-15:59', '12:00+01', '13:00+02']),
  key('timestamp without time zone', [
    'infinity',
    '-infinity',
    '4713-01-01 00:00 BC',
    '2024-02-29 12:34:56.123456',
  ]),
  key('timestamp with time zone', [
    'infinity',
    '-infinity',
    '4713-01-01 00:00+00 BC',
    '2024-02-29 12:34:56.123456+05',
  ]),
  key(
    'interval',
    ['0', '178000000 years', '-1 us', '1 mon -1 day 00:00:01'],
    ['1 day', '24 hours'],
    ['1 mon', '30 days'],
  ),
  { type: 'bit', values: ['0', '1'] },
  key('bit varying', ['', '0', '00', '1']),
  key('inet', ['10.0.0.1', '10.0.0.1/8', '::1', '10.0.0.0/8']),
  key('cidr', ['10.0.0.0/8', '10.0.0.0/16', '::/0', '0.0.0.0/0']),
  key('macaddr', ['00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '08:00:2b:01:02:03', '08:00:2b:01:02:04']),
  key('macaddr8', [
    '00:00:00:00:00:00:00:00',
    'ff:ff:ff:ff:ff:ff:ff:ff',
    '08:00:2b:01:02:03:04:05',
    '08:00:2b:01:02:03:04:06',
  ]),
  key(
    'jsonb',
    ['null', '{"a": [1, {"b": ""}]}', '[]', '"1"'],
    ['1.0', '1.00'],
    ['{"a": 1.5}', '{"a": 1.50}'],
  ),
  key('oid', ['0', '4294967295', '1', '2']),
  key('tid', ['(0,0)', '(4294967295,65535)', '(0,1)', '(1,0)']),
  key('xid8', ['0', '18446744073709551615', '1', '2']),
  key('pg_lsn', ['0/0', 'FFFFFFFF/FFFFFFFF', '0/1', '1/0']),
  key('oidvector', ['', '0', '1 2', '1 3']),
  key('tsvector', ['', 'a', "'a':1A,3 'b':2", "'A'"]),
  key('tsquery', ["'a'", "'a' & 'b'", "!'a'", "'a' <2> 'b':*"]),
  key('regproc', ['pg_catalog.now', '-', 'pg_catalog.version', 'pg_catalog.pi']),
  key('regprocedure', ['pg_catalog.abs(integer)', '-', 'pg_catalog.abs(bigint)', 'pg_catalog.pi()']),
  key('regoper', ['pg_catalog.||/', '0', 'pg_catalog.|/', 'pg_catalog.!!']),
  key('regoperator', [
    'pg_catalog.+(integer,integer)',
    '0',
    'pg_catalog.-(integer,integer)',
    'pg_catalog.+(NONE,integer)',
  ]),
  key('regclass', ['pg_catalog.pg_class', '-', 'pg_catalog.pg_proc', 'pg_catalog.pg_type']),
  key('regtype', ['integer', '-', 'text[]', 'pg_catalog."char"']),
  key('regconfig', ['pg_catalog.english', '-', 'pg_catalog.simple', 'pg_catalog.german']),
  key('regdictionary', ['pg_catalog.simple', '-', 'pg_catalog.english_stem', 'pg_catalog.german_stem']),
  key('regrole', ['pg_monitor', '-', 'postgres', 'pg_read_all_data']),
  key('regnamespace', ['pg_catalog', '-', 'public', 'information_schema']),
  key('regcollation', ['pg_catalog."C"', '-', 'pg_catalog."POSIX"', 'pg_catalog."default"']),
  key('int4range', ['empty', '[1,2)', '(,)', '[5,)']),
  key('int8range', ['empty', '[1,2)', '(,)', '[5,)']),
  key('numrange', ['empty', '[1,2)', '(,)', '(1,2]'], ['[1.0,3)', '[1.00,3)']),
  key('daterange', ['empty', '[2024-01-01,2024-01-02)', '(,)', '[infinity,)']),
  key('tsrange', ['empty', '[2024-01-01,2024-01-02)', '(,)', '[infinity,]']),
  key('tstzrange', ['empty', '[2024-01-01 00:00+00,2024-01-02 00:00+00)', '(,)', '(,infinity)']),
  key('int4multirange', ['{}', '{[1,2)}', '{[1,2),[5,)}', '{(,)}']),
  key('int8multirange', ['{}', '{[1,2)}', '{[1,2),[5,)}', '{(,)}']),
  key('nummultirange', ['{}', '{[1,2)}', '{[1,2),[5,)}', '{(,)}'], ['{[1.0,3)}', '{[1.00,3)}']),
  key('datemultirange', ['{}', '{[2024-01-01,2024-01-02)}', '{[infinity,)}', '{(,)}']),
  key('tsmultirange', ['{}', '{[2024-01-01,2024-01-02)}', '{[infinity,]}', '{(,)}']),
  key('tstzmultirange', ['{}', '{[2024-01-01 00:00+00,2024-01-02 00:00+00)}', '{[infinity,]}', '{(,)}']),
];

/** Of the extensions that `KEY_EXTENSIONS` names. */
export const OF_EXTENSIONS: readonly KeyType[] = [
  key('citext', ['', 'b', 'c', 'ä'], ['a', 'A'], ['straße', 'STRAßE']),
  key('ltree', ['', 'a', 'a.b', 'A']),
  key('hstore', ['', 'a=>1', 'a=>NULL', 'a=>1,b=>2']),
  key('cube', ['(0)', '(0),(1)', '(0,1)', '(1e-300)']),
  key('seg', ['0', '0 .. 1', '< 1', '1 ..']),
  key('ean13', ['4006381333931', '0000000000000', '4006381333948', '5901234123457']),
  key('isbn13', ['978-0-306-40615-7', '979-12-200-0852-5', '978-3-16-148410-0', '978-0-14-103614-4']),
  key('isbn', ['0-306-40615-2', '3-16-148410-X', '0-14-103614-1', '979-12-200-0852-5']),
  key('ismn13', ['979-0-060-11561-5', '979-0-2600-0043-8', '979-0-3452-4680-5', '979-0-000-00000-1']),
  key('ismn', ['M-060-11561-5', 'M-2600-0043-8', 'M-3452-4680-5', 'M-000-00000-1']),
  key('issn13', ['977-1436-452-00-8', '977-0317-847-00-1', '977-0378-595-00-2', '977-2049-363-00-2']),
  key('issn', ['1436-4522', '0317-8471', '0378-5955', '2049-3630']),
  key('upc', ['220356483481', '000000000000', '036000291452', '012345678905']),
];

export const KEY_EXTENSIONS = ['citext', 'ltree', 'hstore', 'cube', 'seg', 'isn'];

/** What the application makes of them, with the DDL. */
export const OF_THE_APPLICATION = {
  ddl: `
    create type mood as enum ('sad', 'ok', 'it''s "great"', '');
    create type pair as (a numeric, b citext);
    create type span as range (subtype = numeric);
    create domain amount as numeric(20, 5) not null check (value < 1000);
    create domain word as citext check (value <> '');
    create domain moods as mood[];
    create collation ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)`,
  types: [
    key('mood', ['sad', 'ok', `it's "great"`, '']),
    key('pair', ['(1,b)', '(,)', '(3,"")', '(2,"b c")'], ['(1.0,a)', '(1.00,a)'], ['(5,a)', '(5.0,A)']),
    key('span', ['empty', '[1,2)', '(,)', '(1,2]'], ['[1.0,3)', '[1.00,3)']),
    key('amount', ['1', '2', '3', '4.5']),
    key('word', ['b', 'c', 'd', 'e'], ['a', 'A']),
    key('moods', ['{}', '{sad}', '{sad,NULL}', '[0:1]={ok,ok}']),
    key('text collate ignore_case', ['', 'b', 'c', 'd'], ['a', 'A'], ['ß x', 'ß X']),
    key('varchar(20) collate ignore_case', ['', 'b', 'c', 'd'], ['a', 'A']),
    key('text[] collate ignore_case', ['{}', '{b}', '{b,c}', '{d}'], ['{a}', '{A}']),
    key('char(5)', ['a', 'A', '', 'abcde']),
    key('numeric(10,2)', ['1', '2', '3', '-0.01']),
    key('bit(3)', ['000', '001', '010', '111']),
    key('timestamptz(0)', ['2024-01-01 00:00:01+00', 'infinity', '2024-01-01+00', '1999-01-01+00']),
  ] satisfies KeyType[],
};
