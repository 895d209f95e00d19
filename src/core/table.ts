/** A table as a server's catalogs describe it; `postgres/catalog.ts` reads it, `planner.ts` decides by it. */
import type { CaptureMode, CarryRule, TableName } from './plan.ts';

/** A type behind any domains. */
export interface TypeInfo {
  /** `"schema"."name"` without typmod, usable as a cast. */
  readonly name: string;
  /** As `name`, of the type that the column itself declares. */
  readonly declared: string;
  /** The base type's oid when it is built in, the same on every server; null otherwise. */
  readonly builtin: number | null;
  /** Whether its binary form means the same on every server: built in, and no oid of anything inside. */
  readonly portable: boolean;
}

export interface ColumnInfo {
  readonly name: string;
  readonly type: TypeInfo;
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
}
