/**
 * What is on the source and not yet on the target, asked of the databases themselves: works whether or not a
 * daemon runs, and counts what is there, not what somebody last reported.
 */
import type { SyncTable } from '../apply/state.ts';
import { generationsOf, readGenerations } from '../capture/trigger/generations.ts';
import { summaryStatement } from '../capture/trigger/statements.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';

export interface Pending {
  readonly relid: number;
  /** Deltas not applied yet. */
  readonly deltas: number;
  /** Bytes of all delta tables of the table, applied ones that are not yet forgotten included. */
  readonly bytes: number;
  /** Age of the oldest of them in seconds, by the source's clock; 0 when there is none. */
  readonly ageSeconds: number;
}

/** Unapplied deltas of each table, given where the sync and its tables stand. */
export async function readPending(
  source: Session,
  sync: string,
  position: Snapshot,
  tables: readonly SyncTable[],
): Promise<Map<number, Pending>> {
  const generations = await readGenerations(source, sync);
  const statements = tables.flatMap((table) => {
    const own = generationsOf(generations, table.relid);
    return own.numbers.length === 0 ? [] : [summaryStatement(table, own, table.floor ?? position)];
  });
  if (statements.length === 0) return new Map();
  const rows = await source.rows<{ relid: string; captured: string; age: number | null }>(
    `select relid, captured, extract(epoch from clock_timestamp())::float8 - oldest / 1000 as age
       from (${statements.join(' union all ')}) s`,
  );
  return new Map(
    rows.map((row) => {
      const relid = Number(row.relid);
      const bytes = generations.filter((one) => one.relid === relid).reduce((sum, one) => sum + one.bytes, 0);
      return [relid, { relid, deltas: Number(row.captured), bytes, ageSeconds: Math.max(0, row.age ?? 0) }];
    }),
  );
}
