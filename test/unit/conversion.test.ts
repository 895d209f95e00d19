/** Which values arrive as they are, and in which form a column travels. */
import { describe, expect, test } from 'vitest';
import { carries, encodingsAgree, travelsBinary } from '../../src/core/conversion.ts';
import { planTable, wireType } from '../../src/core/planner.ts';
import type { CapturedTable, ColumnInfo, TypeInfo } from '../../src/core/table.ts';

/** A built-in type with a binary form that every server understands. */
function builtin(name: string, more: Partial<TypeInfo> = {}): TypeInfo {
  const quoted = `pg_catalog.${name}`;
  return {
    name: quoted,
    declared: quoted,
    shown: name,
    identity: name,
    kind: 'base',
    typmod: -1,
    binary: 0,
    equals: '=',
    toText: null,
    fromText: null,
    readable: true,
    parts: [],
    ...more,
  };
}

/** A type of the application or of an extension. */
function own(name: string, more: Partial<TypeInfo> = {}): TypeInfo {
  const quoted = `public.${name}`;
  return { ...builtin(name), name: quoted, declared: quoted, identity: quoted, binary: null, ...more };
}

function arrayOf(type: TypeInfo, more: Partial<TypeInfo> = {}): TypeInfo {
  return {
    ...type,
    kind: 'array',
    identity: `_${type.identity}`,
    parts: [{ name: 'element', type }],
    ...more,
  };
}

const numeric = (precision: number, scale: number) =>
  builtin('numeric', { typmod: ((precision << 16) | (scale & 0x7ff)) + 4 });
const limited = (name: string, typmod: number) => builtin(name, { typmod });
const mood = own('mood', { kind: 'enum' });
const hstore = own('hstore', { identity: 'extension hstore.hstore' });
const point = (...attributes: [string, TypeInfo][]) =>
  own('pair', { kind: 'composite', parts: attributes.map(([name, type]) => ({ name, type })) });

describe('values arrive as they are', () => {
  const [int2, int4, int8] = [builtin('int2'), builtin('int4'), builtin('int8')];
  const [text, json, jsonb] = [builtin('text'), builtin('json'), builtin('jsonb')];
  test.each<[string, TypeInfo, TypeInfo]>([
    ['the same type', int4, int4],
    ['a wider integer', int2, int8],
    ['an integer as numeric', int8, builtin('numeric')],
    ['an integer as a numeric with digits enough', int4, numeric(10, 0)],
    ['numeric without limits', numeric(10, 2), builtin('numeric')],
    ['numeric with more digits before the point', numeric(10, 2), numeric(12, 2)],
    ['numeric of a negative scale', numeric(5, -2), numeric(6, -2)],
    ['more precise timestamps', limited('timestamp', 3), limited('timestamp', 6)],
    ['timestamps of six digits, which is all there are', builtin('timestamptz'), limited('timestamptz', 6)],
    ['a longer varchar', limited('varchar', 14), limited('varchar', 24)],
    ['text', limited('varchar', 14), text],
    ['char as text, its blanks included', limited('bpchar', 9), text],
    ['an enum as text', mood, text],
    ['a label as an enum', text, mood],
    ['another enum: labels that it lacks are errors', mood, own('feeling', { kind: 'enum' })],
    ['jsonb as json', jsonb, json],
    ['an extension type in another schema', hstore, { ...hstore, name: 'contrib.hstore' }],
    ['a domain', int4, { ...int4, declared: 'public.positive' }],
    ['an array of a wider type', arrayOf(int4), arrayOf(int8)],
    ['an array of longer strings', arrayOf(limited('varchar', 9)), arrayOf(limited('varchar', 10))],
    ['a composite with a wider attribute', point(['x', int4]), point(['x', int8])],
  ])('%s', (_, source, target) => {
    expect(carries(source, target)).toBe(true);
  });

  test.each<[string, TypeInfo, TypeInfo]>([
    ['a narrower integer', int8, int4],
    ['a numeric with too few digits for the integer', int8, numeric(10, 0)],
    ['a smaller scale, which rounds', numeric(10, 4), numeric(10, 2)],
    ['a larger scale, which adds zeros', numeric(10, 2), numeric(12, 4)],
    ['numeric into limits', builtin('numeric'), numeric(10, 2)],
    ['timestamps to the second', builtin('timestamp'), limited('timestamp', 0)],
    ['a timestamp into one with a zone', builtin('timestamp'), builtin('timestamptz')],
    ['a shorter varchar, which cuts blanks', limited('varchar', 24), limited('varchar', 14)],
    ['text into a limit', text, limited('varchar', 14)],
    ['text as char, which pads', text, limited('bpchar', 9)],
    ['a longer char, which pads', limited('bpchar', 9), limited('bpchar', 14)],
    ['text as a number: 007', text, int4],
    ['text as json', text, json],
    ['json as jsonb: duplicate keys', json, jsonb],
    ['less precise floats', builtin('float8'), builtin('float4')],
    ['floats: neither the number nor the text could stay', builtin('float4'), builtin('float8')],
    ['an interval into fields', builtin('interval'), limited('interval', 0x7fff)],
    ['bits of another number', limited('bit', 3), limited('bit', 5)],
    ['a type of another name', own('a'), own('b')],
    ['attributes in another order', point(['x', int4], ['y', int4]), point(['y', int4], ['x', int4])],
    ['one attribute more', point(['x', int4]), point(['x', int4], ['y', int4])],
    ['boxes in an array, which are parted by semicolons', arrayOf(builtin('box')), arrayOf(text)],
    ['a type to which nothing but a function leads', mood, { ...mood, readable: false }],
  ])('or not: %s', (_, source, target) => {
    expect(carries(source, target)).toBe(false);
  });
});

describe('the form in which a column travels', () => {
  const interval = (binary: number) => builtin('interval', { binary });
  test('binary where both sides have the same built-in type, as it is noted where it is noted', () => {
    expect(wireType(builtin('timestamptz'), builtin('timestamptz'), null)).toBe('pg_catalog.timestamptz');
    expect(wireType(builtin('int4'), builtin('int4'), 'pg_catalog.int8')).toBe('pg_catalog.int8');
    expect(wireType(numeric(10, 2), builtin('numeric'), null)).toBe('pg_catalog.numeric');
    expect(wireType(builtin('int4', { declared: 'public.positive' }), builtin('int4'), null)).toBe(
      'pg_catalog.int4',
    );
  });

  test('int8 for integers of different sizes that are noted as such', () => {
    expect(wireType(builtin('int4'), builtin('int8'), 'pg_catalog.int8')).toBe('pg_catalog.int8');
    expect(wireType(builtin('int4'), builtin('int8'), null)).toBe('pg_catalog.text');
  });

  test('text for everything with a server of its own inside', () => {
    expect(wireType(mood, mood, 'pg_catalog.text')).toBe('pg_catalog.text');
    expect(wireType(hstore, hstore, null)).toBe('pg_catalog.text');
    expect(wireType(builtin('regclass', { binary: null }), builtin('regclass', { binary: null }), null)).toBe(
      'pg_catalog.text',
    );
    expect(wireType(builtin('uuid'), builtin('text'), 'pg_catalog.uuid')).toBe('pg_catalog.text');
  });

  test('intervals are text on their way to a server that knows none without end', () => {
    expect(travelsBinary(interval(170_000), interval(0))).toBe(false);
    expect(travelsBinary(interval(0), interval(170_000))).toBe(true);
    expect(travelsBinary(interval(170_000), interval(170_000))).toBe(true);
  });
});

describe('a plan', () => {
  const column = (name: string, type: TypeInfo, more: Partial<ColumnInfo> = {}): ColumnInfo => ({
    number: 1,
    name,
    type,
    looseCollation: null,
    generated: false,
    formula: null,
    virtual: false,
    identityAlways: false,
    notNull: false,
    hasDefault: false,
    ...more,
  });
  const table = (...columns: ColumnInfo[]): CapturedTable => ({
    schema: 'public',
    name: 't',
    relid: 1,
    kind: 'r',
    isPartition: false,
    columns,
    mode: 'key',
    outline: '',
    noted: [columns[0]?.name ?? ''],
    notedTypes: ['pg_catalog.text'],
  });

  test('names every column that does not fit, and the DDL for the target', () => {
    const source = table(
      column('a', builtin('text')),
      column('b', numeric(10, 4)),
      column('c', builtin('json')),
    );
    const target = table(
      column('a', builtin('text')),
      column('b', numeric(10, 2)),
      column('c', builtin('jsonb')),
    );
    expect(() => planTable(source, target)).toThrow(
      /public\.t: .*column b is .*, column c is json on the source and jsonb/,
    );
    expect(() => planTable(source, target)).toThrow(
      expect.objectContaining({
        kind: 'schema_mismatch',
        table: 'public.t',
        hint: expect.stringContaining('alter column "c" type json'),
      }),
    );
  });

  test('refuses a key whose sides disagree on which keys are equal', () => {
    const collated = (definition: string) =>
      table(column('a', builtin('text'), { looseCollation: { name: 'public.ci', definition } }));
    const plain = (type: TypeInfo) => table(column('a', type));
    const loose = collated('i und-u-ks-level2');
    for (const [one, other] of [
      [loose, plain(builtin('text'))],
      [plain(builtin('text')), loose],
      [loose, collated('i und-u-ks-level1')],
      [plain(builtin('text')), plain(own('citext', { identity: 'extension citext.citext' }))],
    ] as const) {
      expect(() => planTable(one, other)).toThrow(/key column a is .* they disagree on which keys are equal/);
    }
    expect(() => planTable(loose, collated('i und-u-ks-level2'))).not.toThrow();
    expect(() => planTable(plain(builtin('int4')), plain(builtin('numeric')))).not.toThrow();
    expect(() => planTable(plain(builtin('varchar')), plain(builtin('text')))).not.toThrow();
  });
});

test('text without an encoding goes only where its bytes stay what they are', () => {
  expect(encodingsAgree('LATIN1', 'UTF8')).toBe(true);
  expect(encodingsAgree('SQL_ASCII', 'SQL_ASCII')).toBe(true);
  expect(encodingsAgree('SQL_ASCII', 'UTF8')).toBe(true);
  expect(encodingsAgree('UTF8', 'SQL_ASCII')).toBe(true);
  expect(encodingsAgree('SQL_ASCII', 'LATIN1')).toBe(false);
  expect(encodingsAgree('LATIN1', 'SQL_ASCII')).toBe(false);
});
