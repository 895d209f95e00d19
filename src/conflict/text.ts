/** Conflicts as a person reads them on a terminal. */
import type { Outcome } from './preview.ts';
import { type Conflict, type ConflictSide, type RowTexts, tableOf, waits, winnerOf } from './recorded.ts';

/** One line. */
export function lineOf(conflict: Conflict): string {
  const { id, at, sync, type, key } = conflict;
  return [id, timeText(at), sync, `${tableOf(conflict)} (${key.join(', ')})`, type, endText(conflict)].join(
    '  ',
  );
}

/** How it ended, or that it waits. */
function endText(conflict: Conflict): string {
  const { strategy, state, winner, reason } = conflict;
  const why = reason === null ? '' : `: ${reason}`;
  if (waits(conflict)) return `${state}${why}`;
  if (state === 'closed') return `closed${why}`;
  const end = winner === 'new' ? 'a new row' : sideText(conflict, winnerOf(conflict));
  return `${strategy}: ${end}${reason === null ? '' : `, then ${reason}`}`;
}

/** The row of a node, or that it is gone there. */
function sideText({ type, local, incoming }: Conflict, node: string | null): string {
  const gone =
    (type === 'update_missing' && node === local.node) ||
    (type === 'delete_origin_differs' && node === incoming.node);
  return `the ${gone ? 'deletion' : 'row'} of ${node}`;
}

/** What another strategy would have done. */
export function outcomeText(conflict: Conflict, { stands, made, unknown }: Outcome): string {
  if (unknown !== null) return `cannot be told: ${unknown}`;
  if (made !== null) return `a new row ${rowText(made)}`;
  return stands === null ? 'it would wait for a person' : sideText(conflict, stands);
}

/** Everything that the record has, column by column. */
export function pageOf(conflict: Conflict): string {
  const { id, node, at, sync, type, key, batch, local, incoming, made } = conflict;
  const sides = [incoming, local];
  const names = [
    `${incoming.node} (incoming)`,
    `${local.node} (local)`,
    ...(made === null ? [] : ['new row']),
  ];
  const rows = [...sides.map(({ row }) => row), ...(made === null ? [] : [made])];
  const table = [
    ['', ...names, ''],
    ...conflict.columns.map((column) => {
      const values = rows.map((row) => valueText(row, column));
      return [column, ...values, values[0] === values[1] ? '' : 'differs'];
    }),
    ['changed', ...sides.map(changedText), ...(made === null ? [] : ['']), ''],
  ];
  return [
    `conflict ${id}: ${type} in ${tableOf(conflict)} (${key.join(', ')})`,
    `  decided on  ${node}, ${timeText(at)}, in batch ${batch} of ${sync}`,
    `  outcome     ${endText(conflict)}`,
    '',
    ...alignColumns(table).map((line) => `  ${line}`),
  ].join('\n');
}

function valueText(row: RowTexts | null, column: string): string {
  if (row === null) return '-';
  const value = row[column] ?? null;
  return value === null ? 'null' : value.length > 60 ? `${value.slice(0, 59)}…` : value;
}

function changedText({ at }: ConflictSide): string {
  return at === null ? 'not known' : timeText(at);
}

function rowText(row: RowTexts): string {
  return `(${Object.keys(row)
    .map((column) => valueText(row, column))
    .join(', ')})`;
}

function timeText(at: Date): string {
  return at.toISOString().replace('T', ' ');
}

function alignColumns(table: readonly (readonly string[])[]): string[] {
  const widths = (table[0] ?? []).map((_, i) => Math.max(...table.map((row) => row[i]?.length ?? 0)));
  return table.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
