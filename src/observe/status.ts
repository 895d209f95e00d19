/**
 * The state of a sync in one document: what `ibex status`, `/status` and `ibex wait` speak from. Read from both
 * databases, so that it is true whether or not a daemon runs.
 */
import { readParked } from '../apply/parking.ts';
import { pausedSince, type Restraint, readRestraint } from '../apply/restraint.ts';
import { readStagedAmounts } from '../apply/stages.ts';
import { readSyncTables, requireRecord, SILENT_MS, type SyncTable } from '../apply/state.ts';
import { readTrouble } from '../apply/trouble.ts';
import { type DeltaUsage, isNear, needsBackfill, readGivenUp, readUsage } from '../capture/trigger/budget.ts';
import { readFence } from '../capture/trigger/fence.ts';
import { type GuardedTable, readGuard } from '../conflict/guarded.ts';
import { readCounts } from '../conflict/recording.ts';
import type { MergeStatus } from '../core/backlog.ts';
import { type IbexError, isKind } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { checkServer } from '../postgres/catalog.ts';
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { type Peer, remarkOn } from '../postgres/tls.ts';
import { findHistoryFault } from '../setup/history.ts';
import { collisionText, INTERLEAVE, readShared } from '../setup/interleaving.ts';
import { readMerging } from './merging.ts';
import { readPending } from './pending.ts';
import {
  type CopyProgress,
  countJobs,
  readEstimates,
  readTableProgress,
  sumOf,
  type TableProgress,
} from './progress.ts';

export interface TableStatus extends TableProgress {
  /** The account: captured = applied + coalesced + resolved + held. */
  readonly captured: number;
  readonly applied: number;
  readonly coalesced: number;
  readonly resolved: number;
  readonly held: number;
  /** Deltas that the next batches will take in. */
  readonly pending: number;
  /** Conflicts that were met since the sync was set up, by type; see docs/conflicts.md. */
  readonly conflicts: Readonly<Record<string, number>>;
}

export interface SyncStatus {
  readonly sync: string;
  /** `host:port/database` of both sides. */
  readonly source: string;
  readonly target: string;
  /** What TLS makes sure of, on the way from this process to either side. */
  readonly tls: { readonly source: Peer['tls']; readonly target: Peer['tls'] };
  /** What a person should know and that keeps nothing from being READY: who could listen in, say. */
  readonly remarks: readonly string[];
  readonly verdict: 'READY' | 'NOT READY';
  /** What keeps it from being READY; empty when it is. */
  readonly why: readonly string[];
  /** The daemon that runs it; null when none does. */
  readonly daemon: { readonly host: string; readonly pid: number; readonly silentSeconds: number } | null;
  /** Since when it is paused; null while it is not. */
  readonly paused: Date | null;
  /** Since when the daemon copies one chunk after the other, and why: the source is busy. Null while it is not. */
  readonly slowed: Restraint['slowed'];
  /** What threw the daemon back, which tries again by itself; null when nothing did of late. */
  readonly trouble: string | null;
  readonly epoch: number;
  readonly position: Snapshot | null;
  readonly lag: { readonly seconds: number; readonly bytes: number; readonly keys: number };
  /** Large backlogs that are being staged on the target, before they are merged. */
  readonly backlogs: readonly BacklogStatus[];
  /** The transaction that merges large backlogs once they are staged; null while there is none. */
  readonly merge: MergeStatus | null;
  /** What the deltas take of the source's disk; past the limits the capture of the largest or oldest ends. */
  readonly disk: DiskStatus | null;
  /** What others than the lane have written on the target, by table; null where nobody looks, see docs/conflicts.md. */
  readonly guard: readonly GuardedTable[] | null;
  /** Foreign keys, triggers, rules and indexes of the target that are set aside, in the order in which they come back. */
  readonly parked: readonly ParkedStatus[];
  /** The copy of existing rows, of all tables together. */
  readonly copy: CopyProgress;
  readonly tables: readonly TableStatus[];
}

export interface BacklogStatus {
  readonly table: string;
  /** Deltas staged, and those that are not yet, including what came since. */
  readonly staged: number;
  readonly left: number;
  /** Deltas a second of late, and how long the rest will take at that; null while nobody can tell. */
  readonly perSecond: number | null;
  readonly secondsLeft: number | null;
}

export interface DiskStatus extends DeltaUsage {
  /** It comes near to one of its limits. */
  readonly near: boolean;
}

/** Of a sync whose databases cannot be asked, for the reason that `why` gives. */
export type UnknownStatus = Pick<SyncStatus, 'sync' | 'verdict' | 'why'>;

export interface ParkedStatus {
  /** `foreign_key`, `trigger`, `rule` or `index`. */
  readonly kind: string;
  readonly table: string;
  readonly name: string;
  /** The statements that put it back. */
  readonly restore: string;
  /** Why it could not be put back when that was tried last; null when it was not. */
  readonly reason: string | null;
}

/** Lag from which a sync is not ready. */
const READY_LAG_SECONDS = 30;

export type TableFilter = (table: TableName) => boolean;

/** Errors: `not_set_up` when the sync is not known on the target; `unsupported` when a later version set it up. */
export async function readStatus(
  source: Session,
  target: Session,
  sync: string,
  filter: TableFilter,
): Promise<SyncStatus> {
  const fault =
    (await standbyOf(source)) ?? (await standbyOf(target)) ?? (await findHistoryFault(source, target, sync));
  const record = await requireRecord(target, sync);
  const { paused, slowed } = await readRestraint(target, sync);
  const installed = await isInstalled(source, 'source');
  const lost = installed ? await readReasons(source, sync) : new Map<number, string>();
  const states = (await readSyncTables(target, sync))
    .filter(filter)
    .map((state) => ({ ...state, reason: lost.get(state.relid) ?? state.reason }));
  const pending = installed
    ? await readPending(source, sync, record.position, record.started === null ? [] : states)
    : new Map();
  const progress = await readTableProgress(target, sync, (relids) => readEstimates(source, relids));
  const counts = await readCounts(target, sync);
  const progressOf = new Map(progress.map((one) => [one.relid, one]));
  const tables = states.flatMap((state) => {
    const own = progressOf.get(state.relid);
    if (own === undefined) return [];
    const known = { ...own, reason: state.reason };
    const met = counts.filter(({ schema, name }) => schema === state.schema && name === state.name);
    const conflicts = Object.fromEntries(met.map(({ type, n }) => [type, n]));
    return [{ ...tableStatus(state, pending.get(state.relid)?.deltas ?? 0, known), conflicts }];
  });
  const inStep = states
    .filter((state) => state.state === 'streaming')
    .map((state) => pending.get(state.relid));
  const lag = {
    seconds: Math.max(0, ...inStep.map((one) => one?.ageSeconds ?? 0)),
    bytes: [...pending.values()].reduce((sum, one) => sum + one.bytes, 0),
    keys: [...pending.values()].reduce((sum, one) => sum + one.deltas, 0),
  };
  const daemon = await readDaemon(target, sync);
  const parked = (await readParked(target, sync)).map((object) => ({
    kind: object.kind,
    table: tableLabel(object),
    name: object.object,
    restore: [object.restore, object.remark].filter((statement) => statement !== null).join('; '),
    reason: object.reason,
  }));
  const trouble = await readTrouble(target, sync);
  const backlogs = (await readStagedAmounts(target, sync)).flatMap(({ relid, deltas, perSecond }) => {
    const table = states.find((state) => state.relid === relid);
    if (table === undefined) return [];
    const left = Math.max(0, (pending.get(relid)?.deltas ?? 0) - deltas);
    const secondsLeft = perSecond === null ? null : left / perSecond;
    return [{ table: tableLabel(table), staged: deltas, left, perSecond, secondsLeft }];
  });
  const guard = await readGuard(target, sync);
  const why = [
    ...(fault === null ? [] : [`${fault.message} (${fault.hint})`]),
    ...reasons({ tables, lagSeconds: lag.seconds, daemon, paused, trouble, parked }),
    ...unguarded(states, guard),
  ];
  return {
    sync,
    source: source.server,
    target: target.server,
    tls: { source: source.peer.tls, target: target.peer.tls },
    remarks: [
      remarkOnSide('source', source),
      remarkOnSide('target', target),
      installed ? await remarkOnSequences(source, target, sync, states) : null,
    ].filter((remark) => remark !== null),
    verdict: why.length === 0 ? 'READY' : 'NOT READY',
    why,
    daemon,
    paused,
    slowed: daemon === null ? null : slowed,
    trouble,
    epoch: record.epoch,
    position: record.started,
    lag,
    backlogs,
    merge: daemon === null ? null : await readMerging(target, sync),
    disk: installed ? await readDisk(source, sync) : null,
    guard,
    parked,
    copy: sumOf(tables, await countJobs(target, sync)),
    tables,
  };
}

/** Of a sync between two nodes, once for both lanes. One that a cutover fenced has two lanes, too, and one side that is written. */
async function remarkOnSequences(
  source: Session,
  target: Session,
  sync: string,
  tables: readonly SyncTable[],
): Promise<string | null> {
  const [lane] = await source.rows<{ echo: string | null }>(
    `select to_jsonb(s) ->> 'echo' as echo from ibex.source_sync s where s.name = $1`,
    [sync],
  );
  if ((lane?.echo ?? null) === null || sync.endsWith('.back')) return null;
  if ((await readFence(source, sync)).lifts !== null) return null;
  const nodes = [source, target].map((session) => ({ name: session.server, session }));
  const what = collisionText((await readShared(nodes, tables)).shared);
  return what === null ? null : `${what}. ${INTERLEAVE}`;
}

function remarkOnSide(side: string, { peer }: Session): string | null {
  const remark = remarkOn(peer);
  return remark === null ? null : `${side}: ${remark}`;
}

async function readDisk(source: Session, sync: string): Promise<DiskStatus> {
  const usage = await readUsage(source, sync, true);
  return { ...usage, near: isNear(usage) };
}

/** Why tables wait whose deltas were given up, as the source has it noted: whether or not a daemon has seen it yet. */
async function readReasons(source: Session, sync: string): Promise<Map<number, string>> {
  const tables = await readGivenUp(source, sync);
  return new Map(tables.map((table) => [table.relid, needsBackfill(table)]));
}

async function standbyOf(session: Session): Promise<IbexError | null> {
  try {
    await checkServer(session);
    return null;
  } catch (error) {
    if (isKind(error, 'standby')) return error;
    throw error;
  }
}

function tableStatus(
  state: SyncTable,
  pending: number,
  { table, reason, copied, expected, surplus, bytes, sent, chunks }: TableProgress,
): Omit<TableStatus, 'conflicts'> {
  const held = state.state === 'held' ? pending : 0;
  return {
    ...{ table, state: state.state, reason, copied, expected, surplus, bytes, sent, chunks },
    captured: state.captured + held,
    applied: state.applied,
    coalesced: state.coalesced,
    resolved: state.resolved,
    held: state.held + held,
    pending: pending - held,
  };
}

interface Facts extends Pick<SyncStatus, 'tables' | 'daemon' | 'paused' | 'trouble' | 'parked'> {
  readonly lagSeconds: number;
}

function reasons({ tables, lagSeconds, daemon, paused, trouble, parked }: Facts): string[] {
  const why: string[] = [];
  if (trouble !== null) why.push(`thrown back, to try again by itself: ${trouble}`);
  else if (daemon === null) why.push('no daemon runs this sync');
  if (paused !== null) why.push(`${pausedSince(paused)}; \`ibex resume\` lets it go on`);
  for (const table of tables) {
    const named = table.reason?.startsWith(`${table.table}: `);
    if (table.state === 'dropped') continue;
    if (table.reason !== null) why.push(named ? table.reason : `${table.table}: ${table.reason}`);
    else if (table.state !== 'streaming') why.push(`${table.table} is ${table.state}`);
  }
  if (lagSeconds > READY_LAG_SECONDS) why.push(`the target is ${Math.round(lagSeconds)} s behind`);
  const keys = parked.filter(({ kind }) => kind === 'foreign_key');
  if (keys.length > 0) why.push(`foreign keys are set aside: ${keys.map(asideText).join(', ')}`);
  // Others are about to be built, which the state of their table says.
  const indexes = parked.filter(({ kind, reason }) => kind === 'index' && reason !== null);
  if (indexes.length > 0) why.push(`indexes are set aside: ${indexes.map(asideText).join(', ')}`);
  return why;
}

/** Tables on the target of which nobody would notice what others write, though somebody should. */
function unguarded(states: readonly SyncTable[], guard: SyncStatus['guard']): string[] {
  if (guard === null) return [];
  const byTable = new Map(guard.map((one) => [one.table, one]));
  return states.flatMap((state) => {
    const own = byTable.get(tableLabel(state));
    if (state.state === 'dropped' || (own?.armed && own.givenUp === null)) return [];
    // It may not even be there.
    if (own === undefined && state.reason !== null) return [];
    const why = own?.givenUp ?? 'the log of the daemon says why';
    return [`${tableLabel(state)} is not guarded: ${why}`];
  });
}

function asideText({ name, table, reason }: ParkedStatus): string {
  return `${name} of ${table}${reason === null ? '' : ` (${reason})`}`;
}

/** The daemon that runs a sync; null when nobody does, or it fell silent. */
export async function readDaemon(target: Session, sync: string): Promise<SyncStatus['daemon']> {
  const [daemon] = await target.rows<{ host: string; pid: number; silentSeconds: number }>(
    `select h.host, h.pid, extract(epoch from clock_timestamp() - h.beat_at)::float8 as "silentSeconds"
       from ibex.holder h
      where h.sync = $1
        and exists (select from pg_locks l
                     where l.locktype = 'advisory' and l.granted
                       and l.database = (select oid from pg_database where datname = current_database())
                       and l.classid::int8::bit(32) = hashtext('ibex')::bit(32)
                       and l.objid::int8::bit(32) = hashtext('lane ' || $1)::bit(32))`,
    [sync],
  );
  return daemon === undefined || daemon.silentSeconds * 1000 > SILENT_MS ? null : daemon;
}
