/**
 * What the rows on the target stand for, and whether they still do after DDL on either side. Columns are known by
 * their numbers, which a rename keeps and a column that was dropped and added again does not. Pure.
 */
import type { TablePlan } from './plan.ts';
import type { CapturedTable, ColumnInfo, TableInfo } from './table.ts';

/** A column that is carried: from where, into what. */
export interface CarriedColumn {
  /** Its number on the source, and its base type there; below 0 for what an expression makes. */
  readonly from: number;
  readonly type: string;
  /** Its number on the target, and its base type there. */
  readonly to: number;
  readonly into: string;
}

export interface Carried {
  /** The table on the target: its oid and its name. */
  readonly relation: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly CarriedColumn[];
  /** The outline of the source's table where expressions or a filter look at its columns by name; else null. */
  readonly inputs: string | null;
}

/** A column of the target that gets one value in all rows that are there. */
export interface Fill {
  readonly name: string;
  readonly type: string;
  /** As text; null is the null. */
  readonly value: string | null;
}

/** Values of columns that rows had before they were added, as text, by the column's number on the source. */
export type Ahead = Readonly<Record<string, string | null>>;

/**
 * - `same`: every row there is as the plan would carry it.
 * - `fill`: it is once these columns have these values.
 * - `renamed`: the name belongs to another table of the target now.
 * - `copy`: nobody knows; the table has to be copied again.
 */
export type Fit =
  | { readonly kind: 'same' | 'renamed' }
  | { readonly kind: 'copy'; readonly why: string }
  | { readonly kind: 'fill'; readonly columns: readonly Fill[] };

export function carriedBy(source: CapturedTable, target: TableInfo, plan: TablePlan): Carried {
  const from = byName(source.columns);
  const to = byName(target.columns);
  const columns = plan.columns.map(({ name }) => {
    const [one, other] = [from.get(name) as ColumnInfo, to.get(name) as ColumnInfo];
    return {
      from: one.expression === undefined ? one.number : -other.number,
      type: one.type.name,
      to: other.number,
      into: other.type.name,
    };
  });
  const { rule, outline } = source;
  const looks = rule !== undefined && (rule.where !== null || rule.select.length > 0);
  const inputs = looks ? outline : null;
  return { relation: target.relid, schema: target.schema, name: target.name, columns, inputs };
}

function byName(columns: readonly ColumnInfo[]): Map<string, ColumnInfo> {
  return new Map(columns.map((column) => [column.name, column]));
}

const ALTERED = 'was altered so that its rows may have changed';

/** Whether rows that were carried as `before` are what `now` would carry. */
export function judgeFit(before: Carried, now: Carried, ahead: Ahead, target: TableInfo): Fit {
  if (before.relation !== now.relation) return { kind: 'renamed' };
  if (before.inputs !== now.inputs) return { kind: 'copy', why: ALTERED };
  const known = new Map(before.columns.map((column) => [column.from, column]));
  const fills: Fill[] = [];
  for (const column of now.columns) {
    const was = known.get(column.from);
    if (was !== undefined) {
      if (!stands(was, column)) return { kind: 'copy', why: ALTERED };
      continue;
    }
    const value = ahead[column.from];
    const there = target.columns.find(({ number }) => number === column.to);
    if (value === undefined || there === undefined) return { kind: 'copy', why: ALTERED };
    fills.push({ name: there.name, type: there.type.declared, value });
  }
  return fills.length === 0 ? { kind: 'same' } : { kind: 'fill', columns: fills };
}

function stands(was: CarriedColumn, is: CarriedColumn): boolean {
  return was.to === is.to && alike(was.type, is.type) && alike(was.into, is.into);
}

/** Types whose values read the same after a column went from one to the other without being rewritten. */
const FAMILIES = [
  ['pg_catalog.text', 'pg_catalog."varchar"'],
  ['pg_catalog.int2', 'pg_catalog.int4', 'pg_catalog.int8'],
];

function alike(was: string, is: string): boolean {
  return was === is || FAMILIES.some((family) => family.includes(was) && family.includes(is));
}
