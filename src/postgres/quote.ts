/** Quoting of names and literals for the statement builders: `pg-format`'s %I and %L, nothing else. */
import format from 'pg-format';
import type { TableName } from '../core/plan.ts';

/** A name as SQL spells it. */
export function ident(name: string): string {
  return format.ident(name);
}

/** A string as SQL literal. */
export function literal(value: string): string {
  return format.literal(value);
}

/** `schema.name`, quoted. */
export function tableIdent(table: TableName): string {
  return `${ident(table.schema)}.${ident(table.name)}`;
}
