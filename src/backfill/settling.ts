/**
 * Finds the rows of a chunk their place beside rows that the target has already: what differs is brought in line,
 * what is missing is inserted.
 */
import * as merge from '../apply/statements.ts';
import type { TargetFacts } from '../apply/target-table.ts';
import { spareOurs } from '../conflict/sparing.ts';
import { IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import type { Session } from '../postgres/session.ts';

/** Another row has the same key, or another unique value, or overlaps. */
const IN_THE_WAY = ['23505', '23P01'];

export function isInTheWay(error: unknown): boolean {
  return IN_THE_WAY.includes(serverError(error)?.state ?? '');
}

/**
 * False, with nothing changed, when other rows are in the way: the batch that ends the copy has to take care of them.
 * A part of a table has no such batch, which would look at all its rows: there it is an error.
 */
export async function settle(
  target: Session,
  plan: TablePlan,
  facts: TargetFacts,
  part: boolean,
  origin: string,
): Promise<boolean> {
  await target.run('savepoint staged');
  try {
    if (plan.timed === 'two-way') await spareOurs(target, plan, origin);
    await bringInLine(target, plan, facts);
    await target.run(merge.insertMissing(plan, facts));
    if (plan.timed === 'two-way' && (await spareOurs(target, plan, origin)) > 0) throw overtaken(plan);
    if (facts.deferrable) await target.run('set constraints all immediate');
    return true;
  } catch (error) {
    if (part || plan.mode === 'row' || !isInTheWay(error)) throw error;
    await target.run('rollback to savepoint staged');
    return false;
  }
}

/** Tried again: the row that was overwritten comes back with the transaction. */
function overtaken(plan: TablePlan): IbexError {
  return new IbexError('lock', `rows of ${tableLabel(plan)} were written while they were copied`);
}

/** A GENERATED ALWAYS identity cannot be set by UPDATE: rows that have another number are written anew. */
async function bringInLine(target: Session, plan: TablePlan, facts: TargetFacts): Promise<void> {
  const moved = merge.identityMoved(plan, facts);
  const update =
    moved !== null && (await target.row<{ moved: boolean }>(moved)).moved
      ? merge.rewriteChanged(plan, facts)
      : merge.updatePresent(plan, facts);
  if (update !== null) await target.run(update);
}
