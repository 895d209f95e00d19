/**
 * The fence of a sync: triggers on its tables, placed ahead of time, that do nothing until the function that they call is
 * replaced. Then every write fails that does not carry changes of the sync itself. See triggers/source/functions/fence.sql.
 */
import type { Session } from '../../postgres/session.ts';
import { onEach, type Waiting } from './arming.ts';

/** A transaction that may have written, or may still write, past a fence that went up meanwhile. */
export interface Writer {
  /** Its virtual transaction; of a prepared one `-1/<xid>`. */
  readonly transaction: string;
  /** Null when it is prepared. */
  readonly pid: number | null;
  /** Such as `pid 4711 (app, idle in transaction for 63 s, application web)`. */
  readonly who: string;
}

export interface FenceState {
  readonly up: boolean;
  /** Another one each time the fence was raised or lifted, by whomever; null where there is none. */
  readonly mark: string | null;
  /** Relations that lack its trigger. */
  readonly unfenced: readonly string[];
  /** The statement that lifts it; null where there is none. */
  readonly lifts: string | null;
}

/** Tries once to place what is missing of the fence. Resolves to the relations that could not be locked. */
export async function tryPlaceFence(
  session: Session,
  sync: string,
  lockTimeoutMs: number,
): Promise<Waiting[]> {
  await session.run('select ibex.make_fence($1)', [sync]);
  return onEach(session, 'ibex.unfenced', sync, lockTimeoutMs, 'ibex.place_fence');
}

/** Raises the fence but for sessions that carry changes from these nodes; resolves to its mark. */
export async function raiseFence(session: Session, sync: string, nodes: readonly string[]): Promise<string> {
  await session.run('select ibex.raise_fence($1, $2::text[])', [sync, nodes]);
  return (await readFence(session, sync)).mark as string;
}

/** Lifts it by the very statement that is shown to people. */
export async function liftFence(session: Session, sync: string): Promise<void> {
  const { lifts } = await readFence(session, sync);
  if (lifts !== null) await session.run(lifts);
}

/** Works without a fence, and before the schema has any. */
export async function readFence(session: Session, sync: string): Promise<FenceState> {
  const { known } = await session.row<{ known: boolean }>(
    `select to_regclass('ibex.fence') is not null as known`,
  );
  if (!known) return { up: false, mark: null, unfenced: [], lifts: null };
  return session.row<FenceState>(
    `select ibex.fence_is_up($1) as up, ibex.fence_mark($1) as mark,
            array(select u::text from ibex.unfenced($1) u) as unfenced,
            (select f.lifts from ibex.fence f where f.sync = $1) as lifts`,
    [sync],
  );
}

export function readWriters(session: Session, sync: string): Promise<Writer[]> {
  return session.rows<Writer>(
    'select transaction, pid, who from ibex.writers($1) order by pid, transaction',
    [sync],
  );
}

/** Ends the sessions of these writers; resolves to those that our role may not end, each with the reason. */
export async function endWriters(session: Session, writers: readonly Writer[]): Promise<string[]> {
  const refused: string[] = [];
  for (const { pid, who } of writers) {
    if (pid === null) continue;
    try {
      await session.run('select pg_terminate_backend($1)', [pid]);
    } catch (error) {
      refused.push(`${who}: ${(error as Error).message}`);
    }
  }
  return refused;
}

/** Tries once to take the fence off what is no part of the sync any more; when it stands on nothing, the rest of it goes. */
export async function tryPullFence(
  session: Session,
  sync: string,
  lockTimeoutMs: number,
): Promise<Waiting[]> {
  const waiting = await onEach(session, 'ibex.fence_strays', sync, lockTimeoutMs, 'ibex.pull_fence');
  if (waiting.length === 0) await session.run('select ibex.drop_fence($1)', [sync]);
  return waiting;
}
