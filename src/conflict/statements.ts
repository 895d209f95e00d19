/**
 * The SQL that finds conflicts in what is staged and decides them, for a whole batch at once. Found conflicts stand in
 * `pg_temp.ibex_clash`, one row a key, rows of both sides as the text of their columns.
 */

import { fromTable, keyMatch, staged, stageName } from '../apply/statements.ts';
import type { TruncatedRelation } from '../core/batch.ts';
import {
  CONFLICT_TYPES,
  type ConflictRule,
  type Rivalry,
  ruleFor,
  type TableRules,
} from '../core/conflict.ts';
import { keyOf, type TablePlan } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { ident, literal } from '../postgres/quote.ts';
import { type OurTable, placesOfKey, type Unknown, unknownDeltas } from './ours.ts';

/**
 * - `place`: the staged row; `n`: how many changes of ours were met; `lost`: rows of ours that go for an incoming one.
 * - `type`: null where nothing is to be decided: equal rows, and rows that were there before all.
 * - A staged row with the `op` H waits for a person where it comes from: it is in conflict with any other row.
 * - `winner`: `ask` until the function was asked.
 */
export const CREATE_CLASHES = `
  create temporary table if not exists ibex_clash (
    relid int8, place tid, n int8, type text, key text[], local_present bool, present bool, local_row text[],
    incoming_row text[], local_at timestamptz, incoming_at timestamptz, strategy text, winner text, new_row text[],
    a text, b text, reason text)`;

/** Keys as their types compare them, with what was noted of each. */
export function ourKeys(unknown: Unknown): string {
  const { plan, ours } = unknown;
  const key = keyOf(plan).map((column, i) => {
    const place = placesOfKey(plan, ours)[i];
    return `k${place}::${column.targetType} as key${i + 1}`;
  });
  const names = ours.columns.map((_, i) => `k${i + 1}`).join(', ');
  const by = key.map((_, i) => i + 1).join(', ');
  return `
    select ${key.join(', ')}, count(*) as n, max(at) filter (where op <> 'B') as at, bool_or(op = 'I') as inserted
      from (${unknownDeltas(unknown, `${names}, at, op`)}) d where op not in ('T', '?') group by ${by}`;
}

export function sameKey(plan: TablePlan): string {
  return keyOf(plan)
    .map((column, i) => {
      const [before, after] = column.match?.staged ?? ['', ''];
      return `d.key${i + 1} ${column.match?.target} ${before}s.c${i + 1}${after}`;
    })
    .join(' and ');
}

/** One row: how many TRUNCATEs of ours they did not know, and when the last was. */
export function ourTruncates(unknown: Unknown): string {
  return `select count(*) as n, max(at) as at from (${unknownDeltas(unknown, 'at, op')}) d where op = 'T'`;
}

/** One row: whether something staged meets a change of ours that is not among the conflicts that were decided. */
export function existsUndecided(unknown: Unknown, decided: boolean): string {
  const { plan } = unknown;
  const settled = decided
    ? ` and not exists (select from pg_temp.ibex_clash c
                         where c.relid = ${plan.relid} and c.place = s.ctid and c.n = coalesce(d.n, 0) + e.n)`
    : '';
  return `
    select exists (select from ${stageName(plan)} s cross join (${ourTruncates(unknown)}) e
                     left join (${ourKeys(unknown)}) d on ${sameKey(plan)}
                    where coalesce(d.n, 0) + e.n > 0${settled}) as found`;
}

/** Locks the rows of the table whose keys are staged: what they are decided by must not change until the end. */
export function lockStaged(plan: TablePlan): string {
  return `select count(*) from (select from ${fromTable(plan)} t join ${stageName(plan)} s on ${keyMatch(plan)}
                                  for no key update of t) locked`;
}

/** The key of a staged row as text, one array. */
export function stagedKey(plan: TablePlan): string {
  return `array[${keyOf(plan)
    .map((column) => `(${staged(plan, column)})::text`)
    .join(', ')}]::text[]`;
}

/** The row of a table alias as text, one array, or of what is staged. */
export function rowText(plan: TablePlan, value: (column: TablePlan['columns'][number]) => string): string {
  return `array[${plan.columns.map((column) => `(${value(column)})::text`).join(', ')}]::text[]`;
}

/** A whole row of the target's table made of what is staged; columns that do not travel are those of `t`. */
function composite(plan: TablePlan, columns: readonly string[]): string {
  const values = columns.map((name) => {
    const column = plan.columns.find((one) => one.name === name);
    return column === undefined ? `t.${ident(name)}` : staged(plan, column);
  });
  return `row(${values.join(', ')})::${ident(plan.schema)}.${ident(plan.name)}`;
}

export interface Deciding {
  readonly unknown: Unknown;
  readonly sync: string;
  readonly rivalry: Rivalry;
  readonly rules: TableRules;
  /** The name of this node. */
  readonly local: string;
  /** All columns of the target's table, in its order. */
  readonly columns: readonly string[];
}

/** Finds the conflicts of a table and decides those that a comparison decides. */
export function findClashes(deciding: Deciding): string {
  const { unknown, sync, local, rivalry, columns } = deciding;
  const { plan, ours } = unknown;
  const asks = usedRules(deciding.rules).some(({ strategy }) => strategy === 'function');
  const none = `select null::int8 as n, null::timestamptz as at, null::bool as inserted where false`;
  const keys = ours.generations.length === 0 ? none : ourKeys(unknown);
  const emptied =
    ours.generations.length === 0 ? 'select 0::int8 as n, null::timestamptz as at' : ourTruncates(unknown);
  const localIsFirst = local === rivalry.first;
  const [mine, theirs] = asks
    ? [
        `case when r.local_present then (t.*)::${ident(plan.schema)}.${ident(plan.name)}::text end`,
        `case when s.present then ${composite(plan, columns)}::text end`,
      ]
    : ['null', 'null'];
  return `
    insert into pg_temp.ibex_clash (relid, place, n, type, key, local_present, present, local_row, incoming_row, local_at,
                                    incoming_at, strategy, winner, a, b)
    select ${plan.relid}, s.ctid, r.n, y.type, r.key, r.local_present, s.present, r.local_row, r.incoming_row, r.local_at,
           s.at, coalesce(case when h.decision is not null then 'hold' end, v.strategy),
           case when h.key is not null and h.decision is null then 'none' when y.type is null then y.silent
                else coalesce(h.decision, v.winner) end,
           ${localIsFirst ? mine : theirs}, ${localIsFirst ? theirs : mine}
      from ${stageName(plan)} s
      cross join (${emptied}) e
      left join (${keys}) d on ${ours.generations.length === 0 ? 'false' : sameKey(plan)}
      left join ${fromTable(plan)} t on ${keyMatch(plan)}
      left join ibex.held_key h on h.sync = ${literal(sync)} and h.schema_name = ${literal(plan.schema)}
            and h.table_name = ${literal(plan.name)} and h.key = ${stagedKey(plan)}
      cross join lateral (
        select ${stagedKey(plan)} as key, t.tableoid is not null as local_present, coalesce(d.n, 0) + e.n as n,
               coalesce(s.op = 'H', false) as waits, greatest(d.at, e.at) as local_at,
               case when t.tableoid is not null then ${rowText(plan, (column) => `t.${ident(column.name)}`)} end as local_row,
               case when s.present then ${rowText(plan, (column) => staged(plan, column))} end as incoming_row) r
      cross join lateral (
        select case when r.n = 0 and not r.waits or r.local_row is not distinct from r.incoming_row then null
                    when not r.waits and (s.at is null) <> (r.local_at is null) then null
                    when s.present and r.local_present
                      then case when s.op in ('I', 'B') and coalesce(d.inserted, true)
                                then 'insert_exists' else 'update_origin_differs' end
                    when s.present then 'update_missing'
                    else 'delete_origin_differs' end as type,
               case when r.local_row is distinct from r.incoming_row and r.n > 0 and s.at is null and r.local_at is not null
                    then 'local' else 'incoming' end as silent) y
      cross join lateral (${winnerOf(deciding)}) v
     where r.n > 0 or r.waits or h.key is not null`;
}

function usedRules({ rule, types }: TableRules): ConflictRule[] {
  return [rule, ...Object.values(types)];
}

function winnerOf(deciding: Deciding): string {
  const cases = (what: (rule: ConflictRule) => string) => {
    const own = CONFLICT_TYPES.flatMap((type) =>
      deciding.rules.types[type] === undefined
        ? []
        : [`when ${literal(type)} then ${what(ruleFor(deciding.rules, type))}`],
    );
    const other = what(deciding.rules.rule);
    return own.length === 0 ? other : `case y.type ${own.join(' ')} else ${other} end`;
  };
  return `select ${cases((rule) => literal(rule.strategy))} as strategy, ${cases((rule) => decide(rule, deciding))} as winner`;
}

/** SQL: who wins by a rule. Both nodes have to come to the same answer, so nothing in it depends on who asks. */
export function decide(rule: ConflictRule, deciding: Deciding): string {
  const { local, rivalry, unknown } = deciding;
  const { incoming } = unknown;
  const winner = (node: string) => (node === local ? `'local'` : `'incoming'`);
  const tie = winner(local < incoming ? local : incoming);
  const compare = (mine: string, theirs: string) =>
    `case when ${mine} > ${theirs} then 'local' when ${mine} < ${theirs} then 'incoming' else ${tie} end`;
  const [mine, theirs] = [`coalesce(r.local_at, '-infinity')`, `coalesce(s.at, '-infinity')`];
  switch (rule.strategy) {
    case 'source':
      return winner(rivalry.first);
    case 'target':
      return winner(rivalry.second);
    case 'newest':
      return compare(mine, theirs);
    case 'oldest':
      return compare(theirs, mine);
    case 'priority':
      return winner(rule.nodes.find((node) => node === local || node === incoming) ?? local);
    case 'column':
      return byColumn(rule, unknown.plan, compare);
    case 'function':
      return `'ask'`;
    case 'hold':
    case 'abort':
      return `'none'`;
  }
}

/**
 * A row that is there beats one that is gone; a value beats none. Of two rows with the same value the one whose text is
 * greater stands, column by column in the order of their names. By the nodes' names a node between others could yield to
 * two of them, and would take their rows by turns without end; rows are compared alike everywhere.
 */
function byColumn(
  rule: ConflictRule,
  plan: TablePlan,
  compare: (mine: string, theirs: string) => string,
): string {
  const text = (value: (column: TablePlan['columns'][number]) => string) =>
    `array[${[...plan.columns]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((column) => `(${value(column)})::text collate "C"`)
      .join(', ')}]`;
  const byText = `case when ${text(({ name }) => `t.${ident(name)}`)} > ${text((column) => staged(plan, column))}
                       then 'local' else 'incoming' end`;
  const column = plan.columns.find(({ name }) => name === rule.column);
  if (column === undefined) return byText;
  const [mine, theirs] = [`t.${ident(column.name)}`, staged(plan, column)];
  return `case when not r.local_present then 'incoming' when not s.present then 'local'
               when (${mine} is null) <> (${theirs} is null) then case when ${mine} is null then 'incoming' else 'local' end
               when ${mine} is null or ${mine} = ${theirs} then ${byText} else ${compare(mine, theirs)} end`;
}

/** Takes what does not win out of what is staged. */
export function leaveOut({ relid, ...plan }: TablePlan): string {
  return `delete from ${stageName({ relid, ...plan })} s using pg_temp.ibex_clash c
           where c.relid = ${relid} and c.place = s.ctid and c.winner in ('local', 'none')`;
}

/** Adds the keys of all rows that an incoming TRUNCATE takes: each is gone, unless something newer is staged of it. */
export function stageEmptied(plan: TablePlan, { at, predicate, whole }: TruncatedRelation): string {
  const key = keyOf(plan);
  const columns = key.map((_, i) => `c${i + 1}`).join(', ');
  const values = key.map((column) => `t.${ident(column.name)}::${column.wire}`).join(', ');
  return `
    insert into ${stageName(plan)} (n, present, ${columns}, at, op)
    select 0, false, ${values}, ${literal(at)}::timestamptz, 'D' from ${fromTable(plan)} t
     where ${whole ? 'true' : `(${predicate ?? 'true'})`} and not exists (select from ${stageName(plan)} s where ${keyMatch(plan)})`;
}

/**
 * Notes keys that were decided as changes of ours once more, with the time of the row that stands. The other side hears of
 * it whoever won: where both sides decided for the other's row, each would keep what the other gave up. A key that waited
 * until both sides came to have the same is noted too: it may wait there as well.
 */
export function noteAgain(plan: TablePlan, ours: OurTable): string {
  return note(
    plan,
    ours,
    `case c.winner when 'gone' then true when 'none' then c.local_row is not distinct from c.incoming_row
                else c.type is not null end`,
  );
}

/** Notes the keys that a function gave another row, for a guard: the other side does not have it. */
export function noteNew(plan: TablePlan, ours: OurTable): string {
  return note(plan, ours, `c.winner = 'new'`);
}

function note(plan: TablePlan, ours: OurTable, which: string): string {
  const names = ours.columns.map((_, i) => `k${i + 1}`).join(', ');
  const places = placesOfKey(plan, ours);
  const values = ours.types.map((type, i) => `c.key[${places.indexOf(i + 1) + 1}]::${type}`).join(', ');
  return `
    insert into ibex.delta_${ours.relid}_${ours.current} (${names}, at, op, origin)
    select ${values}, coalesce(case c.winner when 'new' then greatest(c.local_at, c.incoming_at)
                                             when 'incoming' then c.incoming_at else c.local_at end, clock_timestamp()),
           'U', null
      from pg_temp.ibex_clash c
     where c.relid = ${plan.relid} and ${which}`;
}

/**
 * Of a guard: what was noted, as of this snapshot, of keys that were decided for what came, or are equal to it, counts no
 * more. By DELETE, though elsewhere delta tables are only ever truncated: such changes are few, and as the other side never
 * hears of them no position says which of them are settled.
 */
export function forgetSettled(plan: TablePlan, ours: OurTable, incoming: string, asOf: Snapshot): string {
  const places = placesOfKey(plan, ours);
  const match = keyOf(plan).map((column, i) => {
    const [before, after] = column.match?.staged ?? ['', ''];
    const key = `${before}(c.key[${i + 1}])::${column.wire}${after}`;
    return `d.k${places[i]}::${column.targetType} ${column.match?.target} ${key}`;
  });
  const forget = (n: number) => `
    delete from ibex.delta_${ours.relid}_${n} d using pg_temp.ibex_clash c
     where c.relid = ${plan.relid}
       and (c.winner in ('incoming', 'new') or (c.winner = 'none' and c.local_row is not distinct from c.incoming_row))
       and d.op not in ('T', '?') and d.origin is distinct from ${literal(incoming)}
       and txid_visible_in_snapshot(d.xid, ${literal(asOf)}) and ${match.join(' and ')}`;
  return ours.generations.map(forget).join('; ');
}

/** Gives what our own capture noted of this batch the times that the batch brought. */
export function stampTimes(plan: TablePlan, ours: OurTable, incoming: string): string {
  const places = placesOfKey(plan, ours);
  const match = keyOf(plan).map((column, i) => {
    const [before, after] = column.match?.staged ?? ['', ''];
    return `d.k${places[i]}::${column.targetType} ${column.match?.target} ${before}s.c${i + 1}${after}`;
  });
  const stamp = (n: number) => `
    update ibex.delta_${ours.relid}_${n} d set at = s.at from ${stageName(plan)} s
     where d.xid = txid_current() and d.origin = ${literal(incoming)} and d.op not in ('T', '?') and s.at is not null
       and ${match.join(' and ')}`;
  return ours.generations.map(stamp).join('; ');
}

/**
 * One row a table: how many of its keys ended as resolved, without what came of them, and as held; and how many conflicts
 * there were of each type.
 */
export const COUNT_SETTLED = `
  select c.relid::float8 as relid, sum(c.keys) filter (where c.winner in ('local', 'new'))::float8 as resolved,
         sum(c.keys) filter (where c.winner = 'none')::float8 as held,
         coalesce(json_object_agg(c.type, c.n) filter (where c.type is not null), '{}') as types
    from (select relid, winner, type, count(*) as n, count(distinct key) as keys from pg_temp.ibex_clash where winner <> 'gone' group by 1, 2, 3) c
   group by 1`;
