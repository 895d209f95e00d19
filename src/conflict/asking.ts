/**
 * The strategy `function`: `name(a table, b table, meta jsonb) returns table`, a and b being the rows of the two nodes in
 * the order of `between`, null where the row is gone. What it returns is the row; null: gone.
 */

import { stageName } from '../apply/statements.ts';
import { CONFLICT_TYPES, ruleFor } from '../core/conflict.ts';
import { keyOf, type TablePlan } from '../core/plan.ts';
import { ident, literal } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import type { Deciding } from './statements.ts';

/** Asks for each conflict of a table that waits for it. An error of the function, or another key, holds that key alone. */
export async function askFunctions(
  session: Session,
  { unknown, rules, rivalry, local }: Deciding,
): Promise<void> {
  const { plan } = unknown;
  const relation = `${ident(plan.schema)}.${ident(plan.name)}`;
  const [firstAt, secondAt] =
    local === rivalry.first ? ['local_at', 'incoming_at'] : ['incoming_at', 'local_at'];
  for (const type of CONFLICT_TYPES) {
    const { strategy, function: name } = ruleFor(rules, type);
    if (strategy !== 'function' || name === null) continue;
    const meta = `jsonb_build_object('table', ${literal(`${plan.schema}.${plan.name}`)}, 'type', c.type, 'key', c.key,
      'first', jsonb_build_object('node', ${literal(rivalry.first)}::text, 'at', c.${firstAt}),
      'second', jsonb_build_object('node', ${literal(rivalry.second)}::text, 'at', c.${secondAt}))`;
    const values = plan.columns.map((column) => `((q.answer::${relation}).${ident(column.name)})::text`);
    await session.run(`
      update pg_temp.ibex_clash c
         set new_row = v.row, reason = q.failure,
             winner = case when q.failure is not null then 'none' when v.row is not distinct from c.local_row then 'local'
                           when v.row is not distinct from c.incoming_row then 'incoming' else 'new' end
        from (select c.place, r.* from pg_temp.ibex_clash c
               cross join lateral ibex.ask_resolver(${literal(name)}, ${literal(relation)}::regclass, c.a, c.b, ${meta}) r
               where c.relid = ${plan.relid} and c.winner = 'ask' and c.type = ${literal(type)}) q
        cross join lateral (select case when q.answer is not null then array[${values.join(', ')}]::text[] end as row) v
       where c.relid = ${plan.relid} and c.place = q.place`);
  }
  await session.run(refuseOtherKeys(plan));
  await session.run(stageAnswers(plan));
}

function refuseOtherKeys(plan: TablePlan): string {
  return `
    update pg_temp.ibex_clash c set winner = 'none', new_row = null, reason = 'the function returned a row of another key'
     where c.relid = ${plan.relid} and c.winner = 'new' and c.new_row is not null
       and c.new_row[1:${keyOf(plan).length}] is distinct from c.key`;
}

/** Puts what a function returned in the place of what came: as another version of the staged row, which lies elsewhere. */
function stageAnswers(plan: TablePlan): string {
  const values = plan.columns.map(
    (column, i) =>
      `c${i + 1} = case when c.new_row is null then s.c${i + 1} else (c.new_row[${i + 1}])::${column.wire} end`,
  );
  return `
    with answered as (
      update ${stageName(plan)} s set present = c.new_row is not null, ${values.join(', ')}
      from pg_temp.ibex_clash c where c.relid = ${plan.relid} and c.place = s.ctid and c.winner = 'new'
      returning c.place as before, s.ctid as place
    )
    update pg_temp.ibex_clash c set place = n.place from answered n where c.relid = ${plan.relid} and c.place = n.before`;
}
