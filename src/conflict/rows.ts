/** Single rows, written the way an application does it: triggers fire, and the change is captured. */
import { IbexError } from '../core/errors.ts';
import type { TableName } from '../core/plan.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type Conflict, type ConflictSide, type RowTexts, tableOf } from './recorded.ts';

/** Deletes the row of a key, if there is one. */
export async function deleteRow(
  session: Session,
  table: TableName,
  columns: readonly string[],
  key: readonly string[],
): Promise<void> {
  const types = await writableTypes(session, table);
  await session.run(`delete from ${tableIdent(table)} where ${whereKey(columns, types)}`, key);
}

/** Deletes the row if it still is what it was: one that was changed since has been seen by nobody who decides. */
export async function deleteUnchanged(
  session: Session,
  table: TableName,
  key: readonly string[],
  row: RowTexts,
): Promise<void> {
  const types = await writableTypes(session, table);
  const columns = Object.keys(row);
  const values = [...key, ...columns].map((column) => row[column] ?? null);
  const same = columns.map(
    (column, i) => `${ident(column)}::text is not distinct from $${key.length + i + 1}`,
  );
  await session.run(
    `delete from ${tableIdent(table)} where ${whereKey(key, types)} and ${same.join(' and ')}`,
    values,
  );
}

/** Gives the row of its key these values, or inserts it. Columns that the server generates are left to it. */
export async function writeRow(
  session: Session,
  table: TableName,
  key: readonly string[],
  row: RowTexts,
): Promise<void> {
  const types = await writableTypes(session, table);
  const columns = Object.keys(row).filter((column) => types.has(column));
  const others = columns.filter((column) => !key.includes(column));
  const ordered = [...key, ...others];
  const value = (column: string) => `$${ordered.indexOf(column) + 1}::text::${types.get(column)}`;
  const values = ordered.map((column) => row[column] ?? null);
  const names = ordered.map(ident).join(', ');
  const target = tableIdent(table);
  const set = others.map((column) => `${ident(column)} = ${value(column)}`).join(', ');
  const where = whereKey(key, types);
  if (set !== '' && (await session.run(`update ${target} set ${set} where ${where}`, values)) > 0) return;
  await session.run(
    `insert into ${target} (${names}) overriding system value
     select ${ordered.map(value).join(', ')} where not exists (select from ${target} where ${where})`,
    values,
  );
}

function whereKey(columns: readonly string[], types: ReadonlyMap<string, string>): string {
  return columns
    .map((column, i) => `${ident(column)} = $${i + 1}::text::${types.get(column) ?? 'text'}`)
    .join(' and ');
}

async function writableTypes(session: Session, table: TableName): Promise<Map<string, string>> {
  const rows = await session.rows<{ name: string; type: string }>(
    `select a.attname as name, format_type(a.atttypid, a.atttypmod) as type
       from pg_attribute a
      where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''`,
    [tableIdent(table)],
  );
  return new Map(rows.map(({ name, type }) => [name, type]));
}

/** The row as the record has it, null where there is none. Errors: `config` when it keeps no values, which looks like two rows that are gone. */
export function recordedRow(conflict: Conflict, side: ConflictSide): RowTexts | null {
  if (conflict.local.row !== null || conflict.incoming.row !== null) return side.row;
  throw new IbexError('config', `conflict ${conflict.id} keeps no values of its rows`, {
    hint: 'Give the row itself: --to \'{"column": "value", ..}\'.',
  });
}

/** The row that a person gives, if it has the columns of the table and the key of the conflict. Errors: `config`. */
export function checkedRow(
  conflict: Conflict,
  key: readonly string[],
  row: RowTexts | null,
): RowTexts | null {
  if (row === null) return null;
  const odd = Object.keys(row).find((column) => !conflict.columns.includes(column));
  const missing = conflict.columns.find((column) => !Object.hasOwn(row, column));
  const columns = conflict.columns.join(', ');
  if (odd !== undefined || missing !== undefined) {
    const what =
      odd === undefined
        ? `lacks the column ${missing}`
        : `has a column ${odd}, which ${tableOf(conflict)} has not`;
    throw new IbexError('config', `the row given for conflict ${conflict.id} ${what}`, {
      hint: `It must have exactly ${columns}.`,
    });
  }
  const other = key.find((column, i) => row[column] !== conflict.key[i]);
  if (other === undefined) return row;
  throw new IbexError(
    'config',
    `the row given for conflict ${conflict.id} has another ${other} than its key`,
    {
      hint: `The key is (${conflict.key.join(', ')}).`,
    },
  );
}
