/**
 * What the target records about the rows it has: which columns they stand for, which values they lack
 * (`carried`, `ahead` and `fill` of `ibex.target_table`).
 */
import type { Ahead, Carried, Fill } from '../core/carried.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { ident, literal } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { fromTable } from './statements.ts';

export interface CarriedRecord {
  readonly relid: number;
  /** Null when nothing is known: the table was copied by an earlier version, or is still to be copied. */
  readonly carried: Carried | null;
  readonly ahead: Ahead;
  /** What the user had chosen to carry when it was copied. */
  readonly choice: string | null;
}

export async function readCarried(session: Session, sync: string): Promise<Map<number, CarriedRecord>> {
  const rows = await session.rows<Omit<CarriedRecord, 'relid'> & { relid: string }>(
    'select relid::text, carried, ahead, choice from ibex.target_table where sync = $1',
    [sync],
  );
  return new Map(rows.map((row) => [Number(row.relid), { ...row, relid: Number(row.relid) }]));
}

/** Notes what the rows stand for from here on. */
export async function noteCarried(
  session: Session,
  sync: string,
  relid: number,
  carried: Carried,
): Promise<void> {
  await session.run('update ibex.target_table set carried = $3 where sync = $1 and relid = $2', [
    sync,
    relid,
    JSON.stringify(carried),
  ]);
}

/** Notes values of columns that are new on the source. The first that was seen of a column is the right one. */
export async function noteAhead(session: Session, sync: string, relid: number, ahead: Ahead): Promise<void> {
  await session.run(
    'update ibex.target_table set ahead = $3::jsonb || ahead where sync = $1 and relid = $2',
    [sync, relid, JSON.stringify(ahead)],
  );
}

/** Has columns filled before the table goes on from where it stands: the copy goes on, or one without chunks begins. */
export async function requestFill(
  session: Session,
  sync: string,
  relid: number,
  floor: Snapshot,
  fill: readonly Fill[],
): Promise<void> {
  await session.transaction('', async () => {
    await session.run(
      `delete from ibex.chunk c using ibex.target_table t
        where t.sync = $1 and t.relid = $2 and t.state <> 'copying' and (c.sync, c.relid) = (t.sync, t.relid)`,
      [sync, relid],
    );
    await session.run(
      `update ibex.target_table
          set fill = $4, floor = coalesce(floor, $3), reason = null, state = 'copying', changed_at = clock_timestamp()
        where sync = $1 and relid = $2`,
      [sync, relid, floor, JSON.stringify(fill)],
    );
  });
}

/** Fills what is to be filled, in the caller's transaction; rows that have the value already stay untouched. */
export async function fillColumns(
  session: Session,
  sync: string,
  plan: TablePlan,
  carried: Carried,
): Promise<void> {
  const { fill } = await session.row<{ fill: Fill[] | null }>(
    'select fill from ibex.target_table where sync = $1 and relid = $2 for update',
    [sync, plan.relid],
  );
  if (fill === null) return;
  const values = fill.map(({ type, value }) => `${value === null ? 'null' : literal(value)}::${type}`);
  const assign = fill.map(({ name }, i) => `${ident(name)} = ${values[i]}`).join(', ');
  const present = fill.map(({ name }) => `t.${ident(name)}`).join(', ');
  await session.run(
    `update ${fromTable(plan)} t set ${assign}
      where row(${present})::record *<> row(${values.join(', ')})::record`,
  );
  await session.run('update ibex.target_table set fill = null, carried = $3 where sync = $1 and relid = $2', [
    sync,
    plan.relid,
    JSON.stringify(carried),
  ]);
}

/** The source has it no more: its rows stay, and it is not waited for. */
export async function dropTable(session: Session, sync: string, relid: number): Promise<void> {
  await session.run('delete from ibex.chunk where sync = $1 and relid = $2', [sync, relid]);
  await session.run(
    `update ibex.target_table
        set state = 'dropped', floor = null, fill = null, changed_at = clock_timestamp(),
            reason = 'it was dropped on the source; its rows stay here'
      where sync = $1 and relid = $2`,
    [sync, relid],
  );
}

/** The source calls it by another name now. */
export async function renameTable(
  session: Session,
  sync: string,
  relid: number,
  to: TableName,
): Promise<void> {
  await session.run(
    'update ibex.target_table set schema_name = $3, table_name = $4 where sync = $1 and relid = $2',
    [sync, relid, to.schema, to.name],
  );
}

/** What is set aside of a table of the target is put back under the table's new name; of indexes see `parking.ts`. */
export async function renameParked(session: Session, from: TableName, to: TableName): Promise<void> {
  await session.run(
    `update ibex.parked
        set schema_name = case when (schema_name, table_name) = (f.schema, f.name) then t.schema else schema_name end,
            table_name = case when (schema_name, table_name) = (f.schema, f.name) then t.name else table_name end,
            referenced = case when referenced = f.label then t.label else referenced end,
            restore = replace(replace(restore, f.ident || ' ', t.ident || ' '), f.ident || '(', t.ident || '('),
            remark = replace(remark, f.ident || ' ', t.ident || ' ')
       from (select $1::text as schema, $2::text as name, $5::text as label, format('%I.%I', $1, $2) as ident) f,
            (select $3::text as schema, $4::text as name, $6::text as label, format('%I.%I', $3, $4) as ident) t
      where kind <> 'index' and ((schema_name, table_name) = (f.schema, f.name) or referenced = f.label)`,
    [from.schema, from.name, to.schema, to.name, tableLabel(from), tableLabel(to)],
  );
}
