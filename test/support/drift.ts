/** What tests of DDL under a running sync look at. */
import type pg from 'pg';
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

/**
 * Waits until the table is held with statements to run on the target that match, and resolves to them. What `status`
 * names is out of date for a while after somebody ran it.
 */
export async function remedyOf(pair: Pair, table: string, matching = /./s): Promise<string> {
  const find = async () => {
    const found = (await pair.sync.status()).tables.find((one) => one.table === table);
    const [, ddl = ''] = /on the target: (.*)$/s.exec(found?.reason ?? '') ?? [];
    return matching.test(ddl) ? ddl : undefined;
  };
  return waitFor(find, { what: `${table} to be held, with a remedy ${matching}` }) as Promise<string>;
}

/** Runs what `status` says is to be run on the target. */
export async function runRemedy(pair: Pair, table: string, matching?: RegExp): Promise<string> {
  const ddl = await remedyOf(pair, table, matching);
  await pair.target.query(ddl);
  return ddl;
}
