/** The progress of copies, kept in the target: states of `ibex.target_table` and rows of `ibex.chunk`. */
import { requireEpoch } from '../apply/state.ts';
import { IbexError } from '../core/errors.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { ChunkPlan } from './chunks.ts';

export interface Chunk extends ChunkPlan {
  /** Null until it is copied. */
  readonly rows: number | null;
}

/** Names the sync, the holder's epoch and the table whose copy is meant. */
export interface CopyKey {
  readonly sync: string;
  readonly epoch: number;
  readonly relid: number;
}

export async function readChunks(target: Session, { sync, relid }: CopyKey): Promise<Chunk[]> {
  const rows = await target.rows<
    Record<'relation' | 'filenode' | 'first' | 'last' | 'rows', string | null> & { n: number }
  >(
    `select n, relation::text, filenode::text, first_block::text as first, last_block::text as last, rows::text
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
  }));
}

/** Writes the plan of a copy and its lower bound, with whatever `also` does, in one transaction. */
export async function startCopy(
  target: Session,
  { sync, epoch, relid }: CopyKey,
  { floor, choice }: { readonly floor: Snapshot; readonly choice: string | null },
  chunks: readonly ChunkPlan[],
  also: () => Promise<void>,
): Promise<void> {
  await target.transaction('', async () => {
    await requireEpoch(target, sync, epoch);
    await also();
    await target.run('delete from ibex.chunk where sync = $1 and relid = $2', [sync, relid]);
    await target.run(
      `insert into ibex.chunk (sync, relid, n, relation, filenode, first_block, last_block)
       select $1, $2, c.n, c.relation, c.filenode, c."firstBlock", c."lastBlock"
         from json_to_recordset($3) c(n int4, relation int8, filenode int8, "firstBlock" int8, "lastBlock" int8)`,
      [sync, relid, JSON.stringify(chunks)],
    );
    await move(target, { sync, epoch, relid }, ['pending', 'copying'], 'copying', floor);
    await target.run(
      'update ibex.target_table set copied = 0, replace = false, choice = $3 where sync = $1 and relid = $2',
      [sync, relid, choice],
    );
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

/** All chunks are in: the next batch takes the table from its lower bound on. */
export async function finishCopy(target: Session, key: CopyKey): Promise<void> {
  await target.transaction('', async () => {
    await requireEpoch(target, key.sync, key.epoch);
    await move(target, key, ['copying'], 'joining', null);
  });
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
    throw new IbexError('internal', `table ${relid} is not ${from.join(' or ')}, cannot become ${to}`);
}
