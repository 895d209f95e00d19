/** Quoting of names and literals for the statement builders: `pg-format`'s %I and %L, and what it misses. */
import format from 'pg-format';
import type { TableName } from '../core/plan.ts';

/** Keywords of later grammars, and some old ones, that `pg-format` takes for plain names. */
const KEYWORDS = new Set(
  (
    'asymmetric bigint bit boolean char character coalesce collation concurrently current_catalog current_role ' +
    'current_schema dec decimal exists extract fetch float greatest grouping inout int integer interval json ' +
    'json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize ' +
    'json_table json_value lateral least merge_action national nchar none normalize nullif numeric out overlay ' +
    'position precision real returning row setof smallint substring symmetric system_user tablesample time ' +
    'timestamp treat trim values varchar variadic window xmlattributes xmlconcat xmlelement xmlexists xmlforest ' +
    'xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable'
  ).split(' '),
);

/** A name as SQL spells it. */
export function ident(name: string): string {
  return KEYWORDS.has(name) ? `"${name}"` : format.ident(name);
}

/** A string as SQL literal. */
export function literal(value: string): string {
  return format.literal(value);
}

/** `schema.name`, quoted. */
export function tableIdent(table: TableName): string {
  return `${ident(table.schema)}.${ident(table.name)}`;
}
