/** The progress of copies, kept in the target: states of `ibex.target_table`, rows of `ibex.part` and `ibex.chunk`. */

import { forgetStage } from '../apply/stages.ts';
import { lockCheckpoint, lockSyncTables, requireEpoch, type TableState } from '../apply/state.ts';
import type { Carried } from '../core/carried.ts';
import { IbexError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { ChunkPlan } from './chunks.ts';

export interface Chunk extends ChunkPlan {
  readonly relid: number;
  readonly n: number;
}

/** A part of a table that is to be copied by itself, see `ibex.part`. */
export interface Part {
  readonly relation: number | null;
  readonly predicate: string | null;
}

/** The lane under whose epoch is copied. */
export interface CopyLane {
  readonly sync: string;
  readonly epoch: number;
}

/** The copy of one table. */
export interface CopyKey extends CopyLane {
  readonly relid: number;
}

/** What the record says of a table whose copy begins or goes on. */
export interface CopyState {
  readonly relid: number;
  readonly state: TableState;
  readonly replace: boolean;
  /** Columns are to be filled first. */
  readonly fill: boolean;
  /** Parts were asked for. */
  readonly parts: boolean;
  /** Rows that the target had as the copy began; null when nobody knows. */
  readonly found: number | null;
  /** How many chunks it has, and how many of them are still to be copied. */
  readonly chunks: number;
  readonly unfinished: number;
}

export async function readCopyStates(
  target: Session,
  sync: string,
  relids: readonly number[],
): Promise<Map<number, CopyState>> {
  const rows = await target.rows<CopyState>(
    `select t.relid::float8 as relid, t.state, t.replace, t.fill is not null as fill, t.found::float8 as found,
            exists (select from ibex.part p where (p.sync, p.relid) = (t.sync, t.relid)) as parts,
            c.chunks, c.unfinished
       from ibex.target_table t
      cross join lateral (select count(*)::int4 as chunks, count(*) filter (where c.rows is null)::int4 as unfinished
                            from ibex.chunk c where (c.sync, c.relid) = (t.sync, t.relid)) c
      where t.sync = $1 and t.relid = any ($2::int8[])`,
    [sync, relids],
  );
  return new Map(rows.map((row) => [row.relid, row]));
}

/** A chunk as its columns read. */
export type ChunkRow = Record<'relid' | 'relation' | 'filenode' | 'first' | 'planned', string> &
  Pick<Chunk, 'n' | 'predicate' | 'part'> & { readonly last: string | null };

export const CHUNK_COLUMNS = `c.relid::text, c.n, c.relation::text, c.filenode::text, c.first_block::text as first,
  c.last_block::text as last, c.predicate, c.part, c.planned::text`;

export function toChunk({ n, predicate, part, ...row }: ChunkRow): Chunk {
  return {
    relid: Number(row.relid),
    n,
    relation: Number(row.relation),
    filenode: Number(row.filenode),
    firstBlock: Number(row.first),
    lastBlock: row.last === null ? null : Number(row.last),
    predicate,
    part,
    planned: Number(row.planned),
  };
}

/** The chunks of some tables that are still to be copied, in their order. */
export async function readUnfinished(
  target: Session,
  sync: string,
  relids: readonly number[],
): Promise<Chunk[]> {
  const rows = await target.rows<ChunkRow>(
    `select ${CHUNK_COLUMNS} from ibex.chunk c
      where c.sync = $1 and c.relid = any ($2::int8[]) and c.rows is null order by c.relid, c.n`,
    [sync, relids],
  );
  return rows.map(toChunk);
}

/** A copy that begins. */
export interface CopyStart {
  readonly relid: number;
  readonly floor: Snapshot;
  readonly choice: string | null;
  readonly carried: Carried;
  /** Rows that the target has. */
  readonly found: number;
  readonly chunks: readonly ChunkPlan[];
}

/** Writes down plan and lower bound of copies that begin. Part of the caller's transaction. */
export async function startCopies(
  target: Session,
  { sync, epoch }: CopyLane,
  starts: readonly CopyStart[],
): Promise<void> {
  await requireEpoch(target, sync, epoch);
  const relids = starts.map(({ relid }) => relid);
  await target.run('delete from ibex.chunk where sync = $1 and relid = any ($2::int8[])', [sync, relids]);
  await target.run('delete from ibex.part where sync = $1 and relid = any ($2::int8[])', [sync, relids]);
  const started = await target.run(
    `update ibex.target_table t
        set state = 'copying', floor = s.floor, reason = null, changed_at = clock_timestamp(), copied = 0, replace = false,
            choice = s.choice, carried = s.carried, ahead = '{}', fill = null, found = s.found, met = 0
       from json_to_recordset($2) s(relid int8, floor text, choice text, carried jsonb, found int8)
      where t.sync = $1 and t.relid = s.relid and t.state in ('pending', 'copying')`,
    [sync, JSON.stringify(starts.map(({ chunks: _, ...start }) => start))],
  );
  if (started !== starts.length)
    throw new IbexError('source_moved', 'a copy was called off before it could begin');
  await addChunks(
    target,
    sync,
    starts.flatMap(({ relid, chunks }) => chunks.map((chunk) => ({ relid, ...chunk }))),
  );
}

async function addChunks(
  target: Session,
  sync: string,
  chunks: readonly (ChunkPlan & { readonly relid: number })[],
): Promise<void> {
  await target.run(
    `insert into ibex.chunk (sync, relid, n, relation, filenode, first_block, last_block, predicate, part, planned)
     select $1, c.relid, coalesce((select max(l.n) from ibex.chunk l where l.sync = $1 and l.relid = c.relid), 0)
              + row_number() over (partition by c.relid order by c.i),
            c.relation, c.filenode, c."firstBlock", c."lastBlock", c.predicate, c.part, c.planned
       from json_to_recordset($2) c(i int4, relid int8, relation int8, filenode int8, "firstBlock" int8,
                                    "lastBlock" int8, predicate text, part bool, planned int8)`,
    [sync, JSON.stringify(chunks.map((chunk, i) => ({ ...chunk, i })))],
  );
}

/**
 * Asks for parts of a table to be copied. A table in step leaves the lane for it: its lower bound is the checkpoint,
 * since what changed before is on the target. One that has a lower bound keeps it; one that is to be copied whole
 * has these parts in that copy.
 */
export async function requestParts(
  target: Session,
  sync: string,
  relid: number,
  parts: readonly Part[],
): Promise<void> {
  await target.transaction('', async () => {
    const { position } = await lockCheckpoint(target, sync);
    const [table] = await lockSyncTables(target, sync, [relid]);
    if (table === undefined || table.state === 'pending') return;
    if (table.state !== 'copying') {
      // The parts will be newer than what was staged from the same lower bound.
      await forgetStage(target, { sync, relid });
      await target.run('delete from ibex.chunk where sync = $1 and relid = $2', [sync, relid]);
      await target.run(
        `update ibex.target_table
            set state = 'copying', floor = coalesce(floor, $3), reason = null, changed_at = clock_timestamp()
          where sync = $1 and relid = $2`,
        [sync, relid, position],
      );
    }
    await target.run(
      `insert into ibex.part (sync, relid, relation, predicate)
       select $1, $2, p.relation, p.predicate from json_to_recordset($3) p(relation int8, predicate text)`,
      [sync, relid, JSON.stringify(parts)],
    );
  });
}

export async function readParts(target: Session, { sync, relid }: CopyKey): Promise<Part[]> {
  const rows = await target.rows<{ relation: string | null; predicate: string | null }>(
    'select relation::text, predicate from ibex.part where sync = $1 and relid = $2 order by n',
    [sync, relid],
  );
  return rows.map(({ relation, predicate }) => ({
    relation: relation === null ? null : Number(relation),
    predicate,
  }));
}

/**
 * Turns the parts that were asked for into chunks, with whatever `also` does, in one transaction. Chunks of relations
 * that are no `members` of the table any more are dropped.
 */
export async function startParts(
  target: Session,
  key: CopyKey,
  members: readonly number[],
  chunks: readonly ChunkPlan[],
  also: () => Promise<void>,
): Promise<void> {
  await target.transaction('', async () => {
    if (!(await lockCopy(target, key))) return;
    await also();
    await target.run('delete from ibex.part where sync = $1 and relid = $2', [key.sync, key.relid]);
    await target.run(
      'delete from ibex.chunk where sync = $1 and relid = $2 and relation <> all ($3::int8[])',
      [key.sync, key.relid, members],
    );
    await addChunks(target, key.sync, ofTable(key, chunks));
  });
}

/** Plans the chunks of one relation anew: its rows have moved to another file. */
export async function replanRelation(
  target: Session,
  key: CopyKey,
  relation: number,
  chunks: readonly ChunkPlan[],
): Promise<void> {
  await target.transaction('', async () => {
    if (!(await lockCopy(target, key))) return;
    await target.run(
      `with gone as (
         delete from ibex.chunk where sync = $1 and relid = $2 and relation = $3 and predicate is null returning rows
       )
       update ibex.target_table set copied = copied - (select coalesce(sum(rows), 0) from gone)
        where sync = $1 and relid = $2`,
      [key.sync, key.relid, relation],
    );
    await addChunks(target, key.sync, ofTable(key, chunks));
  });
}

/** Puts others in the place of a chunk that is not copied yet. */
export async function replaceChunk(
  target: Session,
  key: CopyKey,
  n: number,
  chunks: readonly ChunkPlan[],
): Promise<void> {
  await target.transaction('', async () => {
    if (!(await lockCopy(target, key))) return;
    const removed = await target.run(
      'delete from ibex.chunk where sync = $1 and relid = $2 and n = $3 and rows is null',
      [key.sync, key.relid, n],
    );
    if (removed === 1) await addChunks(target, key.sync, ofTable(key, chunks));
  });
}

function ofTable({ relid }: CopyKey, chunks: readonly ChunkPlan[]) {
  return chunks.map((chunk) => ({ relid, ...chunk }));
}

/**
 * All chunks of these tables are in: the next batch takes them from their lower bounds on. Resolves to those of which
 * that is true; of others parts or chunks came meanwhile, or the copy was called off since all of it has to start anew.
 */
export async function finishCopies(
  target: Session,
  { sync, epoch }: CopyLane,
  relids: readonly number[],
): Promise<Set<number>> {
  return target.transaction('', async () => {
    await requireEpoch(target, sync, epoch);
    await lockSyncTables(target, sync, relids);
    const rows = await target.rows<{ relid: number }>(
      `update ibex.target_table t set state = 'joining', reason = null, changed_at = clock_timestamp()
        where t.sync = $1 and t.relid = any ($2::int8[]) and t.state = 'copying'
          and not exists (select from ibex.part p where (p.sync, p.relid) = (t.sync, t.relid))
          and not exists (select from ibex.chunk c where (c.sync, c.relid) = (t.sync, t.relid) and c.rows is null)
       returning t.relid::float8 as relid`,
      [sync, relids],
    );
    failpoint('during-hand-over');
    return new Set(rows.map(({ relid }) => relid));
  });
}

/** Locks a table's row until the transaction ends: false when its copy was called off. */
async function lockCopy(target: Session, { sync, epoch, relid }: CopyKey): Promise<boolean> {
  await requireEpoch(target, sync, epoch);
  const [table] = await lockSyncTables(target, sync, [relid]);
  return table?.state === 'copying';
}
