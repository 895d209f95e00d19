/** The progress of copies, kept in the target: states of `ibex.target_table`, rows of `ibex.part` and `ibex.chunk`. */
import { lockCheckpoint, lockSyncTables, requireEpoch } from '../apply/state.ts';
import type { Carried } from '../core/carried.ts';
import { IbexError } from '../core/errors.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { ChunkPlan } from './chunks.ts';

export interface Chunk extends ChunkPlan {
  readonly n: number;
  /** Null until it is copied. */
  readonly rows: number | null;
}

/** A part of a table that is to be copied by itself, see `ibex.part`. */
export interface Part {
  readonly relation: number | null;
  readonly predicate: string | null;
}

/** Names the sync, the holder's epoch and the table whose copy is meant. */
export interface CopyKey {
  readonly sync: string;
  readonly epoch: number;
  readonly relid: number;
}

export async function readChunks(target: Session, { sync, relid }: CopyKey): Promise<Chunk[]> {
  const rows = await target.rows<
    Record<'relation' | 'filenode' | 'first' | 'last' | 'rows' | 'predicate', string | null> & {
      n: number;
      part: boolean;
    }
  >(
    `select n, relation::text, filenode::text, first_block::text as first, last_block::text as last, rows::text,
            predicate, part
       from ibex.chunk where sync = $1 and relid = $2 order by n`,
    [sync, relid],
  );
  return rows.map((row) => ({
    n: row.n,
    relation: Number(row.relation),
    filenode: Number(row.filenode),
    firstBlock: Number(row.first),
    lastBlock: row.last === null ? null : Number(row.last),
    rows: row.rows === null ? null : Number(row.rows),
    predicate: row.predicate,
    part: row.part,
  }));
}

/** Writes the plan of a copy and its lower bound, with whatever `also` does, in one transaction. */
export async function startCopy(
  target: Session,
  { sync, epoch, relid }: CopyKey,
  {
    floor,
    choice,
    carried,
  }: { readonly floor: Snapshot; readonly choice: string | null; readonly carried: Carried },
  chunks: readonly ChunkPlan[],
  also: () => Promise<void>,
): Promise<void> {
  await target.transaction('', async () => {
    await requireEpoch(target, sync, epoch);
    await also();
    await target.run('delete from ibex.chunk where sync = $1 and relid = $2', [sync, relid]);
    await target.run('delete from ibex.part where sync = $1 and relid = $2', [sync, relid]);
    await addChunks(target, sync, relid, chunks);
    await move(target, { sync, epoch, relid }, ['pending', 'copying'], 'copying', floor);
    await target.run(
      `update ibex.target_table
          set copied = 0, replace = false, choice = $3, carried = $4, ahead = '{}', fill = null
        where sync = $1 and relid = $2`,
      [sync, relid, choice, JSON.stringify(carried)],
    );
  });
}

async function addChunks(
  target: Session,
  sync: string,
  relid: number,
  chunks: readonly ChunkPlan[],
): Promise<void> {
  await target.run(
    `insert into ibex.chunk (sync, relid, n, relation, filenode, first_block, last_block, predicate, part)
     select $1, $2, last.n + c.n, c.relation, c.filenode, c."firstBlock", c."lastBlock", c.predicate, c.part
       from (select coalesce(max(n), 0) as n from ibex.chunk where sync = $1 and relid = $2) last
      cross join json_to_recordset($3) c(n int4, relation int8, filenode int8, "firstBlock" int8, "lastBlock" int8,
                                         predicate text, part bool)`,
    [sync, relid, JSON.stringify(chunks.map((chunk, i) => ({ ...chunk, n: i + 1 })))],
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
    await requireEpoch(target, key.sync, key.epoch);
    if (!(await isCopying(target, key))) return;
    await also();
    await target.run('delete from ibex.part where sync = $1 and relid = $2', [key.sync, key.relid]);
    await target.run(
      'delete from ibex.chunk where sync = $1 and relid = $2 and relation <> all ($3::int8[])',
      [key.sync, key.relid, members],
    );
    await addChunks(target, key.sync, key.relid, chunks);
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
    await requireEpoch(target, key.sync, key.epoch);
    if (!(await isCopying(target, key))) return;
    await target.run(
      `with gone as (
         delete from ibex.chunk where sync = $1 and relid = $2 and relation = $3 and predicate is null returning rows
       )
       update ibex.target_table set copied = copied - (select coalesce(sum(rows), 0) from gone)
        where sync = $1 and relid = $2`,
      [key.sync, key.relid, relation],
    );
    await addChunks(target, key.sync, key.relid, chunks);
  });
}

/**
 * Locks a chunk's row until the transaction ends. False when it is copied already, or no longer part of a copy:
 * a job that wakes up late finds out here.
 */
export async function lockChunk(
  target: Session,
  { sync, epoch, relid }: CopyKey,
  n: number,
): Promise<boolean> {
  await requireEpoch(target, sync, epoch);
  const rows = await target.rows(
    `select from ibex.chunk c join ibex.target_table t using (sync, relid)
      where c.sync = $1 and c.relid = $2 and c.n = $3 and c.rows is null and t.state = 'copying' for update of c`,
    [sync, relid, n],
  );
  return rows.length === 1;
}

export async function finishChunk(
  target: Session,
  { sync, relid }: CopyKey,
  n: number,
  rows: number,
): Promise<void> {
  await target.run('update ibex.chunk set rows = $4 where sync = $1 and relid = $2 and n = $3', [
    sync,
    relid,
    n,
    rows,
  ]);
  await target.run('update ibex.target_table set copied = copied + $3 where sync = $1 and relid = $2', [
    sync,
    relid,
    rows,
  ]);
}

/** Sets the lower bound of a table that is copied in one snapshot: that snapshot itself. */
export async function setCopyFloor(
  target: Session,
  { sync, relid }: CopyKey,
  floor: Snapshot,
): Promise<void> {
  await target.run('update ibex.target_table set floor = $3 where sync = $1 and relid = $2', [
    sync,
    relid,
    floor,
  ]);
}

/**
 * All chunks are in: the next batch takes the table from its lower bound on. False when parts came meanwhile. A copy
 * that was called off, since all of it has to start anew, has come to its end too.
 */
export async function finishCopy(target: Session, key: CopyKey): Promise<boolean> {
  return target.transaction('', async () => {
    await requireEpoch(target, key.sync, key.epoch);
    if (!(await isCopying(target, key))) return true;
    if ((await readParts(target, key)).length > 0) return false;
    await move(target, key, ['copying'], 'joining', null);
    return true;
  });
}

/** Locks the table's row until the transaction ends: false when its copy was called off. */
async function isCopying(target: Session, { sync, relid }: CopyKey): Promise<boolean> {
  const [table] = await lockSyncTables(target, sync, [relid]);
  return table?.state === 'copying';
}

async function move(
  target: Session,
  { sync, relid }: CopyKey,
  from: readonly string[],
  to: string,
  floor: Snapshot | null,
): Promise<void> {
  const moved = await target.run(
    `update ibex.target_table
        set state = $4, floor = coalesce($5, floor), reason = null, changed_at = clock_timestamp()
      where sync = $1 and relid = $2 and state = any ($3)`,
    [sync, relid, from, to, floor],
  );
  if (moved !== 1)
    throw new IbexError('source_moved', `the copy of table ${relid} was called off before it became ${to}`);
}
