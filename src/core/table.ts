/** A table as a server's catalogs describe it; `postgres/catalog.ts` reads it, `planner.ts` decides by it. */
import type { CaptureMode, CarryRule, TableName, Wrap } from './plan.ts';

/** A type, any domains looked through; typmod included. */
export interface TypeInfo {
  /** `"schema"."name"` without typmod, usable as a cast. */
  readonly name: string;
  /** As `name`, of the type that the column itself declares: of the domain, where it is one. */
  readonly declared: string;
  /** As a person writes it, in DDL and messages: `numeric(10,2)`. */
  readonly shown: string;
  /** What a type has in common with the same type on another server; the name alone when it is built in. */
  readonly identity: string;
  readonly kind: 'base' | 'enum' | 'array' | 'composite' | 'range' | 'multirange';
  /** The column's or else the domain's limit in PostgreSQL's own coding; -1: none. */
  readonly typmod: number;
  /**
   * Null when its binary form has a meaning on its own server only (oids inside), or there is none. Otherwise the
   * version from which on servers understand all that this one may send: 0 when all do.
   */
  readonly binary: number | null;
  /** The operator by which two values are equal, as SQL that finds it in pg_catalog alone. */
  readonly equals: string;
  /** What turns a value into the text of its output function, where a cast would give another text. */
  readonly toText: Wrap | null;
  /** What turns text into a value as the input function does: null where the cast is the same. */
  readonly fromText: Wrap | null;
  /** Whether there is any such way; there is none for an array, say, to which a function of the application casts. */
  readonly readable: boolean;
  /** The element of an array, the attributes of a composite, the subtype of a range. */
  readonly parts: readonly { readonly name: string; readonly type: TypeInfo }[];
}

export interface LooseCollation {
  /** As SQL. */
  readonly name: string;
  /** What it is, comparable between servers. */
  readonly definition: string;
}

export interface ColumnInfo {
  /** `attnum`, which a rename keeps; 0 for what an expression makes. */
  readonly number: number;
  readonly name: string;
  readonly type: TypeInfo;
  /** Its collation when different values can be equal under it, as regardless of case; else null. */
  readonly looseCollation: LooseCollation | null;
  readonly generated: boolean;
  /** The expression that generates it, as the server prints it; null when it is not generated. */
  readonly formula: string | null;
  /** Generated when it is read: another formula changes what it reads as, and no row. */
  readonly virtual: boolean;
  readonly identityAlways: boolean;
  /** By itself or by its domain. */
  readonly notNull: boolean;
  /** A row that does not give it gets a value all the same. */
  readonly hasDefault: boolean;
  /** SQL over a row of the source that makes it, where the user chose so. */
  readonly expression?: string;
}

export interface TableInfo extends TableName {
  readonly relid: number;
  /** r ordinary, p partitioned, f foreign. */
  readonly kind: string;
  readonly isPartition: boolean;
  readonly columns: readonly ColumnInfo[];
  /** What the user chose to carry of it; the columns are chosen already. */
  readonly rule?: CarryRule;
}

/** A table of the source with what its delta tables note. */
export interface CapturedTable extends TableInfo {
  readonly mode: CaptureMode;
  /** Names of the noted columns, and the types in which they are noted. */
  readonly noted: readonly string[];
  readonly notedTypes: readonly string[];
  /** What a plan is made from, as `ibex.outline` sums it up. */
  readonly outline: string;
}
