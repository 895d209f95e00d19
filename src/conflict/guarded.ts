/**
 * What the guard of a sync that goes one way has noted on the target: changes that did not come by its lane. They stand in
 * delta tables, as those of `between` do, for a reader of which no lane knows (`guardName`).
 */
import { guardName } from '../core/conflict.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { literal, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { readOurs } from './ours.ts';

/** Whether the target has a guard of the sync. */
export async function isGuarded(target: Session, sync: string): Promise<boolean> {
  const { known } = await target.row<{ known: boolean }>(
    `select to_regclass('ibex.source_sync') is not null as known`,
  );
  if (!known) return false;
  return (await target.rows('select from ibex.source_sync where name = $1', [guardName(sync)])).length > 0;
}

/**
 * Tables are copied anew: what was noted of them counts no more, nor does what waits for a person, and a guard that was
 * given up is wanted again. Part of the transaction that empties them. Tables without a guard are left alone.
 */
export async function forgetOurs(
  target: Session,
  sync: string,
  tables: readonly { readonly plan: TablePlan }[],
  incoming: string,
): Promise<void> {
  const guarded = tables.map(({ plan }) => plan).filter(({ timed }) => timed === 'guard');
  if (guarded.length === 0) return;
  for (const { relid, generations } of (await readOurs(target, guarded, incoming, guardName(sync))).values())
    for (const n of generations)
      await target.run(
        `delete from ibex.delta_${relid}_${n} where origin is distinct from ${literal(incoming)}`,
      );
  await target.run(
    `update ibex.source_table t set given_up_at = null, given_up_why = null
      where t.sync = $1 and t.given_up_at is not null and t.relid = any ($2::regclass[]::oid[])`,
    [guardName(sync), guarded.map(tableIdent)],
  );
  await letGo(target, sync, guarded, 'the table was copied anew');
}

/** Nobody has to decide any more what waits for a person. `tables` null: of all of them. */
export async function letGo(
  target: Session,
  sync: string,
  tables: readonly TableName[] | null,
  why: string,
): Promise<void> {
  const chosen = `sync = $1 and ($2::json is null or (schema_name, table_name) in (
    select t.schema, t.name from json_to_recordset($2) t(schema text, name text)))`;
  const names = tables && JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
  await target.run(`delete from ibex.held_key where ${chosen}`, [sync, names]);
  await target.run(
    `update ibex.conflict set state = 'closed', reason = $3 where ${chosen} and state in ('held', 'aborted')`,
    [sync, names, why],
  );
}

/** A table of the target as its guard stands. */
export interface GuardedTable {
  readonly table: string;
  /** What is written on the target is noted. */
  readonly armed: boolean;
  /** Why its guard was given up; null when it was not. */
  readonly givenUp: string | null;
  /** Keys that others have written there and that no incoming row has settled yet. */
  readonly keys: number;
  /** Others have truncated it there. */
  readonly truncated: boolean;
}

type Noted = Pick<GuardedTable, 'keys' | 'truncated'>;
const NOTHING: Noted = { keys: 0, truncated: false };

interface Row extends Omit<GuardedTable, 'table' | keyof Noted> {
  readonly schema: string;
  readonly name: string;
  readonly relid: number;
  readonly columns: number;
  readonly echo: string;
  readonly generations: readonly number[];
}

const READ_GUARDED = `
  select c.schema_name as schema, c.table_name as name, c.relid::int8::float8 as relid, c.armed_at is not null as armed,
         t.given_up_why as "givenUp", cardinality(c.columns) as columns, s.echo,
         coalesce((select json_agg(g.n) from ibex.generation g
                    where g.relid = c.relid
                      and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0), '[]') as generations
    from ibex.source_sync s join ibex.source_table t on t.sync = s.name join ibex.captured c on c.relid = t.relid
   where s.name = $1 order by 1, 2`;

/** What a guard has noted, by table; null where there is none. */
export async function readGuard(target: Session, sync: string): Promise<GuardedTable[] | null> {
  if (!(await isGuarded(target, sync))) return null;
  const tables: GuardedTable[] = [];
  for (const row of await target.rows<Row>(READ_GUARDED, [guardName(sync)])) {
    const { armed, givenUp } = row;
    const noted = row.generations.length === 0 ? NOTHING : await target.row<Noted>(countKeys(row));
    tables.push({ table: tableLabel(row), armed, givenUp, ...noted });
  }
  return tables;
}

function countKeys({ relid, columns, echo, generations }: Row): string {
  const key = Array.from({ length: columns }, (_, i) => `k${i + 1}`).join(', ');
  const deltas = generations.map(
    (n) => `select ${key}, op from ibex.delta_${relid}_${n} where origin is distinct from ${literal(echo)}`,
  );
  return `
    with d as (${deltas.join(' union all ')})
    select (select count(*) from (select distinct ${key} from d where op not in ('T', '?')) k)::float8 as keys,
           exists (select from d where op = 'T') as truncated`;
}
