/**
 * Takes a chunk out of hands that nobody gave it to: of a process that froze and would keep it, with a snapshot of the
 * source, for ever; or of one that goes on with a job that Redis has lost.
 */
import type { Session } from '../postgres/session.ts';
import type { Chunk } from './progress.ts';

/** The session that has a chunk's row locked, by the transaction that its row names. */
const READ_HOLDER = `
  select a.pid, a.application_name as name
    from ibex.chunk c
    join pg_locks l on l.locktype = 'transactionid' and l.granted and l.transactionid = c.xmax
    join pg_stat_activity a on a.pid = l.pid
   where c.sync = $1 and c.relid = $2 and c.n = $3 and a.usename = current_user`;

/** Those of the same process; but not those that are called as this one is. */
const END_NAMESAKES = `
  select pg_terminate_backend(pid) from pg_stat_activity
   where usename = current_user and datname = current_database() and application_name = $1
     and application_name <> current_setting('application_name')`;

/**
 * Ends the session that has the chunk in hand, if any has, and the others of its process on both sides: all sessions of
 * a worker that copy have one name.
 */
export async function endClaim(
  { source, target }: { readonly source: Session; readonly target: Session },
  sync: string,
  { relid, n }: Chunk,
): Promise<void> {
  const [holder] = await target.rows<{ pid: number; name: string }>(READ_HOLDER, [sync, relid, n]);
  if (holder === undefined) return;
  await target.rows('select pg_terminate_backend($1)', [holder.pid]);
  for (const side of [target, source]) await side.rows(END_NAMESAKES, [holder.name]);
}
