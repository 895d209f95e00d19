/**
 * Ends what a daemon left behind that froze, or that the network took: its sessions on a server, by which it keeps a lock
 * there that nobody will let go of.
 */
import { SILENT_MS } from '../apply/state.ts';
import type { Session } from '../postgres/session.ts';

/** A session lock by which one process at a time has a sync: its lane on the target, the reading on the source, a cutover of it. */
export type DaemonLock = 'lane' | 'reader' | 'move';

/** Takes the lock for the session; false when another one has it. */
export async function tryLock(session: Session, lock: DaemonLock, sync: string): Promise<boolean> {
  const { locked } = await session.row<{ locked: boolean }>(
    `select pg_try_advisory_lock(hashtext('ibex'), hashtext($1)) as locked`,
    [nameOf(lock, sync)],
  );
  return locked;
}

/** Whether somebody has the lock. */
export async function isLocked(session: Session, lock: DaemonLock, sync: string): Promise<boolean> {
  const { locked } = await session.row<{ locked: boolean }>(
    `select exists (select from pg_locks l where ${IS_LOCK}) as locked`,
    [nameOf(lock, sync)],
  );
  return locked;
}

/**
 * Ends the sessions of these parts of a sync, which are the same role's as ours, if the one that has the lock does nothing
 * for so long that its process is gone or frozen. `own` are the processes of this daemon's sessions there.
 */
export async function endSilentHolder(
  session: Session,
  {
    lock,
    sync,
    parts,
    own,
  }: { lock: DaemonLock; sync: string; parts: readonly string[]; own: readonly number[] },
): Promise<void> {
  const names = parts.map((part) => `ibex:${sync}:${part}`);
  await session.rows(END_SILENT, [nameOf(lock, sync), names, own, SILENT_MS / 1000]);
}

function nameOf(lock: DaemonLock, sync: string): string {
  return `${lock} ${sync}`;
}

/** `l` is the lock of this name, and somebody has it. */
const IS_LOCK = `l.locktype = 'advisory' and l.granted
                    and l.database = (select oid from pg_database where datname = current_database())
                    and l.classid::int8::bit(32) = hashtext('ibex')::bit(32)
                    and l.objid::int8::bit(32) = hashtext($1)::bit(32)`;

const END_SILENT = `
  select pg_terminate_backend(a.pid)
    from pg_stat_activity a
   where a.usename = current_user and a.datname = current_database() and a.pid <> all ($3::int4[])
     and a.application_name = any ($2)
     and exists (select from pg_locks l join pg_stat_activity h on h.pid = l.pid
                  where ${IS_LOCK}
                    and (h.state <> 'active' or h.wait_event in ('ClientRead', 'ClientWrite'))
                    and h.state_change < clock_timestamp() - make_interval(secs => $4))`;
