/** What tests of DDL under a running sync look at. */
import type pg from 'pg';
import { expect } from 'vitest';
import type { Pair } from './pair.ts';
import { waitFor } from './servers.ts';

/** The version of every row of a table of the target: the same again unless something wrote the row. */
export async function versionsOf(target: pg.Client, table: string): Promise<string> {
  const { rows } = await target.query(
    `select ctid::text || ' ' || xmin::text as v from ${table} order by ctid`,
  );
  return rows.map(({ v }) => v).join(', ');
}

export async function versionsOfAll(target: pg.Client, tables: readonly string[]): Promise<string[]> {
  const versions: string[] = [];
  for (const table of tables) versions.push(await versionsOf(target, table));
  return versions;
}

/** When each table last changed its state: the same again unless one was held or copied meanwhile. */
export async function statesOf(target: pg.Client): Promise<unknown[]> {
  const { rows } = await target.query(
    'select table_name, state, changed_at from ibex.target_table order by table_name',
  );
  return rows;
}

/** Waits until the table is held, and resolves to the reason that `status` gives. */
export async function heldReason(pair: Pair, table: string): Promise<string> {
  const find = async () => {
    const found = (await pair.sync.status()).tables.find((one) => one.table === table);
    return found?.reason != null && !/waiting to arm/.test(found.reason) ? found.reason : undefined;
  };
  return waitFor(find, { what: `${table} to be held` }) as Promise<string>;
}

/** The statements that the reason names. */
export function remedyIn(reason: string): string {
  const [, ddl] = /on the target: (.*)$/s.exec(reason) ?? [];
  expect(ddl, reason).toBeDefined();
  return ddl as string;
}

/** Runs what `status` says is to be run on the target. */
export async function runRemedy(pair: Pair, table: string): Promise<string> {
  const ddl = remedyIn(await heldReason(pair, table));
  await pair.target.query(ddl);
  return ddl;
}
