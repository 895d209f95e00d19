/** The SQL of the backfill: what a chunk reads on the source and how it arrives on the target. */
import { rowSource, sent } from '../capture/trigger/statements.ts';
import type { ColumnPlan, TableName, TablePlan } from '../core/plan.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { ChunkPlan } from './chunks.ts';

/**
 * The relations of some tables that hold rows, with their files and sizes now; of one relation only, if it is given.
 * Of partitions those that were there when the table was armed: one that came since is a part of its own once it is
 * noticed, also if it is gone again by then.
 */
export const READ_HEAPS = `
  select w.relid::int8::float8 as relid, c.oid::int8::float8 as relation,
         pg_relation_filenode(c.oid)::int8::float8 as filenode, pg_table_size(c.oid)::float8 as bytes,
         (pg_relation_size(c.oid) / current_setting('block_size')::int8)::float8 as blocks
    from unnest($1::oid[]) w(relid)
   cross join lateral (select w.relid as oid
                        union all
                       select l::oid from ibex.captured k cross join jsonb_object_keys(k.leaves) l where k.relid = w.relid) m
    join pg_class c on c.oid = m.oid
   where c.relkind = 'r' and ($2::oid is null or c.oid = $2) order by c.oid`;

/** How many bytes the rows of tables take, what is stored out of line included; of a partitioned one its largest partition. */
export const READ_SIZES = `
  select c.oid::int8::float8 as relid,
         coalesce(case when c.relhassubclass then (select max(pg_table_size(m.oid)) from ibex.members(c.oid) m(oid))
                       else pg_table_size(c.oid) end, 0)::float8 as bytes
    from pg_class c where c.oid = any ($1::oid[])`;

/** How many blocks a relation has now. */
export const READ_BLOCKS = `
  select coalesce(pg_relation_size($1::oid) / current_setting('block_size')::int8, 0)::float8 as blocks`;

/** The relations that belong to a table now. */
export const READ_MEMBERS = `select m::int8::text as relation from ibex.members($1) m`;

/** Whether the partitions of a table are those that are known. Asked after a read, whose lock keeps them from leaving. */
export const PARTITIONS_ARE_KNOWN = `
  select coalesce((select array_agg(m order by m) from ibex.present_members($1) m join pg_class c on c.oid = m where c.relkind <> 'p'), '{}')
       = coalesce((select array_agg(l::oid order by l::oid) from ibex.captured k cross join jsonb_object_keys(k.leaves) l
                    where k.relid = $1), '{}') as known`;

/** What relations are called now; one that is gone is left out. */
export const RELATION_NAMES = `
  select n.nspname as schema, c.relname as name
    from unnest($1::oid[]) with ordinality w(relation, i) join pg_class c on c.oid = w.relation
    join pg_namespace n on n.oid = c.relnamespace order by w.i`;

/**
 * A table without a file is a partitioned one: with all its partitions. A relation alone is waited for with nothing in
 * hand; with a lock in hand nothing is, since of two that wait for each other the application may be the one to fail.
 * Takes no snapshot. Errors: `lock`.
 */
export function lockRelation(relation: TableName, chunk: ChunkPlan): string {
  const lock = `lock table ${only(chunk)}${tableIdent(relation)} in access share mode`;
  return chunk.filenode === 0 ? `${BRIEFLY}; ${lock}` : `${lock}; ${BRIEFLY}`;
}

/** The same for several relations that are read together. */
export function lockRelations(relations: readonly TableName[]): string {
  const names = relations.map((relation) => `only ${tableIdent(relation)}`);
  return `${BRIEFLY}; lock table ${names.join(', ')} in access share mode`;
}

/** Well below the source's `deadlock_timeout`. */
const BRIEFLY = `set local lock_timeout = '100ms'`;

function only(chunk: ChunkPlan): string {
  return chunk.filenode === 0 ? '' : 'only ';
}

/** A relation as it is read: its file (0: it has none) and how many blocks that has, the snapshot and the log, its table's outline. */
export interface RelationNow {
  readonly filenode: number;
  readonly snapshot: string;
  readonly lsn: string;
  readonly outline: string | null;
  readonly blocks: number;
}

/** Takes relations, and the table of each; one that is gone is left out. */
export const READ_RELATIONS = `
  select coalesce(pg_relation_filenode(c.oid), 0)::int8::float8 as filenode, txid_current_snapshot()::text as snapshot,
         pg_current_wal_insert_lsn()::text as lsn, ibex.outline(w.relid) as outline,
         (coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8)::float8 as blocks
    from unnest($1::oid[], $2::oid[]) with ordinality w(relation, relid, i) join pg_class c on c.oid = w.relation
   order by w.i`;

/** The range of blocks that a chunk reads. */
export interface Range extends ChunkPlan {
  /** Each place in it is named, since the server would read all of the table for a range. */
  readonly places: boolean;
}

/** Before this version a range of blocks cannot be read without reading all of them. */
const RANGES_ARE_READ = 140_000;

/** How many blocks are read at once at the most: places that are named take some memory. */
export function mostBlocks(version: number): number {
  return version < RANGES_ARE_READ ? 1_024 : Number.POSITIVE_INFINITY;
}

/** `count` is how many blocks the relation has in the snapshot that is read. */
export function rangeOf(chunk: ChunkPlan, count: number, version: number): Range {
  const all = chunk.firstBlock === 0 && chunk.lastBlock === null;
  if (all || version >= RANGES_ARE_READ) return { ...chunk, places: false };
  return { ...chunk, lastBlock: chunk.lastBlock ?? Math.max(count, chunk.firstBlock), places: true };
}

/** Binary where every column is the same built-in type on both sides, otherwise text, which always fits. */
export function copyFormat(plan: TablePlan): string {
  return plan.columns.every((column) => column.same) ? '(format binary)' : '';
}

export function readDirect(plan: TablePlan, relation: TableName, range: Range): string {
  const columns = written(plan)
    .map((column) => (column.same ? `t.${ident(column.name)}` : sent(column)))
    .join(', ');
  return `copy (select ${columns} ${fromRange(plan, relation, range)}) to stdout ${copyFormat(plan)}`;
}

export function writeDirect(plan: TablePlan): string {
  const columns = written(plan)
    .map((column) => ident(column.name))
    .join(', ');
  return `copy ${tableIdent(plan)} (${columns}) from stdin ${copyFormat(plan)}`;
}

/** Takes the captured table, its relation, the first block and the one behind the last, or null. */
export const NOTE_CHUNK = 'select ibex.note_rows($1::oid, $2::oid::regclass, $3::int8, $4::int8)';

/** In the shape of a batch's staging table, see `apply/statements.ts`. */
export function readStaged(plan: TablePlan, relation: TableName, range: Range): string {
  const times = plan.timed ? ['null::timestamptz', `'B'::"char"`] : [];
  const columns = [...plan.columns.map(sent), ...times].join(', ');
  return `copy (select 1::int8, true, ${columns} ${fromRange(plan, relation, range)}) to stdout (format binary)`;
}

/** All but what the target generates by itself. */
function written(plan: TablePlan): ColumnPlan[] {
  return plan.columns.filter((column) => column.generated === undefined);
}

function fromRange(plan: TablePlan, relation: TableName, range: Range): string {
  const bounds = [...blocks(range), ...(range.predicate === null ? [] : [range.predicate])];
  return `from ${rowSource(plan, relation, range.filenode !== 0)}${bounds.length === 0 ? '' : ` where ${bounds.join(' and ')}`}`;
}

function blocks({ firstBlock, lastBlock, places }: Range): string[] {
  if (places && lastBlock !== null) return [`t.ctid = any (array(${placesOf(firstBlock, lastBlock)}))`];
  return [
    ...(firstBlock === 0 ? [] : [`t.ctid >= '(${firstBlock},0)'::tid`]),
    ...(lastBlock === null ? [] : [`t.ctid < '(${lastBlock},0)'::tid`]),
  ];
}

/** All places that there can be in some blocks: behind a page's header of 24 bytes, each takes 28 at least. */
function placesOf(firstBlock: number, lastBlock: number): string {
  return `select format('(%s,%s)', b, i)::tid
            from generate_series(${firstBlock}, ${lastBlock - 1}) b,
                 generate_series(1, (current_setting('block_size')::int - 24) / 28) i`;
}
