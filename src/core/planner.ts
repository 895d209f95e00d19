/**
 * Makes the plan of one table from what both catalogs say. Pure: the form in which each column travels is
 * decided, and tested, here.
 */
import { IbexError } from './errors.ts';
import { type ColumnPlan, type TablePlan, tableLabel } from './plan.ts';
import type { CapturedTable, ColumnInfo, TableInfo, TypeInfo } from './table.ts';

/** The form in which every value has the same meaning on every server: its text. */
const TEXT = 'pg_catalog.text';

/**
 * The type in which a column travels: the built-in type itself (binary COPY) when it is the same on both sides,
 * otherwise text. Types with oids inside (reg*, arrays of enums, composites) are never the same.
 */
export function wireType(source: TypeInfo, target: TypeInfo): string {
  return sameType(source, target) ? source.name : TEXT;
}

function sameType(source: TypeInfo, target: TypeInfo): boolean {
  return source.portable && target.portable && source.builtin === target.builtin;
}

/**
 * Plans a table. Carried are the source's columns; columns that only the target has keep their values, columns
 * that the target generates are left to it.
 * Errors: `schema_mismatch` naming the table and the column that has nowhere to go.
 */
export function planTable(source: CapturedTable, target: TableInfo | undefined): TablePlan {
  const label = tableLabel(source);
  if (target === undefined) {
    throw new IbexError('schema_mismatch', `table ${label} does not exist on the target`, {
      table: label,
      hint: `Create it there (pg_dump --schema-only --table '${label}' | psql), or leave it out with --exclude '${label}'.`,
    });
  }
  const targetColumns = new Map(target.columns.map((column) => [column.name, column]));
  const plans: ColumnPlan[] = [];
  for (const column of keyFirst(source)) {
    const counterpart = targetColumns.get(column.name);
    if (counterpart === undefined) throw missingColumn(label, column);
    if (counterpart.generated) continue;
    const index = source.noted.indexOf(column.name);
    if (index < 0 && source.mode === 'row') throw generatedWithoutKey(label, column);
    plans.push({
      name: column.name,
      noted: index < 0 ? null : index + 1,
      wire: index < 0 ? wireType(column.type, counterpart.type) : (source.notedTypes[index] as string),
      sourceType: column.type.declared,
      targetType: counterpart.type.declared,
      same: sameType(column.type, counterpart.type),
    });
  }
  return {
    schema: source.schema,
    name: source.name,
    relid: source.relid,
    mode: source.mode,
    columns: plans,
    keyLength: source.mode === 'key' ? source.noted.length : 0,
    only: source.kind === 'r',
    targetOnly: target.kind === 'r',
  };
}

function keyFirst(source: CapturedTable): ColumnInfo[] {
  const noted = source.noted.map((name) => {
    const column = source.columns.find((candidate) => candidate.name === name);
    if (column !== undefined) return column;
    throw new IbexError(
      'schema_mismatch',
      `column ${name} of ${tableLabel(source)} is captured but does not exist`,
      {
        table: tableLabel(source),
        hint: 'Run `ibex setup` again: it captures the table anew.',
      },
    );
  });
  return [...noted, ...source.columns.filter((column) => !source.noted.includes(column.name))];
}

function missingColumn(label: string, column: ColumnInfo): IbexError {
  return new IbexError('schema_mismatch', `column ${column.name} of ${label} does not exist on the target`, {
    table: label,
    hint: `On the target: alter table ${label} add column "${column.name}" ${column.type.declared};`,
  });
}

function generatedWithoutKey(label: string, column: ColumnInfo): IbexError {
  return new IbexError(
    'schema_mismatch',
    `column ${column.name} of ${label} is generated on the source only`,
    {
      table: label,
      hint: 'Make it a generated column on the target too, or give the table a primary key.',
    },
  );
}
