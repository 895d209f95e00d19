/**
 * Puts the capture triggers on tables, and takes them off again, as a guest: one relation a transaction, a lock
 * time-out well below `deadlock_timeout`, and the blocker's name for whoever asks. Waiting between tries is the
 * caller's, who has other tables to go on with.
 */
import { IbexError, isKind } from '../../core/errors.ts';
import type { Session } from '../../postgres/session.ts';

/** A relation that could not be locked in time, and who stands in the way. */
export interface Waiting {
  readonly relation: string;
  /** Such as `pid 4711 (app, idle in transaction for 63 s, application web, query since 2026-01-31 12:00:00 UTC)`. */
  readonly blockers: readonly string[];
}

/** The lock that a step waits for, and so who stands in its way. */
type LockMode = 'share row exclusive' | 'access exclusive' | 'access share';

/** What takes triggers off. */
const DROPPING = ['ibex.disarm', 'ibex.pull_fence'];

/** How the reason of a table begins that others have locked: that passes by itself. */
export const WAITS_FOR_LOCK = 'waiting to arm';

/** So many tables in one call: each takes some locks, of which a server has room for a few thousand at most. */
const AT_ONCE = 50;

function* inPieces(relids: readonly number[]): Generator<readonly number[]> {
  for (let i = 0; i < relids.length; i += AT_ONCE) yield relids.slice(i, i + AT_ONCE);
}

/** Prepares the capture of tables and takes them into a sync; resolves to those that cannot be captured exactly, and why. */
export async function prepareCaptures(
  session: Session,
  sync: string,
  relids: readonly number[],
): Promise<Map<number, string>> {
  const refused = new Map<number, string>();
  for (const piece of inPieces(relids)) {
    const rows = await session.rows<{ relid: number; refusal: string }>(
      'select relid::int8::float8 as relid, refusal from ibex.capture_all($1::oid[], $2)',
      [piece, sync],
    );
    for (const { relid, refusal } of rows) refused.set(relid, refusal);
  }
  return refused;
}

/** Arms the tables that nobody is in the way of, without waiting for any lock; resolves to those that are armed now. */
export async function armFree(session: Session, relids: readonly number[]): Promise<Set<number>> {
  const armed = new Set<number>();
  for (const piece of inPieces(relids)) {
    await session.run('call ibex.arm_free($1::oid[])', [piece]);
    for (const relid of await finish(session, await plainOnes(session, piece))) armed.add(relid);
  }
  return armed;
}

/** Partitions are locked to see what they hold, so partitioned tables are finished one by one. */
async function plainOnes(session: Session, relids: readonly number[]): Promise<number[]> {
  const rows = await session.rows<{ relid: number }>(
    `select c.oid::int8::float8 as relid from pg_class c where c.oid = any ($1::oid[]) and c.relkind = 'r'`,
    [relids],
  );
  return rows.map(({ relid }) => relid);
}

/** Records the tables that carry all their triggers as armed; resolves to them. */
async function finish(session: Session, relids: readonly number[]): Promise<number[]> {
  const rows = await session.rows<{ relid: number }>(
    'select f::int8::float8 as relid from ibex.finish_arming($1::oid[]) f',
    [relids],
  );
  return rows.map(({ relid }) => relid);
}

/** Disarms the tables that nobody uses, without waiting for any lock, and drops what captured them. */
export async function disarmFree(session: Session, relids: readonly number[]): Promise<void> {
  for (const piece of inPieces(relids)) await session.run('call ibex.disarm_free($1::oid[])', [piece]);
}

/**
 * Tries once to arm every relation of a table. `lockTimeoutMs` bounds how long a try may wait for a lock; the
 * application waits behind it.
 * Resolves to the relations that could not be locked: empty means that the table is armed. The others stay
 * armed meanwhile; calling again goes on where this left off.
 */
export async function tryArm(session: Session, relid: number, lockTimeoutMs: number): Promise<Waiting[]> {
  const waiting = [
    ...(await tryArmPartitions(session, relid, lockTimeoutMs)),
    ...(await tryFreeStrays(session, relid, lockTimeoutMs)),
  ];
  if (waiting.length > 0) return waiting;
  const tried = await briefly(session, relid, lockTimeoutMs, 'access share', () => finish(session, [relid]));
  if ('waiting' in tried) return [tried.waiting];
  // A partition that came in between is there on the second look.
  return tried.result.length > 0 ? [] : tryArm(session, relid, lockTimeoutMs);
}

/** Tries once to arm what lacks its triggers. What the catalogs say is not recorded. */
export function tryArmPartitions(session: Session, relid: number, lockTimeoutMs: number): Promise<Waiting[]> {
  return onEach(session, 'ibex.unarmed', relid, lockTimeoutMs, 'ibex.arm');
}

/**
 * Takes the triggers off partitions that are gone: what happens there is no change of the table any more. Resolves to
 * those where they still fire. Dropping them needs a lock that also waits for readers, and is tried again whenever
 * partitions change: PostgreSQL 12 attaches no table that carries triggers like ours.
 */
export async function tryFreeStrays(
  session: Session,
  relid: number,
  lockTimeoutMs: number,
): Promise<Waiting[]> {
  const firing = await onEach(session, 'ibex.strays', relid, lockTimeoutMs, 'ibex.disable');
  await onEach(session, 'ibex.strays', relid, lockTimeoutMs, 'ibex.disarm');
  return firing;
}

/** Tries once to disarm every relation of a table; when none is left, its delta tables and functions go too. */
export async function tryDisarm(session: Session, relid: number, lockTimeoutMs: number): Promise<Waiting[]> {
  const waiting = await tryTakeOff(session, relid, lockTimeoutMs);
  if (waiting.length === 0) await session.run('select ibex.uncapture($1)', [relid]);
  return waiting;
}

/**
 * Tries once to prepare the capture of a table anew, whose key is another one now. All syncs that carry it keep it.
 * Resolves to what could not be locked, and to why the table cannot be captured any more.
 */
export async function tryRecapture(
  session: Session,
  sync: string,
  relid: number,
  lockTimeoutMs: number,
): Promise<{ readonly waiting: Waiting[]; readonly refusal: string | null }> {
  const waiting = await tryTakeOff(session, relid, lockTimeoutMs);
  if (waiting.length > 0) return { waiting, refusal: null };
  const { refusal } = await session.row<{ refusal: string | null }>(
    'select ibex.recapture($1::oid::regclass, $2) as refusal',
    [relid, sync],
  );
  return { waiting, refusal };
}

async function tryTakeOff(session: Session, relid: number, lockTimeoutMs: number): Promise<Waiting[]> {
  for (const step of ['ibex.disable', 'ibex.disarm']) {
    const waiting = await onEach(session, 'ibex.armed_relations', relid, lockTimeoutMs, step);
    if (waiting.length > 0) return waiting;
  }
  return [];
}

/** Calls `work(relation, of)` for each relation that `list(of)` gives, each in a short transaction of its own. */
export async function onEach(
  session: Session,
  list: string,
  of: number | string,
  lockTimeoutMs: number,
  work: string,
): Promise<Waiting[]> {
  const relations = await session.rows<{ oid: string }>(`select r::oid::text as oid from ${list}($1) r`, [
    of,
  ]);
  const waiting: Waiting[] = [];
  for (const { oid } of relations) {
    const mode = DROPPING.includes(work) ? 'access exclusive' : 'share row exclusive';
    const tried = await briefly(session, Number(oid), lockTimeoutMs, mode, () =>
      session.run(`select ${work}($1::oid::regclass, $2)`, [oid, of]),
    );
    if ('waiting' in tried) waiting.push(tried.waiting);
  }
  return waiting;
}

/**
 * Does something with a relation that needs locks of the application's tables, in a transaction of its own that does
 * not wait longer for one than `lockTimeoutMs`, nor than half the server's `deadlock_timeout`: who waits as long as that
 * looks for a deadlock, and fails if there is one, and that must not be the application. `mode` is the strongest lock.
 */
export async function briefly<T>(
  session: Session,
  relation: number,
  lockTimeoutMs: number,
  mode: LockMode,
  work: () => Promise<T>,
): Promise<{ readonly result: T } | { readonly waiting: Waiting }> {
  try {
    const result = await session.transaction('', async () => {
      await session.run(LIMIT_WAITING, [Math.max(1, Math.floor(lockTimeoutMs))]);
      return work();
    });
    return { result };
  } catch (error) {
    const passes = isKind(error, 'lock') || isKind(error, 'transient') || isKind(error, 'server_fault');
    const { name } = await session.row<{ name: string }>('select $1::oid::regclass::text as name', [
      relation,
    ]);
    if (!passes) throw needsOwner(error, name);
    return { waiting: { relation: name, blockers: await blockersOf(session, relation, mode) } };
  }
}

/** How long to wait, in milliseconds, before the given try (1, 2, ..): with jitter, at most about 3 s. */
export function pauseBeforeTry(attempt: number): number {
  return Math.min(2_000, 100 * 2 ** Math.min(attempt, 5)) * (0.5 + Math.random());
}

function needsOwner(error: unknown, table: string): unknown {
  if (!isKind(error, 'privilege')) return error;
  return new IbexError(
    'privilege',
    `${error.message}: triggers of ${table} can be managed by its owner only`,
    {
      hint: `Connect as the owner of ${table}, or grant that role to yours.`,
      cause: error,
    },
  );
}

/** Nor are locks held for who is gone: the network may take us between two statements and tell nobody. */
const LIMIT_WAITING = `
  select set_config('lock_timeout', greatest(1, least($1, s.setting::int8 / 2))::text, true),
         set_config('idle_in_transaction_session_timeout', '10s', true)
    from pg_settings s where s.name = 'deadlock_timeout'`;

/** The modes of a lock on a relation, each stronger than the one before. */
const MODES = [
  'AccessShareLock',
  'RowShareLock',
  'RowExclusiveLock',
  'ShareUpdateExclusiveLock',
  'ShareLock',
  'ShareRowExclusiveLock',
  'ExclusiveLock',
  'AccessExclusiveLock',
] as const;

/** The weakest mode that each of ours waits for; it waits for all stronger ones too. */
const WAITS_FOR: Readonly<Record<LockMode, (typeof MODES)[number]>> = {
  'access share': 'AccessExclusiveLock',
  'share row exclusive': 'RowExclusiveLock',
  'access exclusive': 'AccessShareLock',
};

/** Who stands in the way, the oldest first. Of the sessions of other roles a role without pg_monitor sees pid and name. */
async function blockersOf(session: Session, relation: number, mode: LockMode): Promise<string[]> {
  const conflicting = MODES.slice(MODES.indexOf(WAITS_FOR[mode]));
  const rows = await session.rows<{ blocker: string }>(BLOCKERS, [relation, conflicting]);
  return rows.map((row) => row.blocker);
}

/** On the relation itself; of a partitioned table also on its partitions, which its row triggers reach. */
const BLOCKERS = `
  select format('pid %s (%s%s%s%s)', b.pid, b.who, ', ' || b.state || ' for ' || round(b.seconds) || ' s',
                ', application ' || nullif(b.application, ''),
                ', query since ' || to_char(b.query_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')) as blocker
    from (select distinct on (a.pid) a.pid, coalesce(a.usename, a.backend_type, '?') as who,
                 coalesce(a.state, 'working') as state, a.application_name as application, a.query_start,
                 extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.query_start)) as seconds
            from pg_locks l join pg_stat_activity a on a.pid = l.pid
           where l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid() and l.mode = any ($2)
             and l.relation in (select $1::oid union select ibex.members($1::oid))
             and l.database = (select d.oid from pg_database d where d.datname = current_database())) b
   order by b.seconds desc nulls last, b.pid limit 5`;
