/**
 * The SQL that reads deltas and rows on the source; everything that depends on a table's plan is built here.
 */
import type { Piece } from '../../core/backlog.ts';
import { type ColumnPlan, keyOf, type TableName, type TablePlan, type Wrap } from '../../core/plan.ts';
import { parseSnapshot, type Snapshot } from '../../core/position.ts';
import { ident, literal, tableIdent } from '../../postgres/quote.ts';

/** The delta tables of a table, as a sync reads them. */
export interface Generations {
  /** Those that have something in them. */
  readonly numbers: readonly number[];
  /** The node whose changes in them the sync leaves out, as another lane brought them from there; null: none. */
  readonly echo: string | null;
}

/**
 * The unread deltas of one table: not visible in `from`. That they are visible in the reading transaction's own
 * snapshot is what MVCC means. The bound on xid only spares looking into the snapshot.
 */
export function unread(
  plan: Pick<TablePlan, 'relid'>,
  generations: Generations,
  from: Snapshot,
  columns: string,
): string {
  const { xmin } = parseSnapshot(from);
  return unreadSince(plan, generations, { xmin: String(xmin), snapshot: literal(from) }, columns);
}

/** A position as SQL: the snapshot, and the first transaction that it may not see. */
interface Bound {
  readonly xmin: string;
  readonly snapshot: string;
}

/** The position that comes as the two parameters of a statement. */
const GIVEN: Bound = { xmin: '$1::int8', snapshot: '$2::txid_snapshot' };

/** These parameters. */
export function givenValues(from: Snapshot): readonly string[] {
  return [String(parseSnapshot(from).xmin), from];
}

function unreadSince(
  plan: Pick<TablePlan, 'relid'>,
  { numbers, echo }: Generations,
  { xmin, snapshot }: Bound,
  columns: string,
): string {
  const carried = echo === null ? '' : ` and origin is distinct from ${literal(echo)}`;
  return numbers
    .map(
      (n) =>
        `select ${columns} from ibex.delta_${plan.relid}_${n} ` +
        `where xid >= ${xmin} and not txid_visible_in_snapshot(xid, ${snapshot})${carried}`,
    )
    .join(' union all ');
}

/**
 * The deltas of a piece: in its blocks, visible at the end of its window and not at its beginning. From PostgreSQL 14 on
 * these blocks alone are read.
 */
function inPiece(plan: TablePlan, piece: Piece, echo: string | null, columns: string): string {
  const { generation, first, end, after, upto } = piece;
  return `${unread(plan, { numbers: [generation], echo }, after, columns)}
    and txid_visible_in_snapshot(xid, ${literal(upto)}) and ctid >= '(${first},0)' and ctid < '(${end},0)'`;
}

/**
 * One row: how many unread deltas, how many of them truncates, how many that cannot tell their keys (see
 * `ibex.noted_rows`), when the oldest was captured (ms). `fresh` and `freshTruncates` leave out what `staged` sees. Without
 * `from` the position is given with each call: `givenValues`.
 */
export function summaryStatement(
  plan: Pick<TablePlan, 'relid'>,
  generations: Generations,
  from: Snapshot | null,
  staged?: Snapshot,
): string {
  const columns = 'op, at, xid';
  const deltas =
    from === null ? unreadSince(plan, generations, GIVEN, columns) : unread(plan, generations, from, columns);
  const fresh = staged === undefined ? 'true' : `not txid_visible_in_snapshot(xid, ${literal(staged)})`;
  return `
    select ${plan.relid}::int8::text as relid, count(*)::text as captured,
           count(*) filter (where op = 'T')::text as truncates,
           count(*) filter (where op = '?')::text as unknown,
           count(*) filter (where ${fresh})::text as fresh,
           count(*) filter (where op = 'T' and ${fresh})::text as "freshTruncates",
           extract(epoch from min(at) filter (where op <> 'B'))::float8 * 1000 as oldest
      from (${deltas}) d`;
}

/**
 * The relations that unread truncates emptied, as far as they still belong to the table. TRUNCATE of a partitioned
 * table names each level and leaf. A leaf that was copied by itself since (`since`, see ibex.captured.leaves) has
 * rows that no delta brings back: a truncate from before is in that copy, and must not be repeated. Rows without a
 * key are sent whole after any truncate, so they go whole.
 */
export function truncatedStatement(plan: TablePlan, generations: Generations, from: Snapshot): string {
  const emptied = `select d.relation, d.xid, d.at from (${unread(plan, generations, from, 'op, relation, xid, at')}) d where d.op = 'T'`;
  if (plan.mode === 'row') {
    return `
      select n.nspname as schema, c.relname as name, (select max(e.at) from (${emptied}) e)::text as at, true as whole, null as definition, null as predicate
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.oid = ${plan.relid} and exists (${emptied})`;
  }
  return `
    with leaf as (
      select l.key::oid as oid, (l.value ->> 'since')::txid_snapshot as since
        from ibex.captured c cross join jsonb_each(c.leaves) l where c.relid = ${plan.relid}
    ), emptied as (
      select e.relation, max(e.at)::text as at from (${emptied}) e
       where not exists (select from leaf f
                          where e.relation in (f.oid, ${plan.relid}) and txid_visible_in_snapshot(e.xid, f.since))
       group by 1
    )
    select n.nspname as schema, c.relname as name, e.at, c.oid = ${plan.relid} as whole, l.definition, l.predicate
      from emptied e join pg_class c on c.oid = e.relation join pg_namespace n on n.oid = c.relnamespace
      left join ibex.leaves(${plan.relid}) l on l.leaf = c.oid
     where c.oid = ${plan.relid} or l.leaf is not null`;
}

/**
 * COPY of one table's part of a batch, in the shape that `apply` stages: `n` deltas that named this key,
 * whether the row is present, then the plan's columns. `waiting`: the lane of the other direction, if some keys of it wait
 * for a person here.
 */
export function readStatement(
  plan: TablePlan,
  generations: Generations,
  from: Snapshot,
  truncated: boolean,
  waiting: string | null,
): string {
  const deltas = (columns: string) => unread(plan, generations, from, columns);
  const query =
    plan.mode === 'key'
      ? readKeys(plan, truncated && waiting !== null ? withHeld(plan, deltas, waiting) : deltas, waiting)
      : truncated
        ? readAll(plan)
        : readRows(plan, deltas);
  return `copy (${query}) to stdout (format binary)`;
}

/** The same of a piece, as of the reading transaction's snapshot. */
export function readPieceStatement(plan: TablePlan, piece: Piece, echo: string | null): string {
  const deltas = (columns: string) => inPiece(plan, piece, echo, columns);
  const query = plan.mode === 'key' ? readKeys(plan, deltas, null) : readRows(plan, deltas);
  return `copy (${query}) to stdout (format binary)`;
}

/** SQL that gives these columns of some deltas. */
type Deltas = (columns: string) => string;

/**
 * Keys in their order: neighbouring rows are looked up one after the other, here and again on the target. Keys that
 * are equal to each other are one key, however they were noted.
 */
function readKeys(plan: TablePlan, deltas: Deltas, waiting: string | null): string {
  const key = keyOf(plan);
  const names = key.map((_, i) => `k${i + 1}`).join(', ');
  const compared = key.map((column, i) => `${wrapped(`k${i + 1}`, column.match?.noted)} as k${i + 1}`);
  const places = key.map((_, i) => i + 1).join(', ');
  const join = key
    .map((column, i) => `t.${ident(column.name)} ${column.match?.source} k.k${i + 1}`)
    .join(' and ');
  const values = plan.columns.map((column, i) =>
    i < plan.keyLength ? `coalesce(${sent(column)}, ${gone(column, `k.k${i + 1}`)})` : sent(column),
  );
  const n = waiting === null ? 'count(*)' : `count(*) filter (where op <> 'H')`;
  const [times, noted] = plan.timed ? [TIMES, `${names}, op, at`] : ['', `${names}, op`];
  return `
    select k.n, t.tableoid is not null, ${values.join(', ')}${plan.timed ? `, k.at, ${how(plan, waiting)}` : ''}
      from (select ${compared.join(', ')}, ${n} as n${times}
              from (${deltas(noted)}) d
             where op <> 'T' group by ${places} order by ${places}) k
      left join ${rowSource(plan, plan, plan.only)} on ${join}`;
}

/**
 * How a key was changed; H if it waits for a person here, as a key of the lane `waiting`: its row was written without the
 * other side's, although that has come.
 */
function how(plan: TablePlan, waiting: string | null): string {
  if (waiting === null) return 'k.op';
  const key = keyOf(plan).map((_, i) => `k.k${i + 1}::text`);
  return `case when array[${key.join(', ')}] in (
            select h.key from ibex.held_key h where ${heldHere(plan, waiting)}) then 'H' else k.op end`;
}

function heldHere({ schema, name }: TablePlan, waiting: string): string {
  return `h.sync = ${literal(waiting)} and h.schema_name = ${literal(schema)} and h.table_name = ${literal(name)}
          and h.decision is null`;
}

/** A TRUNCATE names no keys, and the other side is to know which of them wait here: they come as if they had been noted. */
function withHeld(plan: TablePlan, deltas: Deltas, waiting: string): Deltas {
  const key = keyOf(plan).map((column, i) => `(h.key[${i + 1}])::${column.notedType} as k${i + 1}`);
  return (columns) => `
    ${deltas(columns)}
    union all
    select ${columns} from (select ${key.join(', ')}, 'H'::"char" as op, null::timestamptz as at from ibex.held_key h
                             where ${heldHere(plan, waiting)}) h`;
}

/** When a key was changed last, and how: I if its row was inserted, B if it was there before all, else U. */
const TIMES = `, max(at) filter (where op <> 'B') as at,
  case when bool_or(op = 'I') then 'I'::"char" when bool_and(op = 'B') then 'B' else 'U' end as op`;

/** Once a table without a key was truncated what it holds now is exactly what was added since. */
function readAll(plan: TablePlan): string {
  const values = plan.columns.map((column) => sent(column)).join(', ');
  return `select 1::int8, true, ${values} from ${rowSource(plan, plan, plan.only)}`;
}

/** Rows of a table without a key are carried as they were noted: present means added, otherwise removed. */
function readRows(plan: TablePlan, deltas: Deltas): string {
  const names = plan.columns.map((column) => `k${column.noted}`).join(', ');
  const values = plan.columns.map((column) => noted(column, `k${column.noted}`)).join(', ');
  return `
    select 1::int8, op = 'I', ${values}
      from (${deltas(`${names}, op`)}) d where op <> 'T'`;
}

/**
 * The rows of a table, or of one of its partitions, as `t`: the relation itself, or, where the user chose what is
 * carried, the chosen rows with their columns under the target's names. In there is nothing but the relation, so
 * that no name of ours comes between an expression and its columns. An end of line ends a comment.
 */
export function rowSource(plan: TablePlan, relation: TableName, only: boolean): string {
  const rows = `${only ? 'only ' : ''}${tableIdent(relation)} t`;
  if (plan.where === undefined && plan.columns.every((column) => column.expression === undefined))
    return rows;
  const columns = plan.columns.map(({ name, expression }) =>
    expression === undefined ? `t.${ident(name)}` : `(${expression}\n) as ${ident(name)}`,
  );
  const where = plan.where === undefined ? '' : ` where (${plan.where}\n)`;
  return `(select t.tableoid, t.ctid, ${columns.join(', ')} from ${rows}${where}) t`;
}

/** A column of the table in the form in which it travels. */
export function sent(column: ColumnPlan): string {
  return converted(column, `t.${ident(column.name)}`);
}

/** What a delta table notes of a column, in the form in which it travels. */
function noted(column: ColumnPlan, value: string): string {
  return column.notedType === column.wire ? value : converted(column, value);
}

/** The key of a row that is not there any more, in the form in which it travels. */
function gone(column: ColumnPlan, value: string): string {
  return column.match?.noted === undefined ? noted(column, value) : `${value}::${column.wire}`;
}

function converted(column: ColumnPlan, value: string): string {
  return wrapped(value, column.toText ?? ['', `::${column.wire}`]);
}

/** SQL with what is to stand before and after it. */
export function wrapped(value: string, [before, after]: Wrap = ['', '']): string {
  return `${before}${value}${after}`;
}

/** The snapshot of the reading transaction, where the log stands, what the sync is, and the delta tables that hold anything. */
export const BEGIN_BATCH = `
  select txid_current_snapshot()::text as snapshot, pg_current_wal_insert_lsn()::text as lsn,
         (select s.witness::float8 from ibex.source_sync s where s.name = $2) as witness,
         (select s.echo from ibex.source_sync s where s.name = $2) as echo,
         coalesce((
           select json_agg(json_build_array(g.relid::int8, g.n) order by g.relid, g.n)
             from ibex.generation g
            where g.relid = any ($1)
              and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0), '[]') as generations`;

/** Where the lane of the other direction stands on this server, and its tables that are not in step with it. */
export const READ_SEEN = `
  select (select c.position from ibex.checkpoint c where c.sync = $1) as position,
         coalesce((select json_agg(json_build_object('schema', t.schema_name, 'name', t.table_name, 'floor', t.floor))
                     from ibex.target_table t where t.sync = $1 and t.state <> 'streaming'), '[]') as apart,
         exists (select from ibex.held_key h where h.sync = $1 and h.decision is null) as held`;

/** For a whole session: a lock that is not to be had at once is an error. (Zero would mean to wait for ever.) */
export const NEVER_WAIT = `set lock_timeout = '10ms'`;

/**
 * Keeps relations, given as SQL spells them, from being truncated or rewritten. Takes no snapshot. Waits for the
 * first only, which is safe while nothing else is locked.
 */
export function lockForReading([first, ...others]: readonly string[]): string {
  const lock = (relation: string) => `lock table only ${relation} in access share mode`;
  const then = others.map((relation) => `; ${lock(relation)}`).join('');
  return `set local lock_timeout = 0; ${lock(first as string)}; set local lock_timeout = '10ms'${then}`;
}

/** Which of the given tables, their partitions included, somebody has locked against readers. */
export const LOCKED_RELATIONS = `
  select distinct l.relation::regclass::text as relation
    from unnest($1::oid[]) r cross join lateral ibex.members(r) m join pg_locks l on l.relation = m
   where l.locktype = 'relation' and l.mode = 'AccessExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
     and l.database = (select d.oid from pg_database d where d.datname = current_database())`;

/**
 * Relations of the given tables that are no longer what the reading transaction's snapshot says: another file
 * (TRUNCATE and rewriting ALTER TABLE are not MVCC-safe: to an older snapshot the table reads empty), other
 * partitions, or dropped. Asked after the rows were read, when our lock keeps it from changing any more.
 * pg_class and pg_inherits are read at the snapshot; pg_relation_filenode and ibex.present_members tell today's.
 */
export const MOVED_RELATIONS = `
  with recursive then_member as (
    select r as root, r as relid from unnest($1::oid[]) r
    union all
    select m.root, i.inhrelid from then_member m join pg_inherits i on i.inhparent = m.relid
       and coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
     where (select c.relkind from pg_class c where c.oid = m.relid) = 'p'
  ), now_member as (
    select r as root, m as relid from unnest($1::oid[]) r cross join lateral ibex.present_members(r) m
  )
  select coalesce(c.oid::regclass::text, t.relid::text, n.relid::text) as relation
    from then_member t full join now_member n using (root, relid) left join pg_class c on c.oid = t.relid
   where t.relid is null or n.relid is null or c.oid is null
      or (c.relkind = 'r' and c.relfilenode is distinct from pg_relation_filenode(c.oid))`;

/**
 * Partitions that the reading transaction saw and that are not known yet. What the batch carries of them may be gone,
 * with the partition, before anybody looks.
 */
export const UNKNOWN_PARTITIONS = `
  with recursive member as (
    select r as root, r as relid, null::text as link from unnest($1::oid[]) r
    union all
    select m.root, i.inhrelid, concat_ws(' ', m.link, concat_ws(':', i.inhparent, i.inhrelid, i.xmin))
      from member m join pg_inherits i on i.inhparent = m.relid
       and coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
  ), known as (
    select k.relid as root, l.key::oid as relid, l.value ->> 'link' as link
      from ibex.captured k cross join jsonb_each(k.leaves) l where k.relid = any ($1::oid[])
  )
  select m.root::int8::float8 as relid, m.relid::int8::float8 as leaf
    from member m join pg_class c on c.oid = m.relid and c.relkind <> 'p'
    left join known k on k.root = m.root and k.relid = m.relid
   where m.relid <> m.root and k.link is distinct from m.link and k.link is distinct from 'seen'`;

/** Tables that are no longer what their plans were made from. */
export const ALTERED_TABLES = `
  select r.relid::regclass::text as relation
    from unnest($1::oid[], $2::text[]) r(relid, outline) where ibex.outline(r.relid) is distinct from r.outline`;

/** The delta tables of a table, with their sizes now. What a snapshot sees lies in the blocks that are there after it. */
export const DELTA_FILES = `
  select g.n as generation, (coalesce(pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))), 0)
                              / current_setting('block_size')::int8)::float8 as blocks
    from ibex.generation g where g.relid = $1 order by g.n`;

/** One row: whether a delta is seen by `goal` that `position` does not see. */
export function existsStatement(
  plan: Pick<TablePlan, 'relid'>,
  generations: Generations,
  position: Snapshot,
  goal: Snapshot,
): string {
  return `
    select ${plan.relid}::int8::text as relid,
           exists (select from (${unread(plan, generations, position, 'xid')}) d
                    where txid_visible_in_snapshot(d.xid, ${literal(goal)})) as unapplied`;
}
