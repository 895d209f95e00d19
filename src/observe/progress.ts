/**
 * How far the copy of existing rows is, table by table and in all. Read from the records on the target; how many rows
 * there are, and how large a table is whose copy is not planned yet, is asked of the source's statistics.
 */
import type { TableState } from '../apply/state.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';

export interface Amount {
  readonly copied: number;
  /** All that there is to copy, done or not; null when nobody knows yet. */
  readonly planned: number | null;
}

export interface TableProgress {
  /** `schema.name`. */
  readonly table: string;
  readonly state: TableState;
  /** Why it waits; null when it does not. */
  readonly reason: string | null;
  /** Rows copied by the backfill, and about how many it will be; null when the source has no statistics. */
  readonly copied: number;
  readonly expected: number | null;
  /**
   * Rows that the target had before the copy and that no chunk met; null where there were none before, and until the
   * table is copied. Rows that were written on the source meanwhile may count wrongly.
   */
  readonly surplus: number | null;
  /** Bytes on the source's disk, TOAST included, indexes not. An estimate until chunks are planned. */
  readonly bytes: Amount;
  /** Bytes that COPY sent. */
  readonly sent: number;
  readonly chunks: { readonly done: number; readonly all: number };
}

/** All tables of a sync together. */
export interface CopyProgress {
  /** Tables whose rows are copied, of all that there are. */
  readonly tables: { readonly copied: number; readonly all: number };
  readonly copied: number;
  readonly expected: number | null;
  readonly bytes: Amount;
  readonly sent: number;
  /** Chunks that are being copied now, by whatever process. */
  readonly jobs: number;
}

/** What the source believes of a table, without reading or locking it; null where it believes nothing. */
export interface Estimate {
  readonly bytes: number | null;
  readonly rows: number | null;
}

export type Estimates = ReadonlyMap<number, Estimate>;

/** `ask` is asked for estimates of tables whose rows are not copied yet, by their oids. */
export async function readTableProgress(
  target: Session,
  sync: string,
  ask: (relids: readonly number[]) => Promise<Estimates>,
): Promise<(TableName & TableProgress & { readonly relid: number })[]> {
  const rows = await target.rows<ProgressRow>(READ_TABLES, [sync]);
  const waiting = rows.filter(({ state }) => state === 'pending' || state === 'copying');
  const estimates = waiting.length === 0 ? new Map() : await ask(waiting.map(({ relid }) => relid));
  return rows.map((row) => toProgress(row, estimates.get(row.relid)));
}

interface ProgressRow extends TableName {
  readonly relid: number;
  readonly state: TableState;
  readonly reason: string | null;
  readonly copied: number;
  readonly done: number;
  readonly all: number;
  readonly copiedBytes: number;
  readonly plannedBytes: number;
  readonly sent: number;
  readonly surplus: number | null;
}

const READ_TABLES = `
  select t.relid::float8 as relid, t.schema_name as schema, t.table_name as name, t.state, t.reason,
         t.copied::float8 as copied, count(c.rows)::int4 as done, count(c.n)::int4 as all,
         coalesce(sum(c.planned) filter (where c.rows is not null), 0)::float8 as "copiedBytes",
         coalesce(sum(c.planned), 0)::float8 as "plannedBytes", coalesce(sum(c.bytes), 0)::float8 as sent,
         case when t.found > 0 and t.state not in ('pending', 'copying')
              then greatest(t.found - t.met, 0)::float8 end as surplus
    from ibex.target_table t left join ibex.chunk c using (sync, relid)
   where t.sync = $1 group by t.sync, t.relid order by 2, 3`;

function toProgress(row: ProgressRow, estimate: Estimate | undefined) {
  const { relid, schema, name, state, reason, copied, surplus, done, all, sent } = row;
  const waits = state === 'pending' || state === 'copying';
  const rows = estimate?.rows ?? null;
  return {
    ...{ relid, schema, name, table: tableLabel(row), state, reason, copied, surplus, sent },
    // An estimate is not to say that more is copied than there is.
    expected: !waits ? copied : rows === null ? null : Math.max(rows, copied),
    bytes: {
      copied: row.copiedBytes,
      planned: waits && all === 0 ? (estimate?.bytes ?? null) : row.plannedBytes,
    },
    chunks: { done, all },
  };
}

/** Partitions of a table count as the table. */
const READ_ESTIMATES = `
  with recursive member as (
    select relid, relid as relation from unnest($1::oid[]) relid
    union all
    select m.relid, i.inhrelid from member m
      join pg_class p on p.oid = m.relation and p.relkind = 'p'
      join pg_inherits i on i.inhparent = m.relation
  )
  select m.relid::int8::float8 as relid, bool_and(KNOWN) as known, bool_and(t.oid is null or TOAST_KNOWN) as sized,
         coalesce(sum(c.reltuples), 0)::float8 as rows,
         coalesce(sum(c.relpages + coalesce(t.relpages, 0)), 0)::float8
           * current_setting('block_size')::int4 as bytes
    from member m
    join pg_class c on c.oid = m.relation and c.relkind <> 'p'
    left join pg_class t on t.oid = c.reltoastrelid
   group by m.relid`;

/** By the statistics that VACUUM and ANALYZE left. No lock, and nothing read but catalogs. */
export async function readEstimates(source: Session, relids: readonly number[]): Promise<Estimates> {
  // Before 14 a table that nobody has looked at yet cannot be told from an empty one.
  const [known, sized] =
    source.version >= 140_000 ? ['c.reltuples >= 0', 't.reltuples >= 0'] : ['c.relpages > 0', 'true'];
  const rows = await source.rows<{
    relid: number;
    known: boolean;
    sized: boolean;
    rows: number;
    bytes: number;
  }>(READ_ESTIMATES.replace('TOAST_KNOWN', sized).replace('KNOWN', known), [relids]);
  return new Map(
    rows.map(({ relid, known, sized, ...found }) => [
      relid,
      { rows: known ? found.rows : null, bytes: known && sized ? found.bytes : null },
    ]),
  );
}

/** How many chunks are being copied now: sessions that copy and have a transaction open, of all processes. */
export async function countJobs(target: Session, sync: string): Promise<number> {
  const { jobs } = await target.row<{ jobs: number }>(
    `select count(*)::int4 as jobs from pg_stat_activity
      where starts_with(application_name, 'ibex:' || $1 || ':copy') and datname = current_database() and xact_start is not null`,
    [sync],
  );
  return jobs;
}

export function sumOf(tables: readonly TableProgress[], jobs: number): CopyProgress {
  const there = tables.filter(({ state }) => state !== 'dropped');
  const sum = (values: readonly (number | null)[]) =>
    values.reduce((all, one) => (all === null || one === null ? null : all + one), 0);
  const copied = sum(there.map((table) => table.bytes.copied)) as number;
  return {
    tables: { copied: there.filter(isCopied).length, all: there.length },
    copied: sum(there.map((table) => table.copied)) as number,
    expected: sum(there.map(({ expected }) => expected)),
    bytes: { copied, planned: sum(there.map(({ bytes }) => bytes.planned)) },
    sent: sum(there.map(({ sent }) => sent)) as number,
    jobs,
  };
}

/** Its rows are on the target, whatever it waits for now. */
export function isCopied({ state }: Pick<TableProgress, 'state'>): boolean {
  return state === 'joining' || state === 'streaming';
}
