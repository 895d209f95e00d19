/**
 * Carries TRUNCATE. On the target it is refused for a table to which foreign keys of others refer, unless those are
 * truncated in the same statement, so they go together; what is left is emptied row by row.
 */
import type { TruncatedRelation } from '../core/batch.ts';
import { concerning, IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import * as sql from './statements.ts';
import type { TargetFacts } from './target-table.ts';

export interface TruncatedTable {
  readonly plan: TablePlan;
  readonly facts: TargetFacts;
  readonly emptied: readonly TruncatedRelation[];
}

/** Empties what was truncated; the tables come children first. */
export async function emptyTruncated(session: Session, tables: readonly TruncatedTable[]): Promise<void> {
  const whole = tables.filter((table) => table.emptied.some((relation) => relation.whole));
  const together = truncatable(whole);
  if (together.length > 0) {
    const relations = together.map(({ plan }) => ({ ...plan, only: plan.targetOnly }));
    await concerning(tableLabel((together[0] as TruncatedTable).plan), () =>
      session.run(sql.truncate(relations)),
    );
  }
  for (const { plan } of whole.filter((table) => !together.includes(table))) {
    await concerning(tableLabel(plan), () => session.run(sql.deleteAll({ ...plan, only: plan.targetOnly })));
  }
  for (const table of tables.filter((one) => !whole.includes(one))) {
    for (const leaf of table.emptied) await emptyPartition(session, table, leaf);
  }
}

/** Those to which only others of them refer. */
function truncatable(tables: readonly TruncatedTable[]): readonly TruncatedTable[] {
  const labels = new Set(tables.map(({ plan }) => tableLabel(plan)));
  const left = tables.filter(({ facts }) =>
    facts.referencedBy.every((table) => labels.has(tableLabel(table))),
  );
  return left.length === tables.length ? left : truncatable(left);
}

/**
 * A TRUNCATE of one partition empties the target's partition of that name if it is for the same rows, and otherwise
 * removes these rows, wherever they lie. Where neither can be said for sure the table is copied again.
 */
async function emptyPartition(
  session: Session,
  { plan, facts }: TruncatedTable,
  leaf: TruncatedRelation,
): Promise<void> {
  const comparable = sql.keyIsComparable(plan);
  const { same } = await session.row<{ same: boolean }>(sql.IS_SAME_PARTITION, [
    tableIdent(plan),
    tableIdent(leaf),
    leaf.definition,
  ]);
  if (comparable && same) {
    const relation = { ...leaf, only: false };
    const statement = facts.referencedBy.length === 0 ? sql.truncate([relation]) : sql.deleteAll(relation);
    await concerning(tableLabel(plan), () => session.run(statement));
  } else if (comparable && leaf.predicate !== null) {
    await concerning(tableLabel(plan), () => session.run(sql.deleteRegion(plan, leaf.predicate as string)));
  } else {
    throw new IbexError(
      'recopy',
      `partition ${tableLabel(leaf)} of ${tableLabel(plan)} was truncated, whose rows cannot be told apart on the target`,
      { table: tableLabel(plan) },
    );
  }
}
