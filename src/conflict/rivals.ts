/**
 * Unique values: an incoming row, and another row of ours that has a value which only one row may have. The two are decided
 * as two rows of one key are; the one that loses is gone, on both sides.
 */

import { fromTable, keyMatch, staged, stageName } from '../apply/statements.ts';
import { ruleFor } from '../core/conflict.ts';
import { keyOf, type TablePlan } from '../core/plan.ts';
import { ident, literal, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type Deciding, decide, ourKeys, rowText, stagedKey } from './statements.ts';

interface UniqueIndex {
  readonly expressions: readonly string[];
  readonly operators: readonly string[];
  readonly predicate: string | null;
}

/** The unique indexes of a table beside that of its key, with the operators by which they compare. */
const READ_INDEXES = `
  select (select json_agg(pg_get_indexdef(i.indexrelid, n, true) order by n) from generate_series(1, i.indnkeyatts) n) as expressions,
         (select json_agg(format('operator(%I.%s)', n.nspname, o.oprname) order by u.ord)
            from unnest(i.indclass::oid[]) with ordinality u(opclass, ord)
            join pg_opclass c on c.oid = u.opclass
            join pg_amop w on w.amopfamily = c.opcfamily and w.amopstrategy = 3
             and w.amoplefttype = c.opcintype and w.amoprighttype = c.opcintype
            join pg_operator o on o.oid = w.amopopr join pg_namespace n on n.oid = o.oprnamespace) as operators,
         pg_get_expr(i.indpred, i.indrelid) as predicate
    from pg_index i
   where i.indrelid = to_regclass($1) and i.indisunique and i.indisvalid
     and (i.indexprs is not null or i.indpred is not null
          or (select array_agg(a.attname::text order by a.attname::text collate "C") from pg_attribute a
               where a.attrelid = i.indrelid and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
             is distinct from (select array_agg(k order by k collate "C") from unnest($2::text[]) k))
   order by i.indexrelid`;

/** Temporary: which staged row meets which row of ours. */
const CREATE_RIVALS = `
  create temporary table if not exists ibex_rival (
    place tid, key text[], row text[], n int8, at timestamptz, incoming_at timestamptz, winner text);
  delete from pg_temp.ibex_rival`;

/**
 * Finds and decides them, after what lost by its key was taken out of the stage. A row of ours that was to change and now
 * does not, because what is staged of it loses, keeps its values: it may be in the way of another staged row. So they are
 * looked for until none loses; rows of ours that lose to those that are left are taken away only then.
 */
export async function settleRivals(session: Session, deciding: Deciding): Promise<void> {
  const { plan } = deciding.unknown;
  const key = keyOf(plan).map(({ name }) => name);
  const indexes = await session.rows<UniqueIndex>(READ_INDEXES, [tableIdent(plan), key]);
  if (indexes.length === 0) return;
  let lost: number;
  do {
    await session.run(CREATE_RIVALS);
    for (const index of indexes) await session.run(findRivals(deciding, index));
    await session.run(DECIDE_PLACES);
    await session.run(noteRivals(deciding, LOST));
    lost = await session.run(
      `delete from ${stageName(plan)} s using pg_temp.ibex_rival r where r.place = s.ctid and ${LOST}`,
    );
  } while (lost > 0);
  await session.run(noteRivals(deciding, 'true'));
  await session.run(stageLosers(deciding));
}

function findRivals(deciding: Deciding, { expressions, operators, predicate }: UniqueIndex): string {
  const { unknown, rules, columns } = deciding;
  const { plan, ours } = unknown;
  const relation = tableIdent(plan);
  const values = columns.map((name) => {
    const column = plan.columns.find((one) => one.name === name);
    return `${column === undefined ? `(null::${relation}).${ident(name)}` : staged(plan, column)} as ${ident(name)}`;
  });
  const list = expressions.map((expression, i) => `${expression} as ibex_e${i + 1}`).join(', ');
  const where = predicate ?? 'true';
  const equal = expressions
    .map((expression, i) => `${expression} ${operators[i]} x.ibex_e${i + 1}`)
    .join(' and ');
  const noted =
    ours.generations.length === 0
      ? '(select null::int8 as n, null::timestamptz as at) d on false'
      : `(${ourKeys(unknown)}) d on ${keyOf(plan)
          .map((column, i) => `d.key${i + 1} ${column.match?.target} t.${ident(column.name)}`)
          .join(' and ')}`;
  const rule = ruleFor(rules, 'update_exists');
  return `
    insert into pg_temp.ibex_rival
    select s.ctid, r.key, r.local_row, coalesce(d.n, 0), d.at, s.at, v.winner
      from (select ibex_place, ${list}
              from (select s.ctid as ibex_place, ${values.join(', ')} from ${stageName(plan)} s where s.present) q
             where ${where}) x
      join ${fromTable(plan)} t on ${equal} and (${where})
      join ${stageName(plan)} s on s.ctid = x.ibex_place
      left join ${noted}
      cross join lateral (select ${keyText(plan)} as key, ${rowText(plan, (column) => `t.${ident(column.name)}`)} as local_row,
                                 true as local_present, d.at as local_at) r
      cross join lateral (select ${decide(rule, deciding)} as winner) v
     where not exists (select from ${stageName(plan)} o where ${keyMatch(plan).replaceAll('s.c', 'o.c')})`;
}

function keyText(plan: TablePlan): string {
  return `array[${keyOf(plan)
    .map((column) => `t.${ident(column.name)}::text`)
    .join(', ')}]::text[]`;
}

/** A staged row loses if it loses to any. */
const DECIDE_PLACES = `
  update pg_temp.ibex_rival r set winner = w.winner
    from (select place, case when bool_or(winner = 'local') then 'local' when bool_or(winner <> 'incoming') then 'none'
                             else 'incoming' end as winner
            from pg_temp.ibex_rival group by 1) w
   where w.place = r.place`;
const LOST = `r.winner in ('local', 'none')`;

/**
 * Each row of ours that a staged one meets is a conflict of its own. Between rows of two keys a function cannot decide:
 * they are held, as where a person is to.
 */
function noteRivals({ unknown, rules }: Deciding, which: string): string {
  const { plan } = unknown;
  const { strategy } = ruleFor(rules, 'update_exists');
  const reason = strategy === 'function' ? `'a function decides between rows of one key only'` : 'null';
  return `
    insert into pg_temp.ibex_clash (relid, n, type, key, local_present, present, local_row, incoming_row, local_at,
                                    incoming_at, strategy, winner, reason)
    select ${plan.relid}, 0, case when m.n > 1 then 'multiple_unique_conflicts' else 'update_exists' end,
           ${stagedKey(plan)}, true, true, r.row, ${rowText(plan, (column) => staged(plan, column))},
           r.at, r.incoming_at, ${literal(strategy)}, r.winner, case when r.winner = 'none' then ${reason} end
      from (select distinct on (place, key) * from pg_temp.ibex_rival r where ${which} order by place, key) r
      join (select place, count(distinct key) as n from pg_temp.ibex_rival group by 1) m on m.place = r.place
      join ${stageName(plan)} s on s.ctid = r.place`;
}

/** Rows of ours that lose are taken away with what is staged, and noted, so that the other side has them no more either. */
function stageLosers({ unknown }: Deciding): string {
  const { plan } = unknown;
  const key = keyOf(plan);
  const columns = key.map((_, i) => `c${i + 1}`).join(', ');
  const values = key.map((column, i) => `(r.key[${i + 1}])::${column.wire}`).join(', ');
  return `
    with gone as (
      insert into ${stageName(plan)} as s (n, present, ${columns}, at, op)
      select 0, false, ${values}, max(r.incoming_at), 'D'
        from pg_temp.ibex_rival r where r.winner = 'incoming' group by r.key
      returning s.ctid as place, s.at, ${stagedKey(plan)} as key
    )
    insert into pg_temp.ibex_clash (relid, place, n, key, local_at, winner)
    select ${plan.relid}, g.place, max(r.n), g.key, g.at, 'gone'
      from gone g join pg_temp.ibex_rival r on r.key = g.key group by 1, 2, 4, 5`;
}
