/**
 * The SQL of verify: what is asked of either side about the rows of one table. Rows are compared by their text under
 * the settings that every session pins, column by column in the order of the plan, as the output functions give it;
 * the servers sum it up, and only keys and hashes leave them.
 */
import { fromTable } from '../apply/statements.ts';
import { type Generations, rowSource, unread, wrapped } from '../capture/trigger/statements.ts';
import { TEXT } from '../core/conversion.ts';
import { type ColumnPlan, keyOf, type TablePlan } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { ident, literal, tableIdent } from '../postgres/quote.ts';

export type SideName = 'source' | 'target';

/** One side of a table: where its rows are, and how they become comparable with those of the other side. */
export interface TableSide {
  readonly side: SideName;
  readonly plan: TablePlan;
  /** Source and target have different encodings: what would be sent is compared, not what is stored. */
  readonly recoded: boolean;
}

/** The key of a row as texts, in the order of the plan. */
export type Key = readonly string[];

/** Rows from a lower bound on (included) up to an upper one (excluded), of the key's first columns; null: no bound. */
export interface Range {
  readonly from: Key | null;
  readonly to: Key | null;
}

export const EVERYTHING: Range = { from: null, to: null };

/** Keyless rows are summed up in so many parts. */
export const PARTS = 1024;

function rows({ side, plan }: TableSide): string {
  return side === 'source' ? rowSource(plan, plan, plan.only) : `${fromTable(plan)} t`;
}

/** Keeps the table from being truncated or rewritten, to which a snapshot would be blind. Takes none. */
export function lockTable({ side, plan }: TableSide): string {
  const only = side === 'source' ? plan.only : plan.targetOnly;
  return `lock table ${only ? 'only ' : ''}${tableIdent(plan)} in access share mode`;
}

/** 64 bits of a text. */
function hashOf(text: string, recoded: boolean, seed = '0'): string {
  const sent = recoded ? `pg_catalog.textsend(${text})::text` : text;
  return `pg_catalog.hashtextextended(${sent} collate "C", ${seed})`;
}

/** Built-in types whose cast to text gives what their output function gives, and is cheaper to ask for. */
const PLAIN = new Set(
  'int2 int4 int8 numeric float4 float8 text varchar date time timestamp timestamptz uuid json jsonb bytea'
    .split(' ')
    .map((name) => `pg_catalog.${name}`),
);

const isPlain = (type: string) => PLAIN.has(type.replaceAll('"', ''));

/** A value, and whether a cast gives the text of its output function. */
interface Value {
  readonly value: string;
  readonly plain: boolean;
}

function comparable(side: SideName, { name, wire, targetType, toText, expression }: ColumnPlan): Value {
  const travels = wire === TEXT ? toText === undefined : isPlain(wire);
  const plain = side === 'source' ? travels && expression === undefined : isPlain(targetType);
  return { value: `t.${ident(name)}`, plain };
}

/** Calls may be nested so deep, and no deeper, whatever the size of a server's stack. */
const NESTED = 64;

/**
 * 64 bits of the texts of all columns: each one's hash begins with that of the one before it, which is several times
 * cheaper than to make the text of a row. NULL begins otherwise than the empty text; a row of nulls is no NULL.
 */
function chainedHash(values: readonly Value[], recoded: boolean): string {
  const link = (seed: string, { value, plain }: Value) => {
    const text = plain ? `coalesce(${value}::text, '')` : `concat(${value})`;
    return hashOf(text, recoded, `num_nulls(${value}) # ${seed}`);
  };
  if (values.length <= NESTED) return values.reduce(link, '0::int8');
  const groups = Math.ceil(values.length / NESTED);
  const hashes = Array.from({ length: groups }, (_, i) =>
    chainedHash(values.slice(i * NESTED, (i + 1) * NESTED), recoded),
  );
  return hashOf(`concat_ws(' ', ${hashes.join(', ')})`, false);
}

function rowHash({ side, plan, recoded }: TableSide): string {
  return chainedHash(
    plan.columns.map((column) => comparable(side, column)),
    recoded,
  );
}

function keyText(plan: TablePlan): string {
  return `array[${keyOf(plan).map(textOf).join(', ')}]::text[]`;
}

function textOf(column: ColumnPlan): string {
  return wrapped(`t.${ident(column.name)}`, column.toText ?? ['', '::text']);
}

/** The text of a key's column, in the type and with the equality of the column itself. */
function keyValue(side: SideName, column: ColumnPlan, text: string): string {
  return side === 'source'
    ? wrapped(`${text}::${column.notedType}`, column.match?.noted)
    : wrapped(`${text}::${column.wire}`, column.match?.staged);
}

/** Columns of the key by which ranges can be told: the first ones, as far as both servers order them by built-in operators. */
export function rangeColumns(plan: TablePlan): readonly ColumnPlan[] {
  const key = keyOf(plan);
  const plain = ({ match, wire }: ColumnPlan) =>
    match?.noted === undefined && match?.staged === undefined && wire.startsWith('pg_catalog.');
  const end = key.findIndex((column) => !plain(column));
  return end < 0 ? key : key.slice(0, end);
}

function inRange({ side, plan }: TableSide, { from, to }: Range): string {
  const columns = rangeColumns(plan);
  const names = columns.map(({ name }) => `t.${ident(name)}`).join(', ');
  const bound = (key: Key, operator: string) =>
    `(${names}) ${operator} (${columns.map((one, i) => keyValue(side, one, literal(key[i] as string))).join(', ')})`;
  const bounds = [...(from === null ? [] : [bound(from, '>=')]), ...(to === null ? [] : [bound(to, '<')])];
  return bounds.length === 0 ? 'true' : bounds.join(' and ');
}

/** How large a table is: bytes with what is stored out of line, and blocks of the rows themselves. */
export const READ_SIZE = `
  select coalesce(sum(pg_table_size(m.oid)), 0)::float8 as bytes,
         (coalesce(sum(pg_relation_size(m.oid)), 0) / current_setting('block_size')::int8)::float8 as blocks
    from ibex.members($1) m(oid)`;

/** Keys of the source in their order, from about so many percent of its blocks. */
export function sampleKeys(plan: TablePlan, percent: number): string {
  const columns = rangeColumns(plan);
  const order = columns.map(({ name }) => `t.${ident(name)}`).join(', ');
  return `select array[${columns.map(textOf).join(', ')}]::text[] as key
            from ${plan.only ? 'only ' : ''}${tableIdent(plan)} t tablesample system (${percent}) order by ${order}`;
}

/** One row: how many rows a range has, and the sum of their hashes. */
export function sumRange(side: TableSide, range: Range): string {
  return `select count(*)::text as rows, coalesce(sum(${rowHash(side)}), 0)::text as sum
            from ${rows(side)} where ${inRange(side, range)}`;
}

/** Key and hash of the rows of a range; of one part of them where it is divided. */
export function listRange(side: TableSide, range: Range, part: number, parts: number): string {
  const hash = rowHash(side);
  const some =
    parts === 1
      ? ''
      : ` and mod(hashtextextended(${keyText(side.plan)}::text collate "C", 0), ${parts}) in (${part}, ${-part})`;
  return `select ${keyText(side.plan)} as key, ${hash}::text as hash from ${rows(side)}
           where ${inRange(side, range)}${some}`;
}

/** The given keys, one array of texts a column, as `k` with their number `i`. */
function givenKeys(plan: TablePlan): string {
  const columns = keyOf(plan).map((_, i) => `c${i + 1}`);
  return `unnest(${columns.map((_, i) => `$${i + 1}::text[]`).join(', ')}) with ordinality k(${columns.join(', ')}, i)`;
}

function isGiven({ side, plan }: TableSide): string {
  return keyOf(plan)
    .map(
      (column, i) =>
        `t.${ident(column.name)} ${column.match?.[side]} ${keyValue(side, column, `k.c${i + 1}`)}`,
    )
    .join(' and ');
}

/** Number and hash of those of the given keys that have a row; all hashes where nothing keeps a key from coming twice. */
export function findRows(side: TableSide): string {
  return `select r.i, string_agg(r.hash, ',' order by r.hash) as hash
            from (select k.i::int4 as i, ${rowHash(side)}::text collate "C" as hash
                    from ${givenKeys(side.plan)} join ${rows(side)} on ${isGiven(side)}) r group by r.i`;
}

/** The columns of one row: their texts, shortened, and a hash of each whole text. */
export function showRow(side: TableSide, length: number): string {
  const texts = side.plan.columns.map(textOf);
  const hashes = side.plan.columns.map(
    (column) => `${chainedHash([comparable(side.side, column)], side.recoded)}::text`,
  );
  return `select array[${texts.map((text) => `left(${text}, ${length})`).join(', ')}]::text[] as shown,
                 array[${hashes.join(', ')}]::text[] as hashes
            from ${givenKeys(side.plan)} join ${rows(side)} on ${isGiven(side)} limit 1`;
}

/** Whether the deltas that `base` does not see have such as name no key: a TRUNCATE, or what could not be told. */
export function findUntold(plan: TablePlan, generations: Generations, base: Snapshot): string {
  return `select exists (select from (${unread(plan, generations, base, 'op')}) d where d.op in ('T', '?')) as untold`;
}

/** Which transactions that `base` does not see changed which of the given keys. */
export function findChanges(plan: TablePlan, generations: Generations, base: Snapshot): string {
  const key = keyOf(plan);
  const names = key.map((_, i) => `k${i + 1}`).join(', ');
  const same = key
    .map((column, i) => {
      const noted = wrapped(`d.k${i + 1}`, column.match?.noted);
      return `${noted} ${column.match?.source} ${keyValue('source', column, `k.c${i + 1}`)}`;
    })
    .join(' and ');
  return `select k.i::int4 as i, d.xid::text as xid
            from (${unread(plan, generations, base, `${names}, op, xid`)}) d
            join ${givenKeys(plan)} on ${same} where d.op not in ('T', '?')`;
}

/** Keyless rows, in parts: how many, and the sum of their hashes. */
export function sumParts(side: TableSide): string {
  return `select (h & ${PARTS - 1})::int4 as part, count(*)::text as rows, sum(h)::text as sum
            from (select ${rowHash(side)} as h from ${rows(side)}) r group by 1`;
}

/** Hashes of the keyless rows of some parts, counted. */
export function countHashes(side: TableSide): string {
  return `select h::text as hash, count(*)::text as rows from (select ${rowHash(side)} as h from ${rows(side)}) r
           where (h & ${PARTS - 1}) = any ($1::int8[]) group by 1`;
}

/** What the deltas that `base` does not see added and removed, by the hash of the row. */
function notedRows({ plan, recoded }: TableSide, generations: Generations, base: Snapshot): string {
  const names = plan.columns.map(({ noted }) => `k${noted}`).join(', ');
  const values = plan.columns.map(({ noted, notedType }) => ({
    value: `d.k${noted}`,
    plain: notedType !== null && isPlain(notedType),
  }));
  const hash = chainedHash(values, recoded);
  return `(select ${hash} as h, case d.op when 'I' then 1 else -1 end as n
             from (${unread(plan, generations, base, `${names}, op`)}) d where d.op not in ('T', '?')) c`;
}

/** As `sumParts` of what was added, less what was removed. */
export function sumNoted(side: TableSide, generations: Generations, base: Snapshot): string {
  return `select (h & ${PARTS - 1})::int4 as part, sum(n)::text as rows, sum(h::numeric * n)::text as sum
            from ${notedRows(side, generations, base)} group by 1`;
}

/** As `countHashes` of the same. */
export function countNoted(side: TableSide, generations: Generations, base: Snapshot): string {
  return `select h::text as hash, sum(n)::text as rows from ${notedRows(side, generations, base)}
           where (h & ${PARTS - 1}) = any ($1::int8[]) group by 1`;
}

/** Some of the rows with given hashes, shortened. */
export function showRows(side: TableSide, length: number): string {
  const row = `row(${side.plan.columns.map(({ name }) => `t.${ident(name)}`).join(', ')})::text`;
  return `select distinct ${rowHash(side)}::text as hash, left(${row}, ${length}) as shown
            from ${rows(side)} where ${rowHash(side)} = any ($1::int8[])`;
}
