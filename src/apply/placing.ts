/** Has a lane begin at a position, with tables that are equal already: what a cutover writes down for the way back. */
import type { TableName } from '../core/plan.ts';
import type { Snapshot, SourceIdentity } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import { registerSync, registerTables } from './state.ts';

export interface Place {
  readonly sync: string;
  readonly source: SourceIdentity;
  readonly witness: number;
  readonly position: Snapshot;
  /** The tables with their oids on the lane's source. All of them are in step at the position. */
  readonly tables: readonly (TableName & { readonly relid: number })[];
}

/**
 * Replaces what the target of a lane knows of it, in one transaction; the accounts of its tables go on. The lane must not
 * be running. Resolves to when the checkpoint was placed, by which one that has moved since is told.
 */
export async function placeLane(target: Session, place: Place): Promise<string> {
  const { sync, source, witness, position, tables } = place;
  const relids = tables.map(({ relid }) => relid);
  return target.transaction('', async () => {
    await registerSync(target, sync, source);
    await target.run('delete from ibex.target_table where sync = $1 and relid <> all ($2)', [sync, relids]);
    await registerTables(target, sync, tables);
    for (const table of ['chunk', 'part', 'stage']) {
      await target.run(`delete from ibex.${table} where sync = $1`, [sync]);
    }
    await target.run(
      `update ibex.target_table
          set state = 'streaming', replace = false, floor = null, reason = null, carried = null, choice = null,
              ahead = '{}', fill = null, changed_at = clock_timestamp()
        where sync = $1`,
      [sync],
    );
    const { moved } = await target.row<{ moved: string }>(
      `update ibex.checkpoint
          set position = $2, witness = $3, system = $4, database = $5, timeline = $6, moved_at = clock_timestamp()
        where sync = $1 returning moved_at::text as moved`,
      [sync, position, witness, source.system, source.database, source.timeline],
    );
    return moved;
  });
}

/** When the checkpoint of a lane was placed or moved last; null where there is none. */
export async function readMoved(target: Session, sync: string): Promise<string | null> {
  const [row] = await target.rows<{ moved: string }>(
    'select moved_at::text as moved from ibex.checkpoint where sync = $1',
    [sync],
  );
  return row?.moved ?? null;
}
