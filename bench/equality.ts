/**
 * Whether both sides hold the same rows. It shares no code with the engine: each side counts and hashes the text
 * of its rows.
 */
import type pg from 'pg';
import type { Databases } from './pair.ts';

/** The tables that differ; empty when all are equal. */
export async function findDifferences(databases: Databases, tables: readonly string[]): Promise<string[]> {
  const differences: string[] = [];
  for (const table of tables) {
    const [left, right] = await Promise.all([
      digest(databases.source.owner, table),
      digest(databases.target.owner, table),
    ]);
    if (left !== right) differences.push(`${table}: ${left} on the source, ${right} on the target`);
  }
  return differences;
}

/** Number of rows and sum of their hashes: independent of their order. */
async function digest(client: pg.Client, table: string): Promise<string> {
  const { rows } = await client.query<{ digest: string }>(
    `select count(*) || ' rows, hash ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) as digest
       from ${table} t`,
  );
  return rows[0]?.digest ?? '';
}
