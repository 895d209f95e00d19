/** Has the source of a lane keep deltas from a position on, for a lane that begins there with tables that are equal. */
import type { Snapshot } from '../../core/position.ts';
import type { Session } from '../../postgres/session.ts';

/** What was noted before is not needed, and nothing is given up any more. Resolves to the witness as it stands. */
export function beginLane(session: Session, sync: string, position: Snapshot): Promise<number> {
  return session.transaction('', async () => {
    await session.run(
      `update ibex.source_table set floor = null, missed = null, given_up_at = null, given_up_why = null where sync = $1`,
      [sync],
    );
    const { witness } = await session.row<{ witness: number }>(
      `update ibex.source_sync set position = $2, updated_at = clock_timestamp(), beat_at = clock_timestamp()
        where name = $1 returning witness::float8 as witness`,
      [sync, position],
    );
    return witness;
  });
}

/** Tables that a subscription writes to, which fires no trigger that could stop it. */
export async function readSubscribed(session: Session, sync: string): Promise<string[]> {
  const rows = await session.rows<{ name: string }>(
    `select distinct s.srrelid::regclass::text as name
       from ibex.source_table t cross join lateral ibex.members(t.relid) m join pg_subscription_rel s on s.srrelid = m
      where t.sync = $1 order by 1`,
    [sync],
  );
  return rows.map(({ name }) => name);
}
