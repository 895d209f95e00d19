/**
 * The target's own record of a sync: checkpoint, tables and their states (`ibex.checkpoint`, `ibex.target_table`).
 * Chunks are in `backfill/progress.ts`, who holds the lane in `engine/lease.ts`.
 */
import type { Checkpoint } from '../core/checkpoint.ts';
import { IbexError } from '../core/errors.ts';
import type { KnownHistory } from '../core/history.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Snapshot, SourceIdentity } from '../core/position.ts';
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import type { Statement } from '../postgres/together.ts';
import { forgetStage } from './stages.ts';
import { firing } from './target-table.ts';

/** A daemon that has not said that it lives for so long counts as gone. */
export const SILENT_MS = 10_000;

/** Who may move a table from each state is said in triggers/target/tables/0001_apply.sql. */
export type TableState = 'pending' | 'copying' | 'joining' | 'streaming' | 'held' | 'dropped';

export interface SyncTable extends TableName {
  readonly relid: number;
  readonly state: TableState;
  readonly replace: boolean;
  readonly floor: Snapshot | null;
  readonly reason: string | null;
  readonly copied: number;
  readonly captured: number;
  readonly applied: number;
  readonly coalesced: number;
  readonly resolved: number;
  readonly held: number;
}

/** The checkpoint, and what is known of the source that it belongs to. */
export type SyncRecord = Checkpoint & KnownHistory;

/** Registers a sync on the target; repeatable. */
export async function registerSync(session: Session, sync: string, source: SourceIdentity): Promise<void> {
  await session.run(
    `insert into ibex.checkpoint (sync, system, database, timeline) values ($1, $2, $3, $4)
     on conflict (sync) do nothing`,
    [sync, source.system, source.database, source.timeline],
  );
}

export async function readRecord(session: Session, sync: string): Promise<SyncRecord | undefined> {
  return toRecord(await session.rows<RecordRow>(READ_RECORD, [sync]));
}

/**
 * Reads the checkpoint and locks its row until the transaction ends: the fence of the exactly-once rule. Others may
 * still refer to the row, as the backfill's chunks do.
 */
export async function lockCheckpoint(session: Session, sync: string): Promise<SyncRecord> {
  return lockedCheckpoint(session, sync, await session.rows<RecordRow>(LOCK_RECORD, [sync]));
}

/** As `lockCheckpoint`, for who opens a transaction with it; `lockedCheckpoint` takes the rows that it gives. */
export function lockingCheckpoint(sync: string): Statement {
  return { text: LOCK_RECORD, values: [sync], prepared: true };
}

export function lockedCheckpoint(session: Session, sync: string, rows: readonly unknown[]): SyncRecord {
  const record = toRecord(rows as readonly RecordRow[]);
  if (record !== undefined) return record;
  throw notSetUp(session, sync);
}

/** The server does not know the sync. */
export function notSetUp({ server }: Session, sync: string): IbexError {
  return new IbexError('not_set_up', `sync ${sync} is not set up on ${server}`);
}

/** The record of a sync. Errors: `not_set_up` when the target does not know it. */
export async function requireRecord(session: Session, sync: string): Promise<SyncRecord> {
  const record = (await isInstalled(session, 'target')) ? await readRecord(session, sync) : undefined;
  if (record !== undefined) return record;
  throw notSetUp(session, sync);
}

/** Also of a schema from before there was a witness. */
const READ_RECORD = `select epoch::text, position, coalesce((to_jsonb(c) ->> 'witness')::float8, 0) as witness, system, database, timeline
     from ibex.checkpoint c where sync = $1`;

const LOCK_RECORD = `${READ_RECORD} for no key update`;

type RecordRow = SourceIdentity & {
  readonly epoch: string;
  readonly position: string | null;
  readonly witness: number;
};

function toRecord([row]: readonly RecordRow[]): SyncRecord | undefined {
  if (row === undefined) return undefined;
  const { epoch, position, witness, ...source } = row;
  return { epoch: Number(epoch), position: position ?? '', started: position, witness, source };
}

/** Checkpoint and tables as they were at one moment. */
export async function readApplied(session: Session, sync: string) {
  return session.transaction('isolation level repeatable read read only', async () => ({
    record: await readRecord(session, sync),
    tables: await readSyncTables(session, sync),
  }));
}

/** Sets the first position of a lane; one that is there stays. */
export async function startLane(
  session: Session,
  sync: string,
  epoch: number,
  position: Snapshot,
): Promise<void> {
  await session.run(
    'update ibex.checkpoint set position = $3, moved_at = clock_timestamp() where sync = $1 and epoch = $2 and position is null',
    [sync, epoch, position],
  );
}

export function movingCheckpoint(
  sync: string,
  { to, witness }: { readonly to: Snapshot; readonly witness: number },
): Statement {
  return {
    text: 'update ibex.checkpoint set position = $2, witness = $3, moved_at = clock_timestamp() where sync = $1',
    values: [sync, to, witness],
    prepared: true,
  };
}

/**
 * Notes how much of this side's changes the last batch had seen: what is newer is kept, see `ibex.forget`.
 */
export function notingSeen(counterpart: string, position: Snapshot): Statement {
  return {
    text: 'update ibex.source_sync set seen = $2 where name = $1',
    values: [counterpart, position],
    prepared: true,
  };
}

/** Adds tables to a sync as pending; one that is there keeps its state but takes a new name. */
export async function registerTables(
  session: Session,
  sync: string,
  tables: readonly (TableName & { readonly relid: number })[],
): Promise<void> {
  const names = tables.map(({ relid, schema, name }) => ({ relid, schema, name }));
  await session.run(
    `insert into ibex.target_table (sync, relid, schema_name, table_name, state)
     select $1, t.relid, t.schema, t.name, 'pending' from json_to_recordset($2) t(relid int8, schema text, name text)
     on conflict (sync, relid) do update set schema_name = excluded.schema_name, table_name = excluded.table_name`,
    [sync, JSON.stringify(names)],
  );
}

const READ_TABLES = `
  select relid::text, schema_name as schema, table_name as name, state, replace, floor, reason,
         copied::text, captured::text, applied::text, coalesced::text, resolved::text, held::text
    from ibex.target_table where sync = $1`;

export async function readSyncTables(session: Session, sync: string): Promise<SyncTable[]> {
  return toTables(await session.rows<TableRow>(`${READ_TABLES} order by 2, 3`, [sync]));
}

async function findTable(session: Session, sync: string, label: string): Promise<SyncTable | undefined> {
  return (await readSyncTables(session, sync)).find(
    (table) => tableLabel(table) === label && table.state !== 'dropped',
  );
}

/** The tables of a batch, locked until the transaction ends, so that nobody moves them to another state. */
export async function lockSyncTables(
  session: Session,
  sync: string,
  relids: readonly number[],
): Promise<SyncTable[]> {
  if (relids.length === 0) return [];
  return toTables(
    await session.rows<TableRow>(`${READ_TABLES} and relid = any ($2) order by relid for update`, [
      sync,
      relids,
    ]),
  );
}

/** As `lockSyncTables`, and with them all tables in step that are not among `inStep`. */
export async function lockBatchTables(
  session: Session,
  sync: string,
  relids: readonly number[],
  inStep: readonly number[],
): Promise<SyncTable[]> {
  const rows = await session.prepared<TableRow>(
    `${READ_TABLES} and (relid = any ($2) or (state = 'streaming' and relid <> all ($3))) order by relid for update`,
    [sync, relids, inStep],
  );
  return toTables(rows);
}

type Counter = 'copied' | 'captured' | 'applied' | 'coalesced' | 'resolved' | 'held';

type TableRow = Record<'relid' | Counter, string> & Omit<SyncTable, 'relid' | Counter>;

function toTables(rows: readonly TableRow[]): SyncTable[] {
  return rows.map((row) => ({
    ...row,
    relid: Number(row.relid),
    copied: Number(row.copied),
    captured: Number(row.captured),
    applied: Number(row.applied),
    coalesced: Number(row.coalesced),
    resolved: Number(row.resolved),
    held: Number(row.held),
  }));
}

export interface TableAccount {
  readonly relid: number;
  readonly captured: number;
  readonly applied: number;
  readonly coalesced: number;
  /** Keys that conflicts decided otherwise, and keys that wait for a person. */
  readonly resolved: number;
  readonly held: number;
  /** Conflicts that were met, by type. */
  readonly conflicts: Readonly<Record<string, number>>;
}

/** A table on which a trigger or rule of the application fires for what this session writes. */
export interface Disturbed extends TableName {
  readonly firing: string;
}

/**
 * Books a batch: its tables are in step with the lane now. Part of the batch's transaction. Gives those of its tables on
 * which something fired that should not have, as `Disturbed`.
 */
export function bookingBatch(sync: string, accounts: readonly TableAccount[]): Statement {
  return { text: BOOK_BATCH, values: [sync, JSON.stringify(accounts)], prepared: true };
}

const BOOK_BATCH = `
  with booked as (
    update ibex.target_table t
       set captured = t.captured + a.captured, applied = t.applied + a.applied, coalesced = t.coalesced + a.coalesced,
           resolved = t.resolved + a.resolved, held = t.held + a.held,
           state = 'streaming', floor = null, reason = null,
           changed_at = case when t.state = 'streaming' then t.changed_at else clock_timestamp() end
      from json_to_recordset($2) a(relid int8, captured int8, applied int8, coalesced int8, resolved int8, held int8)
     where t.sync = $1 and t.relid = a.relid
    returning t.schema_name as schema, t.table_name as name
  )
  select b.schema, b.name, f.firing
    from booked b cross join lateral to_regclass(format('%I.%I', b.schema, b.name)) r(relation)
    cross join lateral ${firing('r.relation')} f(firing)
   where f.firing is not null`;

/**
 * Holds a table: the lane goes on without it, and reads it again from `floor` on once it can.
 * `floor` is where it stopped; a table that already has a lower bound keeps it.
 */
export async function holdTable(
  session: Session,
  sync: string,
  label: string,
  floor: Snapshot | null,
  reason: string,
): Promise<void> {
  const table = await findTable(session, sync, label);
  const held = await session.run(
    `update ibex.target_table
        set floor = coalesce(floor, $3),
            reason = $4, changed_at = clock_timestamp(),
            state = case when state in ('pending', 'copying') then state else 'held' end
      where sync = $1 and relid = $2`,
    [sync, table?.relid ?? null, floor, reason],
  );
  // What was staged may be what holds it: once it is tried again, it is read anew.
  if (table !== undefined) await forgetStage(session, { sync, relid: table.relid });
  if (held !== 1) throw new IbexError('internal', `no table ${label} to hold in sync ${sync}`);
}

/** Notes why a table cannot be copied yet, or that nothing stands in its way any more. */
export function setReason(
  session: Session,
  sync: string,
  relid: number,
  reason: string | null,
): Promise<void> {
  return setReasons(session, sync, new Map([[relid, reason]]));
}

/** As `setReason` of many tables at once. */
export async function setReasons(
  session: Session,
  sync: string,
  reasons: ReadonlyMap<number, string | null>,
): Promise<void> {
  await session.run(
    `update ibex.target_table t set reason = r.reason, changed_at = clock_timestamp()
       from json_to_recordset($2) r(relid int8, reason text)
      where t.sync = $1 and t.relid = r.relid and t.reason is distinct from r.reason`,
    [sync, JSON.stringify([...reasons].map(([relid, reason]) => ({ relid, reason })))],
  );
}

/** Sends a table back to the start: it is copied again; `replace` empties the target's table first. */
export async function requestCopy(
  session: Session,
  sync: string,
  relid: number,
  replace: boolean,
  reason: string | null,
) {
  await session.transaction('', async () => {
    await session.run('delete from ibex.chunk where sync = $1 and relid = $2', [sync, relid]);
    await session.run('delete from ibex.part where sync = $1 and relid = $2', [sync, relid]);
    await forgetStage(session, { sync, relid });
    await session.run(
      `update ibex.target_table
          set state = 'pending', replace = $3, floor = null, fill = null, reason = $4, copied = 0, changed_at = clock_timestamp()
        where sync = $1 and relid = $2`,
      [sync, relid, replace, reason],
    );
  });
}

/** As `requestCopy` of the table with this label, emptied first. */
export async function requestCopyOf(session: Session, sync: string, label: string): Promise<void> {
  const table = await findTable(session, sync, label);
  if (table !== undefined) await requestCopy(session, sync, table.relid, true, null);
}

/** Throws `taken` unless the epoch is still the lane's. Locks the checkpoint's row against a take-over until the transaction ends. */
export async function requireEpoch(session: Session, sync: string, epoch: number): Promise<void> {
  const [row] = await session.rows<{ epoch: string }>(
    'select epoch::text from ibex.checkpoint where sync = $1 for key share',
    [sync],
  );
  if (row !== undefined && Number(row.epoch) === epoch) return;
  throw new IbexError(
    'taken',
    `sync ${sync} was taken over by another daemon (epoch ${row?.epoch ?? 'none'})`,
  );
}
