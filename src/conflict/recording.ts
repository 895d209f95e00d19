/** The record of conflicts on the node that decided them (`ibex.conflict`), how many there were, and keys that are held. */
import type { TableName } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';

export interface RecordContext {
  readonly session: Session;
  readonly sync: string;
  readonly batch: string;
  readonly local: string;
  readonly incoming: string;
  /** Whether the rows are kept. */
  readonly values: boolean;
}

export interface RecordedTable {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
}

/** Writes down what `pg_temp.ibex_clash` has to tell. Part of the batch's transaction. */
export async function record(context: RecordContext, tables: readonly RecordedTable[]): Promise<void> {
  const { session, sync, batch, local, incoming, values } = context;
  await session.run(RECORD, [sync, batch, local, incoming, values, JSON.stringify(tables)]);
  await session.run(COUNT, [sync, JSON.stringify(tables)]);
  await session.run(RENEW_HELD, [sync, values, JSON.stringify(tables)]);
}

const TABLES = (parameter: string) =>
  `json_to_recordset(${parameter}) w(relid int8, schema text, name text, columns json) on w.relid = c.relid`;

const COLUMNS = `array(select json_array_elements_text(w.columns))`;

/**
 * Those that wait for a person hold their key, those that somebody has decided let go of it. Such a decision is written down
 * like any other: the rows may be other ones by now than those that the person saw.
 */
const RECORD = `
  with told as (
    insert into ibex.conflict (sync, schema_name, table_name, type, key, columns, local_node, incoming_node, local_row,
                               incoming_row, local_at, incoming_at, strategy, winner, new_row, batch, state, reason)
    select $1, w.schema, w.name, c.type, c.key, ${COLUMNS}, $3, $4, case when $5 then c.local_row end,
           case when $5 then c.incoming_row end, c.local_at, c.incoming_at, c.strategy, c.winner,
           case when $5 then c.new_row end, $2,
           case when c.winner = 'none' then 'held' else 'resolved' end, c.reason
      from pg_temp.ibex_clash c join ${TABLES('$6')}
     where c.type is not null
       and not exists (select from ibex.held_key h where h.sync = $1 and h.schema_name = w.schema
                          and h.table_name = w.name and h.key = c.key and h.decision is null)
    returning id, schema_name, table_name, key, winner
  ), decided as (
    delete from ibex.held_key h using pg_temp.ibex_clash c join ${TABLES('$6')}
     where h.sync = $1 and h.schema_name = w.schema and h.table_name = w.name and h.key = c.key and h.decision is not null
  )
  insert into ibex.held_key (sync, schema_name, table_name, key, conflict)
  select $1, t.schema_name, t.table_name, t.key, t.id from told t where t.winner = 'none' on conflict do nothing`;

const COUNT = `
  insert into ibex.conflict_count as n (sync, schema_name, table_name, type, n)
  select $1, w.schema, w.name, c.type, count(*) from pg_temp.ibex_clash c join ${TABLES('$2')}
   where c.type is not null group by 1, 2, 3, 4
  on conflict (sync, schema_name, table_name, type) do update set n = n.n + excluded.n`;

/**
 * What came meanwhile of a key that is held, so that a person decides between rows as they are: of a row that is held for
 * another one with its unique value, only the incoming one. Where both sides have the same by now nobody has to decide,
 * and the record keeps the rows as they were when they differed.
 */
const RENEW_HELD = `
  with met as (
    select k.id, c.incoming_row, c.incoming_at, c.local_at, c.local_row is not distinct from c.incoming_row as same,
           case when k.type in ('update_exists', 'multiple_unique_conflicts') then k.local_row else c.local_row end as local_row
      from pg_temp.ibex_clash c join ${TABLES('$3')} join ibex.held_key h
        on h.schema_name = w.schema and h.table_name = w.name and h.key = c.key
      join ibex.conflict k on k.id = h.conflict
     where h.sync = $1 and k.state = 'held' and c.winner = 'none'
  ), released as (
    delete from ibex.held_key h using met m where h.sync = $1 and h.conflict = m.id and m.same
  ), renewed as (
    update ibex.conflict k
       set incoming_row = case when $2 then m.incoming_row end, incoming_at = coalesce(m.incoming_at, k.incoming_at),
           local_row = case when $2 then m.local_row end, local_at = coalesce(m.local_at, k.local_at)
      from met m where k.id = m.id and not m.same
  )
  update ibex.conflict k set state = 'closed', reason = 'both sides came to have the same' from met m where k.id = m.id and m.same`;

/** How many conflicts there were since the sync was set up, by table and type. None of a schema from before there were any. */
export async function readCounts(
  session: Session,
  sync: string,
): Promise<(TableName & { readonly type: string; readonly n: number })[]> {
  const { known } = await session.row<{ known: boolean }>(
    `select to_regclass('ibex.conflict_count') is not null as known`,
  );
  if (!known) return [];
  return session.rows(
    `select schema_name as schema, table_name as name, type, n::float8 as n from ibex.conflict_count
      where sync = $1 order by 1, 2, 3`,
    [sync],
  );
}

/** A conflict that ended its batch. */
export interface Aborted extends RecordedTable {
  readonly type: string;
  readonly key: readonly string[];
}

/** As JSON, what is to be written down once the batch is rolled back. */
export const READ_ABORTED = `
  select coalesce(json_agg(to_jsonb(c)), '[]')::text as rows from pg_temp.ibex_clash c
   where c.strategy = 'abort' and c.winner = 'none'`;

/** Writes down, in a transaction of its own, what ended a batch; what is written down already stays as it is. */
export async function recordAborted(
  context: RecordContext,
  tables: readonly RecordedTable[],
  rows: string,
): Promise<void> {
  const { session, sync, batch, local, incoming, values } = context;
  await session.run(RECORD_ABORTED, [sync, batch, local, incoming, values, JSON.stringify(tables), rows]);
}

const RECORD_ABORTED = `
  insert into ibex.conflict (sync, schema_name, table_name, type, key, columns, local_node, incoming_node, local_row,
                             incoming_row, local_at, incoming_at, strategy, winner, batch, state, reason)
  select $1, w.schema, w.name, c.type, c.key, ${COLUMNS}, $3, $4, case when $5 then c.local_row end,
         case when $5 then c.incoming_row end, c.local_at, c.incoming_at, 'abort', 'none', $2, 'aborted',
         'the sync stands still until somebody decides'
    from json_to_recordset($7) c(relid int8, type text, key text[], local_row text[], incoming_row text[],
                                 local_at timestamptz, incoming_at timestamptz) join ${TABLES('$6')}
   where not exists (select from ibex.conflict k where k.sync = $1 and k.schema_name = w.schema and k.table_name = w.name
                        and k.key = c.key and k.state = 'aborted')`;

/** Forgets records that are older than that, except those that wait for a person. Resolves to how many. */
export function forgetOld(session: Session, sync: string, ageMs: number): Promise<number> {
  return session.run(
    `delete from ibex.conflict where sync = $1 and state in ('resolved', 'closed')
        and at < clock_timestamp() - $2 * interval '1 millisecond'`,
    [sync, ageMs],
  );
}
