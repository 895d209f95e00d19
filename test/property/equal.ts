/** Whether both sides hold the same rows; shares no code with the engine. */
import type pg from 'pg';
import { comparedColumns, quote } from './ddl.ts';
import type { Table } from './schema.ts';

const BEGIN = `
  begin isolation level repeatable read read only;
  set local search_path = public, pg_catalog;
  set local row_security = off;
  set local datestyle = 'ISO, YMD';
  set local intervalstyle = 'postgres';
  set local timezone = 'UTC';
  set local extra_float_digits = 3;
  set local bytea_output = 'hex'`;

export async function differences(
  source: pg.Client,
  target: pg.Client,
  tables: readonly Table[],
): Promise<string[]> {
  const found: string[] = [];
  const compare = async (name: string, columns: readonly string[]) => {
    const problem = await compareRows([source, quote(name)], [target, quote(name)], columns);
    if (problem !== null) found.push(`${name}: ${problem}`);
  };
  for (const table of tables) {
    await compare(table.name, comparedColumns(tables, table).map(quote));
    if (table.extra > 0) found.push(...(await touched(target, table.name)));
  }
  await compare('audit', ['what']);
  return found;
}

type Rows = readonly [client: pg.Client, from: string];

/** Null, or how the rows of one table differ. */
export async function compareRows(
  source: Rows,
  target: Rows,
  columns: readonly string[],
): Promise<string | null> {
  const [left, right] = await Promise.all([source, target].map((side) => readRows(side, columns)));
  const missing = excess(left ?? [], right ?? []);
  const added = excess(right ?? [], left ?? []);
  if (missing.length === 0 && added.length === 0) return null;
  const show = (rows: readonly string[]) => `${rows.length} rows ${rows.slice(0, 4).join(' ')}`;
  return `(${columns.join(', ')}): only on the source ${show(missing)}; only on the target ${show(added)}`;
}

async function readRows([client, from]: Rows, columns: readonly string[]): Promise<string[]> {
  await client.query(BEGIN);
  try {
    const { rows } = await client.query<{ r: string }>(
      `select row(${columns.join(', ')})::text as r from ${from}`,
    );
    return rows.map(({ r }) => r);
  } finally {
    await client.query('rollback');
  }
}

/** The rows of `rows`, as often as they occur, without those of `other`. */
function excess(rows: readonly string[], other: readonly string[]): string[] {
  const left = new Map<string, number>();
  for (const row of other) left.set(row, (left.get(row) ?? 0) + 1);
  return rows.filter((row) => {
    const count = left.get(row) ?? 0;
    left.set(row, count - 1);
    return count <= 0;
  });
}

/** What only the target has keeps its values. */
async function touched(target: pg.Client, name: string): Promise<string[]> {
  const { rows } = await target.query<{ n: string }>(
    `select count(*) as n from public.${quote(name)} where extra <> 'kept'`,
  );
  return rows[0]?.n === '0' ? [] : [`${name}: ${rows[0]?.n} rows of the target lost what they held beside`];
}
