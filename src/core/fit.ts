/** What stands against the types and collations of a table's columns on the target, with the remedy. */
import { carries, TEXT } from './conversion.ts';
import { IbexError } from './errors.ts';
import { tableLabel } from './plan.ts';
import type { CapturedTable, TableInfo } from './table.ts';

/**
 * The `schema_mismatch` of a table some of whose values would not arrive as they are; undefined when all do. Said
 * of all such columns at once, with the DDL that makes them fit.
 */
export function refuseUnfit(source: TableInfo, target: TableInfo): IbexError | undefined {
  const there = new Map(target.columns.map((column) => [column.name, column]));
  const unfit = source.columns.flatMap((column) => {
    const counterpart = there.get(column.name);
    // What the user's own expression gives is converted as an assignment would.
    if (counterpart === undefined || counterpart.generated || column.expression !== undefined) return [];
    return carries(column.type, counterpart.type) ? [] : [{ column, counterpart }];
  });
  if (unfit.length === 0) return undefined;
  const label = tableLabel(source);
  const what = unfit.map(
    ({ column, counterpart }) =>
      `${column.name} is ${column.type.shown} on the source and ${counterpart.type.shown} on the target`,
  );
  const alter = unfit.map(({ column }) => `alter column "${column.name}" type ${column.type.shown}`);
  return new IbexError(
    'schema_mismatch',
    `${label}: not every value would arrive as it is: column ${what.join(', column ')}`,
    { table: label, hint: `On the target: alter table ${label} ${alter.join(', ')};` },
  );
}

/**
 * Keys and rows are noted as text in sessions of the application, by a cast. Where that is a function of somebody's,
 * its text need not be what can be read back.
 */
export function refuseNotedCasts(source: CapturedTable): IbexError | undefined {
  const odd = source.columns.find(({ name, type }) => {
    const index = source.noted.indexOf(name);
    return index >= 0 && source.notedTypes[index] === TEXT && type.toText !== null;
  });
  if (odd === undefined) return undefined;
  const label = tableLabel(source);
  const message = `${label}: column ${odd.name} identifies rows, and its type ${odd.type.shown} becomes text by a function`;
  return new IbexError('unsupported', message, {
    table: label,
    hint: `Give the table a primary key of other types, or leave it out: --exclude '${label}'.`,
  });
}
