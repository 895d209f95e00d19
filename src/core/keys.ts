/**
 * What identifies a row, on both sides: how keys are compared, and which keys cannot be. Pure.
 *
 * Values can be equal and not the same: 1.0 and 1.00, or 'a' and 'A' where case does not count. A key of such a type
 * stands for one row however it is written, so everything that groups, joins or looks up keys goes by the equality
 * of their type and collation, and the row brings its key along as it is.
 */
import { TEXT } from './conversion.ts';
import { IbexError } from './errors.ts';
import { type KeyMatch, type TableName, tableLabel, type Wrap } from './plan.ts';
import type { CapturedTable, ColumnInfo, TableInfo, TypeInfo } from './table.ts';

/** Types whose equal values are the same bytes; text where its collation leaves it at that. */
const EXACT = new Set(
  (
    'bool bytea char name int2 int4 int8 oid text varchar uuid date time timetz timestamp timestamptz money bit ' +
    'varbit inet cidr macaddr macaddr8 pg_lsn xid8 tid'
  ).split(' '),
);

function isExact({ type, looseCollation }: ColumnInfo): boolean {
  return looseCollation === null && (type.kind === 'enum' || EXACT.has(type.identity));
}

/** Types whose values are the text that is noted or staged of them. */
function isText({ identity }: TypeInfo): boolean {
  return identity === 'text' || identity === 'varchar';
}

/** How a column of the key is compared, given the types in which it is noted and travels. */
export function matchKey(
  source: ColumnInfo,
  target: ColumnInfo,
  notedType: string | null,
  wire: string,
): KeyMatch {
  const noted = notedType === TEXT && !isText(source.type) ? fromText(source.type) : undefined;
  const staged = wire === TEXT && !isText(target.type) ? fromText(target.type) : undefined;
  const [before, after] = noted ?? ['', ''];
  const collate = source.looseCollation === null ? '' : ` collate ${source.looseCollation.name}`;
  return {
    source: source.type.equals,
    target: target.type.equals,
    ...(noted !== undefined || collate !== '' ? { noted: [before, `${after}${collate}`] } : {}),
    ...(staged === undefined ? {} : { staged }),
    exact: isExact(target),
  };
}

/** Of the type itself, not of a domain: what is gone may have been written before a CHECK was added to it. */
function fromText(type: TypeInfo): Wrap {
  const [before, after] = type.fromText ?? ['', ''];
  return [before, `${after}::${type.name}`];
}

/**
 * The `schema_mismatch` of a key that is compared in different ways: one row of one side would stand for two of
 * the other. Where equal means the same on both sides it does not matter by what name.
 */
export function refuseUnlikeKeys(source: CapturedTable, target: TableInfo): IbexError | undefined {
  const there = new Map(target.columns.map((column) => [column.name, column]));
  const key = source.mode === 'key' ? source.noted : [];
  const unlike = source.columns.find((column) => {
    const counterpart = there.get(column.name);
    return counterpart !== undefined && key.includes(column.name) && !comparesAlike(column, counterpart);
  });
  if (unlike === undefined) return undefined;
  const label = tableLabel(source);
  const collate = unlike.looseCollation === null ? '' : ` collate ${unlike.looseCollation.name}`;
  return new IbexError(
    'schema_mismatch',
    `${label}: key column ${unlike.name} is ${describe(unlike)} on the source and ` +
      `${describe(there.get(unlike.name) as ColumnInfo)} on the target: they disagree on which keys are equal`,
    {
      table: label,
      hint: `On the target: alter table ${label} alter column "${unlike.name}" type ${unlike.type.shown}${collate};`,
    },
  );
}

function comparesAlike(source: ColumnInfo, target: ColumnInfo): boolean {
  if (isExact(source) && (isExact(target) || target.type.identity === 'numeric')) return true;
  const [one, other] = [source.type, target.type].map((type) => (isText(type) ? 'text' : type.identity));
  return one === other && source.looseCollation?.definition === target.looseCollation?.definition;
}

function describe({ type, looseCollation }: ColumnInfo): string {
  const collation =
    looseCollation === null
      ? ''
      : ` with the nondeterministic collation ${looseCollation.name} (${looseCollation.definition})`;
  return `${type.shown}${collation}`;
}

/** The `unsupported` of a table without a key where the target is written too: nothing tells its rows apart. */
export function keylessConflict(table: TableName): IbexError {
  const label = tableLabel(table);
  return new IbexError(
    'unsupported',
    `${label} has no primary key, replica identity or unique index of NOT NULL columns, and both sides may be written`,
    { table: label, hint: `Give it a primary key, or leave it out with --exclude '${label}'.` },
  );
}

/** The `unsupported` of a table without a key, where the user wants none of them. */
export function keylessRefusal(table: TableName): IbexError {
  const label = tableLabel(table);
  return new IbexError(
    'unsupported',
    `${label} has no primary key, replica identity or unique index of NOT NULL columns, and tables without key are refused`,
    {
      table: label,
      hint: `Give it a primary key, leave it out with --exclude '${label}', or allow it with --keyless carry.`,
    },
  );
}
