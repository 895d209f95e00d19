/**
 * The source's own record of what is captured and who still needs it: the tables `ibex.captured`, `ibex.source_sync`
 * and `ibex.source_table`, and the functions below `triggers/source/functions` that work on them.
 */
import { IbexError } from '../../core/errors.ts';
import type { FoundHistory } from '../../core/history.ts';
import type { CaptureMode } from '../../core/plan.ts';
import { identityDifference, type Snapshot, type SourceIdentity } from '../../core/position.ts';
import type { CapturedTable } from '../../core/table.ts';
import { readIdentity, readTables } from '../../postgres/catalog.ts';
import { waitForFlush } from '../../postgres/flush.ts';
import type { Session } from '../../postgres/session.ts';
import { needsBackfill } from './budget.ts';

/** Records which database this is, or finds that the schema `ibex` was restored from another one. */
export async function claimIdentity(session: Session, identity: SourceIdentity): Promise<void> {
  await session.run(
    'insert into ibex.identity (system, database, timeline) values ($1, $2, $3) on conflict do nothing',
    [identity.system, identity.database, identity.timeline],
  );
  const recorded = await session.row<SourceIdentity>('select system, database, timeline from ibex.identity');
  // A promotion keeps the data and its triggers: the lane judges it by its own position.
  const difference = identityDifference({ ...recorded, timeline: identity.timeline }, identity);
  if (difference === null) return;
  throw new IbexError(
    'identity',
    `${session.server}: the schema ibex here belongs to another database: ${difference}`,
    {
      hint: 'This database is a restored copy. Remove what came with it: ibex teardown --source URL, then ibex setup.',
    },
  );
}

/** What is committed on the source now. */
export async function readSnapshot(session: Session): Promise<Snapshot> {
  const { snapshot } = await session.row<{ snapshot: Snapshot }>(
    'select txid_current_snapshot()::text as snapshot',
  );
  return snapshot;
}

/** As `readSnapshot`, for a position that lasts: one that no crash of the source can take back. */
export async function readLastingSnapshot(session: Session): Promise<Snapshot> {
  const { snapshot, lsn } = await session.row<{ snapshot: Snapshot; lsn: string }>(
    'select txid_current_snapshot()::text as snapshot, pg_current_wal_insert_lsn()::text as lsn',
  );
  await waitForFlush(session, lsn);
  return snapshot;
}

/** `witness` is the least that a sync starts with which the source has lost, such as by a teardown of this side alone. */
export async function registerSync(session: Session, sync: string, witness: number): Promise<void> {
  await session.run(
    'insert into ibex.source_sync (name, position, witness) values ($1, txid_current_snapshot(), $2) on conflict do nothing',
    [sync, witness],
  );
}

/**
 * Sets the node whose changes a sync does not carry, as they came from there by another lane; null: it carries all. From
 * the next statement of a session on the trigger functions of its tables note, or leave out, what it says. Locks: none on
 * the application's tables.
 */
export async function setEcho(session: Session, sync: string, node: string | null): Promise<void> {
  await session.transaction('', async () => {
    const changed = await session.run(
      'update ibex.source_sync set echo = $2 where name = $1 and echo is distinct from $2',
      [sync, node],
    );
    if (changed === 0) return;
    await session.rows(
      `select ibex.write_functions(c.relid)
         from (select c.relid from ibex.captured c join ibex.source_table t on t.relid = c.relid and t.sync = $1
                order by c.relid for update of c) c`,
      [sync],
    );
  });
}

/**
 * Prepares a sync whose target, `node`, is written too: what its lane brings here is not carried back to it, and what is
 * noted here is kept until a batch that comes from there has seen it.
 */
export async function expectRival(session: Session, sync: string, node: string): Promise<void> {
  await session.run('update ibex.source_sync set seen = position where name = $1 and seen is null', [sync]);
  await setEcho(session, sync, node);
}

/** What the source shows of its history; works whatever version of the schema `ibex` it has, and without any. */
export async function readHistory(session: Session, sync: string): Promise<FoundHistory> {
  const identity = await readIdentity(session);
  const { now, known } = await session.row<{ now: Snapshot; known: boolean }>(
    `select txid_current_snapshot()::text as now, to_regclass('ibex.source_sync') is not null as known`,
  );
  const [row] = known
    ? await session.rows<{ witness: number | null }>(
        `select (to_jsonb(s) ->> 'witness')::float8 as witness from ibex.source_sync s where s.name = $1`,
        [sync],
      )
    : [];
  return { identity, now, witness: row?.witness ?? null };
}

/** Makes the source differ, in a row that every batch reads, from any copy of it that was taken before. */
export async function moveWitness(session: Session, sync: string): Promise<void> {
  await session.run('update ibex.source_sync set witness = witness + 1 where name = $1', [sync]);
}

export async function registerTable(session: Session, sync: string, relid: number): Promise<void> {
  await session.run(
    `insert into ibex.source_table (sync, relid, floor) values ($1, $2, txid_current_snapshot()) on conflict do nothing`,
    [sync, relid],
  );
}

/** The tables of a sync, as the source has them noted. */
export async function readRegistered(session: Session, sync: string): Promise<number[]> {
  const rows = await session.rows<{ relid: string }>(
    'select relid::int8::text as relid from ibex.source_table where sync = $1',
    [sync],
  );
  return rows.map(({ relid }) => Number(relid));
}

/**
 * Notes, before the first row of some tables is copied, the position from which their deltas will be needed, and returns
 * it, by table. Taken after they were armed: every change is in a delta, in a chunk, or in both.
 * Errors: `not_set_up` when one is not part of the sync on the source.
 */
export async function setFloors(
  session: Session,
  sync: string,
  relids: readonly number[],
): Promise<Map<number, Snapshot>> {
  const rows = await session.rows<{ relid: number; floor: Snapshot }>(
    `update ibex.source_table set floor = txid_current_snapshot() where sync = $1 and relid = any ($2::oid[])
     returning relid::int8::float8 as relid, floor::text`,
    [sync, relids],
  );
  const floors = new Map(rows.map(({ relid, floor }) => [relid, floor]));
  const missing = relids.find((relid) => !floors.has(relid));
  if (missing === undefined) return floors;
  throw new IbexError('not_set_up', `table ${missing} is not part of sync ${sync} on the source`);
}

/** What a sync has durably on its target, read there at one moment. */
export interface Applied {
  readonly position: Snapshot;
  /** Each table, with its own lower bound while it is not in step with the lane. */
  readonly tables: readonly {
    readonly relid: number;
    readonly inStep: boolean;
    readonly floor: Snapshot | null;
  }[];
}

/** The lower bounds that the source keeps for a sync, by table. Read before `Applied` is. */
export async function readFloors(session: Session, sync: string): Promise<Map<number, Snapshot>> {
  const rows = await session.rows<{ relid: string; floor: Snapshot }>(
    'select relid::text, floor::text from ibex.source_table where sync = $1 and floor is not null',
    [sync],
  );
  return new Map(rows.map((row) => [Number(row.relid), row.floor]));
}

/**
 * Tells the source what need not be kept for this sync any more.
 *
 * A floor is let go only if the table was in step after the floor was read, and only if it is still that floor:
 * a new copy of the table that starts meanwhile has set another one, which stays. A table that was held gets
 * its lower bound here before the sync's position moves past it.
 */
export async function acknowledge(
  session: Session,
  sync: string,
  floors: ReadonlyMap<number, Snapshot>,
  applied: Applied,
): Promise<void> {
  const released = applied.tables.flatMap(({ relid, inStep }) => {
    const floor = floors.get(relid);
    return inStep && floor !== undefined ? [{ relid, floor }] : [];
  });
  const kept = applied.tables.filter(({ inStep, floor }) => !inStep && floor !== null);
  await session.transaction('', async () => {
    await session.run(
      `update ibex.source_table t set floor = null from json_to_recordset($2) r(relid int8, floor text)
        where t.sync = $1 and t.relid = r.relid and t.floor::text = r.floor`,
      [sync, JSON.stringify(released)],
    );
    await session.run(
      `update ibex.source_table t set floor = k.floor::txid_snapshot from json_to_recordset($2) k(relid int8, floor text)
        where t.sync = $1 and t.relid = k.relid and t.floor is null`,
      [sync, JSON.stringify(kept)],
    );
    await session.run(
      'update ibex.source_sync set position = $2, updated_at = clock_timestamp() where name = $1',
      [sync, applied.position],
    );
  });
}

interface CapturedRow {
  relid: string;
  schema: string;
  name: string;
  mode: CaptureMode;
  noted: string[];
  notedTypes: string[];
  armed: boolean;
  forgotten: Snapshot | null;
  outline: string;
  givenUpAt: Date | null;
  givenUpWhy: string;
}

export interface CapturedRecord extends CapturedTable {
  readonly armed: boolean;
  /** Deltas visible in it are gone: a position below it cannot be read from. */
  readonly forgotten: Snapshot | null;
  /** Why it waits, if its deltas were given up for this sync; else null. */
  readonly givenUp: string | null;
}

/** The captured tables of a sync, with their columns as the catalogs have them now. Dropped tables are left out. */
export async function readCaptured(session: Session, sync: string): Promise<CapturedRecord[]> {
  const rows = await session.rows<CapturedRow>(
    `select c.relid::text, n.nspname as schema, t.relname as name, c.mode, c.columns as noted, c.types as "notedTypes",
            c.armed_at is not null as armed, c.forgotten::text,
            ibex.outline(c.relid) as outline, s.given_up_at as "givenUpAt", s.given_up_why as "givenUpWhy"
       from ibex.source_table s join ibex.captured c on c.relid = s.relid
       join pg_class t on t.oid = c.relid join pg_namespace n on n.oid = t.relnamespace
      where s.sync = $1 order by 2, 3`,
    [sync],
  );
  const tables = await readTables(session, rows);
  const byRelid = new Map(tables.map((table) => [table.relid, table]));
  return rows.flatMap((row) => {
    const table = byRelid.get(Number(row.relid));
    if (table === undefined) return [];
    const { mode, noted, notedTypes, armed, forgotten, outline, givenUpAt, givenUpWhy } = row;
    const givenUp = givenUpAt === null ? null : needsBackfill({ at: givenUpAt, why: givenUpWhy });
    return [{ ...table, mode, noted, notedTypes, armed, forgotten, outline, givenUp }];
  });
}

/** What the catalogs say of a table that was armed, against what they said then. */
export interface Drift {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly dropped: boolean;
  readonly shape: boolean;
  readonly storage: boolean;
  readonly armour: boolean;
  /** Partitions came or went. */
  readonly partitions: boolean;
  /** What another sync has answered meanwhile, of which the comparison tells nothing any more. */
  readonly missed: Missed | null;
  /** What they say now; an answer to this drift accepts this, and nothing that came later. */
  readonly seen: Signature;
  /** As of the same moment: the values of columns that are not stored in rows from before them. */
  readonly missing: Readonly<Record<string, string | null>>;
  readonly outline: string | null;
}

/** - `plan`: the columns are others. - `rows`: rows came, went or changed without a delta. */
export type Missed = 'plan' | 'rows';

/** What the catalogs said at one moment, see `ibex.signatures`. */
export interface Signature {
  readonly shape: string;
  readonly storage: string;
  readonly armour: string;
  readonly tree: string | null;
}

/** The armed tables whose catalog rows changed since; nothing is changed by asking. One statement: one moment. */
export async function readDrift(session: Session, sync: string): Promise<Drift[]> {
  return session.rows<Drift>(
    `with armed as (
       select c.*, t.missed from ibex.source_table t join ibex.captured c on c.relid = t.relid
        where t.sync = $1 and c.armed_at is not null and t.given_up_at is null
     )
     select d.*, coalesce(ibex.missing_values(d.relid::int8::oid), '{}') as missing,
            ibex.outline(d.relid::int8::oid) as outline from (
       select c.relid::int8::float8 as relid, c.schema_name as schema, c.table_name as name,
              s.relid is null as dropped, s.shape is distinct from c.shape as shape,
              s.storage is distinct from c.storage as storage, s.armour is distinct from c.armour as armour,
              s.tree is distinct from c.tree as partitions, c.missed,
              json_build_object('shape', s.shape, 'storage', s.storage, 'armour', s.armour, 'tree', s.tree) as seen
         from armed c
         left join ibex.signatures((select array_agg(a.relid) from armed a)) s on s.relid = c.relid) d
      where dropped or shape or storage or armour or partitions or missed is not null`,
    [sync],
  );
}

/**
 * What one sync answers and records, the others that carry the table would not find any more: they are told. To be
 * called before it is recorded.
 */
export async function tellOthers(
  session: Session,
  sync: string,
  relid: number,
  missed: Missed,
): Promise<void> {
  await session.run(
    `update ibex.source_table set missed = case missed when 'rows' then missed else $3 end
      where relid = $2 and sync <> $1`,
    [sync, relid, missed],
  );
}

/** Records that this sync has answered what it was told. */
export async function settleMissed(session: Session, sync: string, relid: number): Promise<void> {
  await session.run('update ibex.source_table set missed = null where sync = $1 and relid = $2', [
    sync,
    relid,
  ]);
}

/** Accepts what was seen as the state to compare with; what changed after that look is found by the next one. */
export async function acceptSignature(session: Session, relid: number, seen: Signature): Promise<void> {
  await session.run(
    `update ibex.captured c
        set shape = $2, storage = $3, armour = $4, tree = $5, leaves = ibex.refresh_leaves(c.relid, c.leaves)
      where c.relid = $1`,
    [relid, seen.shape, seen.storage, seen.armour, seen.tree],
  );
}

/** What partitions that came or went leave to do, see `ibex.partition_changes`. */
export interface PartitionChanges {
  readonly exact: boolean;
  readonly parts: readonly { readonly relation: number | null; readonly predicate: string | null }[] | null;
  readonly came: string;
  readonly went: string;
  readonly seen: Signature;
  readonly leaves: unknown;
}

/** Undefined while a relation of the table lacks its triggers. */
export async function readPartitionChanges(
  session: Session,
  relid: number,
): Promise<PartitionChanges | undefined> {
  const [changes] = await session.rows<PartitionChanges>('select * from ibex.partition_changes($1)', [relid]);
  return changes;
}

/** Makes sure that this partition is dealt with, even if it is gone again by the next look at the catalogs. */
export async function noteSeenPartition(session: Session, relid: number, leaf: number): Promise<void> {
  await session.run('select ibex.note_seen($1, $2)', [relid, leaf]);
}

/** Records that these changes are answered. */
export async function acceptPartitions(
  session: Session,
  relid: number,
  { seen, leaves }: PartitionChanges,
): Promise<void> {
  await session.run(
    'update ibex.captured set storage = $2, armour = $3, tree = $4, leaves = $5 where relid = $1',
    [relid, seen.storage, seen.armour, seen.tree, leaves === null ? null : JSON.stringify(leaves)],
  );
}

/** Has the stream carry the rows of some keys, each an array of texts, as if they had changed. */
export async function noteKeys(
  session: Session,
  relid: number,
  keys: readonly (readonly string[])[],
): Promise<void> {
  await session.run('select ibex.note_keys($1, $2)', [relid, JSON.stringify(keys)]);
}
