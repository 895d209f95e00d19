/**
 * Makes the plan of one table from what both catalogs say. Pure: the form in which each column travels is
 * decided, and tested, here.
 */
import { choiceText } from './carry.ts';
import { bothIntegers, TEXT, travelsBinary } from './conversion.ts';
import { IbexError, missingOnTarget } from './errors.ts';
import { refuseNotedCasts, refuseUnfit } from './fit.ts';
import { matchKey, refuseUnlikeKeys } from './keys.ts';
import { type ColumnPlan, type TablePlan, tableLabel } from './plan.ts';
import type { CapturedTable, ColumnInfo, TableInfo, TypeInfo } from './table.ts';

/**
 * The type in which a column travels: its own (binary COPY) when both sides understand the same bytes, int8 for the
 * integers of a key, which are noted as such, otherwise text.
 */
export function wireType(source: TypeInfo, target: TypeInfo, notedType: string | null): string {
  if (travelsBinary(source, target)) return notedType ?? source.name;
  return notedType !== null && bothIntegers(source, target) ? notedType : TEXT;
}

/**
 * Plans a table. Carried are the source's columns; columns that only the target has keep their values, columns
 * that the target generates are left to it.
 * Errors: `schema_mismatch` naming the table and the column that has nowhere to go.
 */
export function planTable(source: CapturedTable, target: TableInfo | undefined): TablePlan {
  const label = tableLabel(source);
  if (target === undefined) {
    throw missingOnTarget(label);
  }
  const unfit = refuseUnfit(source, target) ?? refuseUnlikeKeys(source, target) ?? refuseNotedCasts(source);
  if (unfit !== undefined) throw unfit;
  const targetColumns = new Map(target.columns.map((column) => [column.name, column]));
  const plans: ColumnPlan[] = [];
  const carried: ColumnInfo[] = [];
  for (const column of keyFirst(source)) {
    const counterpart = targetColumns.get(column.name);
    if (counterpart === undefined) throw missingColumn(label, column);
    const index = source.noted.indexOf(column.name);
    const inKey = source.mode === 'key' && index >= 0;
    if (counterpart.generated && column.expression !== undefined) throw generatedThere(label, column);
    if (counterpart.generated && !inKey) continue;
    if (counterpart.generated) requireSameFormula(label, column, counterpart);
    if (index < 0 && source.mode === 'row') throw generatedWithoutKey(label, column);
    const notedType = source.notedTypes[index] ?? null;
    plans.push(planColumn(column, counterpart, index, notedType, inKey));
    carried.push(column);
  }
  const fault = columnFault(label, plans, target);
  if (fault !== undefined) throw fault;
  return {
    schema: source.schema,
    name: source.name,
    relid: source.relid,
    mode: source.mode,
    columns: plans,
    keyLength: source.mode === 'key' ? source.noted.length : 0,
    only: source.kind === 'r',
    targetOnly: target.kind === 'r',
    ...(source.rule === undefined || source.rule.where === null ? {} : { where: source.rule.where }),
    choice: choiceText(source, carried),
    outline: source.outline,
  };
}

function planColumn(
  column: ColumnInfo,
  counterpart: ColumnInfo,
  index: number,
  notedType: string | null,
  inKey: boolean,
): ColumnPlan {
  const [source, target] = [column.type, counterpart.type];
  const wire = wireType(source, target, notedType);
  return {
    name: column.name,
    noted: index < 0 ? null : index + 1,
    notedType,
    match: inKey ? matchKey(column, counterpart, notedType, wire) : null,
    wire,
    targetType: target.declared,
    same: travelsBinary(source, target),
    ...(wire === TEXT && source.toText !== null ? { toText: source.toText } : {}),
    ...(wire === TEXT && target.fromText !== null ? { fromText: target.fromText } : {}),
    ...(counterpart.generated ? { generated: true } : {}),
    ...(column.expression === undefined ? {} : { expression: column.expression }),
  };
}

/** What the merge adds to a table's own columns when it stages them, against what a table may have: 1,600. */
const MOST_COLUMNS = 1_598;

/**
 * What stands against the columns that travel as a whole: `schema_mismatch` for a column of the target that would
 * stay empty and must not, `unsupported` for more columns than can be staged.
 */
export function columnFault(
  label: string,
  travelling: readonly { readonly name: string }[],
  target: TableInfo,
): IbexError | undefined {
  const names = new Set(travelling.map((column) => column.name));
  const empty = target.columns.find(
    (column) => !names.has(column.name) && !column.generated && column.notNull && !column.hasDefault,
  );
  if (empty !== undefined) {
    const message = `column ${empty.name} of ${label} on the target must not be null, has no default, and nothing is carried into it`;
    return new IbexError('schema_mismatch', message, {
      table: label,
      hint:
        `On the target: alter table ${quoted(target.schema)}.${quoted(target.name)} alter column ${quoted(empty.name)} ` +
        'drop not null; or give it, or its domain, a default.',
    });
  }
  if (travelling.length <= MOST_COLUMNS) return undefined;
  return new IbexError(
    'unsupported',
    `${label} has ${travelling.length} columns to carry, and ${MOST_COLUMNS} can be`,
    { table: label, hint: `Leave it out: --exclude '${label}'.` },
  );
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A key that the target generates finds its rows only if both sides generate it alike. */
function requireSameFormula(label: string, column: ColumnInfo, counterpart: ColumnInfo): void {
  if (column.formula === counterpart.formula) return;
  const here = column.formula === null ? 'not generated' : `generated as ${column.formula}`;
  throw new IbexError(
    'schema_mismatch',
    `column ${column.name} of ${label} is part of the key, ${here} on the source and generated as ${counterpart.formula} on the target`,
    { table: label, hint: 'Make it a plain column on the target, or generate it there as on the source.' },
  );
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
    hint: `On the target: alter table ${label} add column "${column.name}" ${column.type.shown};`,
  });
}

/** The `config` error for an expression that the target's own would stand against. */
export function generatedThere(label: string, column: ColumnInfo): IbexError {
  const message = `column ${column.name} of ${label} is generated on the target, and an expression is to be carried into it`;
  return new IbexError('config', message, {
    table: label,
    hint: 'Take the expression out of ibex.yaml, or make it a plain column on the target.',
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
