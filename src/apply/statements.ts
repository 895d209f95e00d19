/**
 * The SQL that stages and merges a batch on the target; everything that depends on a table's plan is built here.
 *
 * A batch carries states, not operations, so the merge is set-wise: remove what is gone, write what is there
 * where it differs. "Differs" is byte-wise (`*<>` compares images): 1.0 and 1.00 are equal numbers and still
 * different data.
 */
import { type ColumnPlan, keyOf, type TableName, type TablePlan } from '../core/plan.ts';
import { ident, literal, tableIdent } from '../postgres/quote.ts';
import type { TargetFacts, UncheckedConstraint } from './target-table.ts';

/** Name of the temporary table that takes a table's part of a batch. */
export function stageName(plan: TablePlan): string {
  return `pg_temp.ibex_stage_${plan.relid}`;
}

/** Columns are nullable and of base types: the part of a key that is gone has nothing but the key. */
export function createStage(plan: TablePlan): string {
  const columns = plan.columns.map((column, i) => `c${i + 1} ${column.wire}`).join(', ');
  const times = plan.timed ? ', at timestamptz, op "char"' : '';
  return `create temporary table ibex_stage_${plan.relid} (n int8, present bool, ${columns}${times})`;
}

/** A table that keeps pieces of a large backlog: as the temporary one, with the number of the piece. */
export function createStageFor(plan: TablePlan, table: string): string {
  const columns = plan.columns.map((column, i) => `c${i + 1} ${column.wire}`).join(', ');
  return `create table ${table} (piece int4, n int8, present bool, ${columns}) with (autovacuum_enabled = off)`;
}

/** Copies what lies in the temporary table into that one, as a piece. */
export function copyStage(plan: TablePlan, table: string, piece: number): string {
  return `insert into ${table} select ${piece}, s.* from ${stageName(plan)} s`;
}

/**
 * Adds the pieces to what lies in the temporary table. Of a key that several have, the last one is right, and what lies
 * there is newer than all of them. Rows without a key are all different ones.
 */
export function addStaged(plan: TablePlan, table: string): string {
  const columns = ['n', 'present', ...plan.columns.map((_, i) => `c${i + 1}`)].join(', ');
  const into = `insert into ${stageName(plan)} (${columns})`;
  if (plan.mode === 'row') return `${into} select ${columns} from ${table}`;
  const keys = keyOf(plan).map((column, i) => {
    const [before, after] = column.match?.staged ?? ['', ''];
    return `${before}s.c${i + 1}${after}`;
  });
  return `
    ${into} select ${columns}
      from (select distinct on (${keys.join(', ')}) s.*
              from (select * from ${table} union all select null, t.* from ${stageName(plan)} t) s
             order by ${keys.join(', ')}, s.piece desc nulls first) newest
     where piece is not null`;
}

export function loadStage(plan: TablePlan): string {
  return `copy ${stageName(plan)} from stdin (format binary)`;
}

/** What is staged: rows that are present, keys that are gone, deltas that named them. */
export function countStage(plan: TablePlan): string {
  return `
    select count(*) filter (where present)::int8::text as present,
           count(*) filter (where not present)::int8::text as gone, coalesce(sum(n), 0)::text as deltas
      from ${stageName(plan)}`;
}

/** Small leftovers are deleted, large ones truncated: TRUNCATE costs catalog writes, DELETE costs by the row. */
export function clearStage(plan: TablePlan, how: 'delete' | 'truncate'): string {
  return how === 'delete' ? `delete from ${stageName(plan)}` : `truncate ${stageName(plan)}`;
}

/** Removes the keys that are gone. */
export function deleteGone(plan: TablePlan): string {
  return `delete from ${fromTable(plan)} t using ${stageName(plan)} s where not s.present and ${keyMatch(plan)}`;
}

/** One row: the blocks of a table's stage. */
export function blocksOfStage(plan: TablePlan): string {
  return `select (pg_relation_size('${stageName(plan)}') / current_setting('block_size')::int8)::int4 as blocks`;
}

/** Writes the rows that are present, or those in these blocks of the stage, through the unique index of the key. */
export function upsert(
  plan: TablePlan,
  facts: TargetFacts,
  blocks?: { readonly first: number; readonly end: number },
): string {
  const key = keyOf(plan).map((column) => ident(column.name));
  const set = settable(plan, facts);
  const action =
    set.length === 0
      ? 'nothing'
      : `update set ${set.map((column) => `${ident(column.name)} = excluded.${ident(column.name)}`).join(', ')}
          where ${image(set, 't')} *<> ${image(set, 'excluded')}`;
  const within =
    blocks === undefined ? '' : ` and s.ctid >= '(${blocks.first},0)' and s.ctid < '(${blocks.end},0)'`;
  return `${insertPresent(plan, facts)} where s.present${within} on conflict (${key.join(', ')}) do ${action}`;
}

/** Writes the rows that are present where no unique index can be inferred: update what differs .. */
export function updatePresent(plan: TablePlan, facts: TargetFacts): string | null {
  const set = settable(plan, facts);
  if (set.length === 0) return null;
  const assign = set.map((column) => `${ident(column.name)} = ${staged(plan, column)}`).join(', ');
  return `update ${fromTable(plan)} t set ${assign} from ${stageName(plan)} s
           where s.present and ${keyMatch(plan)} and ${differs(plan)}`;
}

/** .. and insert what is missing. */
export function insertMissing(plan: TablePlan, facts: TargetFacts): string {
  return `${insertPresent(plan, facts)}
           where s.present and not exists (select from ${fromTable(plan)} t where ${keyMatch(plan)})`;
}

/** One row: how many of the staged rows have their key in the table. */
export function countMet(plan: TablePlan): string {
  return `select count(*)::float8 as met from ${stageName(plan)} s
           where exists (select from ${fromTable(plan)} t where ${keyMatch(plan)})`;
}

/** Removes every staged key that is gone or differs, so that `insertMissing` can write it anew. */
export function deleteChanged(plan: TablePlan): string {
  return `delete from ${fromTable(plan)} t using ${stageName(plan)} s
           where ${keyMatch(plan)} and (not s.present or ${differs(plan)})`;
}

/**
 * As `deleteChanged`, and writes those that are present anew at once: what the target's other columns hold goes from
 * the removed row to the new one. Counting the removed first makes all of them go before the first one comes.
 */
export function rewriteChanged(plan: TablePlan, facts: TargetFacts): string {
  const others = facts.others.map(ident);
  const kept = ['s.ctid as place', ...others.map((name, i) => `t.${name} as o${i + 1}`)].join(', ');
  const names = [...written(plan).map((column) => ident(column.name)), ...others];
  const values = [
    ...written(plan).map((column) => staged(plan, column)),
    ...others.map((_, i) => `r.o${i + 1}`),
  ];
  return `
    with r as (${deleteChanged(plan)} returning ${kept})
    insert into ${tableIdent(plan)} (${names.join(', ')})${overriding(facts)}
    select ${values.join(', ')}
      from (select count(*) from r) all_removed cross join r join ${stageName(plan)} s on s.ctid = r.place
     where s.present`;
}

/** Removes every staged key, whatever its row. */
export function deleteStaged(plan: TablePlan): string {
  return `delete from ${fromTable(plan)} t using ${stageName(plan)} s where ${keyMatch(plan)}`;
}

/** Mode `row`: adds rows, except as many of each as the batch removes too. */
export function insertAdded(plan: TablePlan, facts: TargetFacts, gone: number): string {
  if (gone === 0) return `${insertPresent(plan, facts)} where s.present`;
  const one = rowOfStage(plan);
  const counted = `
    (select s.*, row_number() over (partition by ${one}, s.present) as i,
            count(*) filter (where not s.present) over (partition by ${one}) as gone from ${stageName(plan)} s) s`;
  return `${insertPresent(plan, facts, counted)} where s.present and s.i > s.gone`;
}

/**
 * Mode `row`: removes as many equal rows as were removed on the source and not added. Rows are compared by their
 * text, which every type has; without an index to help, the table is read once a batch that removes anything.
 */
export function deleteRemoved(plan: TablePlan): string {
  const rowOfTable = `row(${plan.columns.map((column) => `t.${ident(column.name)}`).join(', ')})::text`;
  return `
    with gone as (
      select ${rowOfStage(plan)} as r, count(*) filter (where not s.present) - count(*) filter (where s.present) as n
        from ${stageName(plan)} s group by 1 having bool_or(not s.present)
    ), have as (
      select t.tableoid as relation, t.ctid as place, ${rowOfTable} as r,
             row_number() over (partition by ${rowOfTable}) as i
        from ${fromTable(plan)} t where ${rowOfTable} in (select g.r from gone g)
    )
    delete from ${fromTable(plan)} t using have h, gone g
     where h.r = g.r and h.i <= g.n and t.ctid = h.place and t.tableoid = h.relation`;
}

function rowOfStage(plan: TablePlan): string {
  return `row(${plan.columns.map((column) => staged(plan, column)).join(', ')})::text`;
}

/** Leaves of what is staged only `count` present rows, from the `first` on. */
export function keepStaged(plan: TablePlan, first: number, count: number): string {
  const [from, to] = [first, first + count - 1].map((at) => `(${presentRows(plan, 'ctid', at, 1)})`);
  return `delete from ${stageName(plan)} where ctid < ${from} or ctid > ${to}`;
}

/** The key of the present row at this place, as text. */
export function readKey(plan: TablePlan, at: number): string {
  const key = keyOf(plan).map((_, i) => `c${i + 1}::text`);
  return presentRows(plan, `array[${key.join(', ')}] as key`, at, 1);
}

function presentRows(plan: TablePlan, what: string, first: number, count: number): string {
  return `select ${what} from ${stageName(plan)} where present order by ctid offset ${first} limit ${count}`;
}

/** A row of the table, `t`, was written by the batch. */
export function isStaged(plan: TablePlan): string {
  return `exists (select from ${stageName(plan)} s where s.present and ${keyMatch(plan)})`;
}

/** A row of the table, `t`, is written or removed by the batch. */
export function isKnown(plan: TablePlan): string {
  return `exists (select from ${stageName(plan)} s where ${keyMatch(plan)})`;
}

/** Rows of the table that the batch removes, if asked, and those in which it changes one of these columns. */
export function selectLeaving(plan: TablePlan, gone: boolean, changed: readonly string[]): string {
  const columns = plan.columns.filter((column) => changed.includes(column.name));
  const values = columns.map((column) => staged(plan, column)).join(', ');
  const cases = [
    ...(gone ? ['not s.present'] : []),
    ...(columns.length > 0 ? [`s.present and ${image(columns, 't')} *<> row(${values})::record`] : []),
  ];
  return `select t.* from ${fromTable(plan)} t join ${stageName(plan)} s on ${keyMatch(plan)}
           where ${cases.join(' or ') || 'false'}`;
}

/**
 * Finds a row that the batch wrote and that contradicts another one by a deferrable constraint: those are enforced by
 * triggers, and so not for a replica.
 */
export function findContradiction(
  plan: TablePlan,
  { expressions, predicate, contradiction }: UncheckedConstraint,
) {
  const list = expressions.map((expression, i) => `${expression} as e${i + 1}`).join(', ');
  const rows = (written: string) =>
    `(select t.tableoid as relation, t.ctid as place, ${keyText(plan)} as key, ${list} from ${fromTable(plan)} t
       where ${predicate ?? 'true'}${written})`;
  const written = plan.mode === 'row' ? '' : ` and ${isStaged(plan)}`;
  const values = expressions.map((_, i) => `x.e${i + 1}::text`).join(', ');
  return `select concat_ws(', ', ${values}) as values, x.key from ${rows(written)} x join ${rows('')} y on ${contradiction}
           where (x.relation, x.place) <> (y.relation, y.place) limit 1`;
}

/** The key of a row `t` as text, one array. */
export function keyText(plan: TablePlan): string {
  const key = keyOf(plan).map((column) => `t.${ident(column.name)}::text`);
  return `array[${key.join(', ')}]::text[]`;
}

/** Empties relations, together: TRUNCATE is refused for a table to which foreign keys of others refer. */
export function truncate(relations: readonly Relation[]): string {
  return `truncate ${relations.map(relationIdent).join(', ')}`;
}

/** Empties a relation that cannot be truncated. */
export function deleteAll(relation: Relation): string {
  return `delete from ${relationIdent(relation)}`;
}

/** A table, or a partition of one. */
export interface Relation extends TableName {
  readonly only: boolean;
}

function relationIdent(relation: Relation): string {
  return `${relation.only ? 'only ' : ''}${tableIdent(relation)}`;
}

/** Whether a partition of the target's table takes the same rows as one of the source with that definition. */
export const IS_SAME_PARTITION = `
  select exists (
    select from pg_partition_tree(to_regclass($1)) p
     where p.relid = to_regclass($2)
       and regexp_replace(pg_get_partition_constraintdef(p.relid), 'satisfies_hash_partition\\(''\\d+''::oid',
                          'hash ' || getdatabaseencoding() || '(', 'g') = $3) as same`;

/** A condition on the key means the same on both sides. */
export function keyIsComparable(plan: TablePlan): boolean {
  return keyOf(plan).every((column) => column.same);
}

/** Removes the rows of one region: `predicate` is a partition constraint of the source, columns by name. */
export function deleteRegion(plan: TablePlan, predicate: string): string {
  return `delete from ${fromTable(plan)} where ${predicate}`;
}

/** `only` spares inheritance children, which are tables of their own; partitions belong to their table. */
export function fromTable(plan: TablePlan): string {
  return `${plan.targetOnly ? 'only ' : ''}${tableIdent(plan)}`;
}

function insertPresent(plan: TablePlan, facts: TargetFacts, from = `${stageName(plan)} s`): string {
  const names = written(plan)
    .map((column) => ident(column.name))
    .join(', ');
  const values = written(plan)
    .map((column) => staged(plan, column))
    .join(', ');
  return `insert into ${tableIdent(plan)} as t (${names})${overriding(facts)} select ${values} from ${from}`;
}

function overriding(facts: TargetFacts): string {
  return facts.identityAlways.length > 0 ? ' overriding system value' : '';
}

/** All but what the target generates by itself. */
function written(plan: TablePlan): ColumnPlan[] {
  return plan.columns.filter((column) => column.generated === undefined);
}

/** A staged value in the type of the target's column. */
export function staged(plan: TablePlan, column: ColumnPlan): string {
  const [before, after] = column.fromText ?? ['', ''];
  return `${before}s.c${plan.columns.indexOf(column) + 1}${after}::${column.targetType}`;
}

/** One row: whether no two rows of the target have the same key. */
export function keysAreDistinct(plan: TablePlan): string {
  return `select not exists (select from ${fromTable(plan)} group by ${keyColumns(plan)} having count(*) > 1) as distinct`;
}

export function keyColumns(plan: TablePlan): string {
  return keyOf(plan)
    .map((column) => ident(column.name))
    .join(', ');
}

export function keyMatch(plan: TablePlan): string {
  return keyOf(plan)
    .map((column, i) => {
      const [before, after] = column.match?.staged ?? ['', ''];
      return `t.${ident(column.name)} ${column.match?.target} ${before}s.c${i + 1}${after}`;
    })
    .join(' and ');
}

function differs(plan: TablePlan): string {
  const values = written(plan)
    .map((column) => staged(plan, column))
    .join(', ');
  return `${image(written(plan), 't')} *<> row(${values})::record`;
}

/** What UPDATE has to set, and may. */
function settable(plan: TablePlan, facts: TargetFacts): ColumnPlan[] {
  return plan.columns.filter((column, i) =>
    column.generated !== undefined
      ? false
      : i < plan.keyLength
        ? keyNeedsRewrite(column, facts)
        : !facts.identityAlways.includes(column.name),
  );
}

/** Whether a row that is present has another identity number than on the target; null where none is possible. */
export function identityMoved(plan: TablePlan, facts: TargetFacts): string | null {
  if (plan.mode === 'row') return null;
  const identities = plan.columns.slice(plan.keyLength).filter((c) => facts.identityAlways.includes(c.name));
  if (identities.length === 0) return null;
  const moved = identities.map((c) => `t.${ident(c.name)} is distinct from ${staged(plan, c)}`).join(' or ');
  return `select exists (select from ${fromTable(plan)} t join ${stageName(plan)} s on ${keyMatch(plan)}
                          where s.present and (${moved})) as moved`;
}

function image(columns: readonly ColumnPlan[], alias: string): string {
  return `row(${columns.map((column) => `${alias}.${ident(column.name)}`).join(', ')})::record`;
}

/** A GENERATED ALWAYS identity cannot be set by UPDATE, even to the value it has. */
function keyNeedsRewrite(column: ColumnPlan, facts: TargetFacts): boolean {
  return column.match?.exact === false && !facts.identityAlways.includes(column.name);
}

/** Keeps everybody from changing what the tables are, and nobody from reading or writing them. */
export function lockForWriting(plans: readonly TablePlan[]): string {
  return `lock table ${plans.map((plan) => `only ${tableIdent(plan)}`).join(', ')} in row exclusive mode`;
}

/** Marks the transaction as a sync's own, so that capture on this side notes where the change came from. */
export function markOrigin(node: string): string {
  return `select set_config('ibex.origin', ${literal(node)}, true)`;
}
