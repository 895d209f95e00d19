/**
 * How one table is carried: which columns travel, in which form, and what identifies a row.
 *
 * A plan is made once from both catalogs (`postgres/catalog.ts` reads them) and travels with every batch, so
 * that reader and applier agree. Node never looks at a value: the plan only names columns and types.
 */

/** A table's name as the catalogs spell it. */
export interface TableName {
  readonly schema: string;
  readonly name: string;
}

/** SQL to put before and after an expression. */
export type Wrap = readonly [before: string, after: string];

/** How the values of one column of the key are compared, on each side. */
export interface KeyMatch {
  /** The operators, as SQL that finds them whatever the search_path is. */
  readonly source: string;
  readonly target: string;
  /** What gives a noted, or a staged, value the equality of the column; undefined where it has it. */
  readonly noted?: Wrap;
  readonly staged?: Wrap;
  /** Equal values are the same bytes: one that is found need not be written. */
  readonly exact: boolean;
}

/** One column that travels. */
export interface ColumnPlan {
  readonly name: string;
  /** SQL name of the type in which the value travels and is staged, e.g. `pg_catalog.int8`. */
  readonly wire: string;
  /** SQL name of the column's type on the target, typmod left out. */
  readonly targetType: string;
  /** Source and target have the same built-in type: its binary COPY goes straight into the table. */
  readonly same: boolean;
  /** Number of the column `k<n>` in which the delta tables note it, and its type; null when they do not. */
  readonly noted: number | null;
  readonly notedType: string | null;
  /** Null for what is not part of the key. */
  readonly match: KeyMatch | null;
  /** It travels as text, and a cast to text would not give the text of its output function: what does. */
  readonly toText?: Wrap;
  /** It arrives as text, and a cast from text would not do what the input function does: what does. */
  readonly fromText?: Wrap;
  /** The target generates it, by the source's formula: part of the key, matched and never written. */
  readonly generated?: true;
  /** SQL over a row of the source that makes the value, in the place of a column. */
  readonly expression?: string;
}

/**
 * - `key`: the delta table notes keys; a batch carries each key once, with its row or the fact that it is gone.
 * - `row`: the table has no usable key; the delta table notes whole rows, added or removed, and each is carried.
 */
export type CaptureMode = 'key' | 'row';

export interface TablePlan extends TableName {
  /** The oid of the (root) table on the source: names its delta tables. */
  readonly relid: number;
  readonly mode: CaptureMode;
  /** Travelling columns; those of the key first, in key order. */
  readonly columns: readonly ColumnPlan[];
  /** How many of `columns` form the key; 0 in mode `row`. */
  readonly keyLength: number;
  /** What the source's catalog said when the plan was made; what is read under another one is void. */
  readonly outline: string;
  /** Read with ONLY: a plain table, which may have inheritance children that are tables of their own. */
  readonly only: boolean;
  /** Written with ONLY, for the same reason; the target may be partitioned where the source is not, and vice versa. */
  readonly targetOnly: boolean;
  /** SQL over a row of the source: whether it is carried at all. */
  readonly where?: string;
  /**
   * Who writes the target too: each key travels with the time of its last change, and whether it was an insert. `guard`: the
   * lane goes one way, and copies as any that does.
   */
  readonly timed?: 'two-way' | 'guard';
  /** The user's choice as a text to compare with that of the copy on the target; null: the table as it is. */
  readonly choice: string | null;
}

/** The columns of the key, in its order; none in mode `row`. */
export function keyOf(plan: TablePlan): readonly ColumnPlan[] {
  return plan.columns.slice(0, plan.keyLength);
}

/** An entry of `carry` in ibex.yaml. */
export interface CarryRule extends TableName {
  /** The columns of the source that travel; null: all of them. */
  readonly columns: readonly string[] | null;
  /** SQL over a row of the source, for columns of the target. */
  readonly select: readonly { readonly column: string; readonly expression: string }[];
  /** SQL over a row of the source: whether it is carried; null: every row is. */
  readonly where: string | null;
  /** Where it stands, for messages. */
  readonly place: string;
}

/**
 * `schema.name`, the form in which tables appear in messages, logs and metrics. No two tables have the same: a name
 * with a dot or a double quote in it stands in double quotes, as it would in a pattern.
 */
export function tableLabel(table: TableName): string {
  return `${labelPart(table.schema)}.${labelPart(table.name)}`;
}

function labelPart(name: string): string {
  return /[."]/.test(name) ? `"${name.replaceAll('"', '""')}"` : name;
}

/** How a row is named in messages, given its key as text: `row (id) = (5)`. */
export function rowLabel(plan: TablePlan, key: readonly string[]): string {
  const columns = keyOf(plan).map((column) => column.name);
  return `row (${columns.join(', ')}) = (${key.join(', ')})`;
}
