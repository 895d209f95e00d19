/**
 * Arms a table whose capture may be out of date: a key that is another one now, a delta table that somebody dropped.
 * To be called for tables that are going to be copied anyway.
 */
import { tryArm, tryRecapture, type Waiting } from '../capture/trigger/arming.ts';
import { registerTable } from '../capture/trigger/registry.ts';
import type { IbexError } from '../core/errors.ts';
import type { TableName } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { refusedTable } from './refusal.ts';

/**
 * Tries once; resolves to the relations that could not be locked, and can be called again.
 * Errors: `unsupported` naming a table that cannot be captured any more.
 */
export async function rearm(
  source: Session,
  sync: string,
  relid: number,
  lockTimeoutMs: number,
): Promise<Waiting[]> {
  const { same } = await source.row<{ same: boolean }>('select ibex.mend($1) as same', [relid]);
  if (!same) {
    const { waiting, refusal } = await tryRecapture(source, sync, relid, lockTimeoutMs);
    if (waiting.length > 0) return waiting;
    if (refusal !== null) throw await refused(source, relid, refusal);
    await registerTable(source, sync, relid);
  }
  return tryArm(source, relid, lockTimeoutMs);
}

async function refused(source: Session, relid: number, refusal: string): Promise<IbexError> {
  const table = await source.row<TableName>(
    `select n.nspname as schema, c.relname as name
       from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1`,
    [relid],
  );
  return refusedTable(table, refusal);
}
