/** The two ends of a chunk's transaction on the target: it is claimed, and it is booked. */
import { firing } from '../apply/target-table.ts';
import { IbexError } from '../core/errors.ts';
import type { Snapshot } from '../core/position.ts';
import { literal } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { CHUNK_COLUMNS, type Chunk, type ChunkRow, type CopyLane, toChunk } from './progress.ts';

/** A chunk of a table, by its number. */
export type ChunkKey = Pick<Chunk, 'relid' | 'n'>;

export interface Claimed extends Chunk {
  /** Rows that the target had as the copy began; null when nobody knows. */
  readonly found: number | null;
}

export type Claim = Claimed | 'busy' | 'gone';

/** Takes the sync, and of each chunk its table and its number. */
const claim = (origin: string) => `
  with lane as (
    select epoch from ibex.checkpoint where sync = $1 for key share
  ), open as (
    select w.i, c.sync, c.relid, c.n, t.found
      from unnest($2::int8[], $3::int4[]) with ordinality w(relid, n, i)
      join ibex.chunk c on (c.sync, c.relid, c.n) = ($1, w.relid, w.n)
      join ibex.target_table t on (t.sync, t.relid) = ($1, w.relid)
     where c.rows is null and t.state = 'copying'
  ), claimed as (
    select ${CHUNK_COLUMNS}, o.i, o.found::float8 as found
      from open o join ibex.chunk c using (sync, relid, n)
     where c.rows is null
       for update of c skip locked
  )
  select (select epoch::text from lane) as epoch, c.*, exists (select from open o where o.i = w.i) as open,
         set_config('ibex.origin', ${literal(origin)}, true), set_config('synchronous_commit', 'off', true)
    from generate_series(1, cardinality($2::int8[])) w(i) left join claimed c on c.i = w.i order by w.i`;

/**
 * Claims chunks of different tables until the transaction ends, which marks what is written as coming from `origin`;
 * resolves to a claim for each, in their order. `gone` when it is copied already, or no longer part of a copy: a job that
 * wakes up late finds out here. `busy` while another session has it. Errors: `taken` when the epoch is over.
 *
 * The commit is not waited for. A crash of the target may take it back, rows and progress together: then the chunk is
 * copied again. Its table joins the lane by commits that are waited for, which take all earlier ones to disk.
 */
export async function claimChunks(
  target: Session,
  { sync, epoch }: CopyLane,
  chunks: readonly ChunkKey[],
  origin: string,
): Promise<Claim[]> {
  const rows = await target.rows<ChunkRow & { epoch: string | null; open: boolean; found: number | null }>(
    claim(origin),
    [sync, chunks.map(({ relid }) => relid), chunks.map(({ n }) => n)],
  );
  const now = rows[0]?.epoch ?? null;
  if (now === null || Number(now) !== epoch)
    throw new IbexError('taken', `sync ${sync} was taken over by another daemon (epoch ${now ?? 'none'})`);
  return rows.map((row) =>
    row.n === null ? (row.open ? 'busy' : 'gone') : { ...toChunk(row), found: row.found },
  );
}

/** What a claimed chunk came to. */
export interface Copied extends ChunkKey {
  readonly rows: number;
  /** As they were sent. */
  readonly bytes: number;
  /** Rows whose key the target had. */
  readonly met: number;
  /** It becomes the table's lower bound: of one that is copied in one snapshot, that snapshot. Else null. */
  readonly floor: Snapshot | null;
  /** The table on the target, quoted. */
  readonly table: string;
}

/** Tables are locked in one order, lest two transactions wait for each other. */
const BOOK = `
  with copied as (
    select * from json_to_recordset($2) c(relid int8, n int4, rows int8, bytes int8, met int8, floor text, "table" text)
  ), locked as (
    select t.relid from ibex.target_table t
     where t.sync = $1 and t.relid in (select relid from copied) order by t.relid for update
  ), chunk as (
    update ibex.chunk k set rows = c.rows, bytes = c.bytes
      from copied c where (k.sync, k.relid, k.n) = ($1, c.relid, c.n)
  ), booked as (
    update ibex.target_table t
       set copied = t.copied + c.rows, met = t.met + c.met, floor = coalesce(c.floor, t.floor), reason = null
      from copied c join locked using (relid) where (t.sync, t.relid) = ($1, c.relid)
  )
  select c.relid::float8 as relid, f.name
    from copied c cross join lateral to_regclass(c."table") r(relation)
   cross join lateral ${firing('r.relation')} f(name)`;

/**
 * Books claimed chunks of different tables, as the last thing before their transaction commits. Resolves to the triggers
 * and rules of the application that fired for their rows, one for each table that has some.
 */
export async function bookChunks(
  target: Session,
  sync: string,
  copied: readonly Copied[],
): Promise<{ readonly relid: number; readonly name: string }[]> {
  return target.rows(BOOK, [sync, JSON.stringify(copied)]);
}
