/**
 * The indexes of tables whose copy begins: they are set aside where a table has no rows yet and many are to come. Where
 * there are rows by now beside which it begins anew, those that an earlier copy had set aside are put back first.
 */
import { parkIndexes } from '../apply/index-parking.ts';
import { readParked } from '../apply/parking.ts';
import { rebuildIndexes } from '../apply/rebuilding.ts';
import { fromTable } from '../apply/statements.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { READ_SIZES } from './statements.ts';

export interface AsideContext {
  readonly source: Session;
  readonly target: Session;
  readonly sync: string;
  readonly epoch: number;
}

/** `stays`: rows that the table has are not removed first. */
export async function setIndexesAside(
  context: AsideContext,
  tables: readonly { readonly plan: TablePlan; readonly stays: boolean }[],
): Promise<void> {
  if (tables.length === 0) return;
  const { source, target, sync } = context;
  const aside = await readAside(target, sync);
  const sizes = await readSizes(
    source,
    tables.map(({ plan }) => plan.relid),
  );
  for (const { plan, stays } of tables) {
    if (aside.has(tableLabel(plan)) && stays && (await isOccupied(target, plan)))
      await rebuildIndexes(sync, plan, (work) => work(target));
    else await parkIndexes(target, context, plan, sizes.get(plan.relid) ?? 0);
  }
}

/** The labels of tables some of whose indexes are set aside. */
export async function readAside(target: Session, sync: string): Promise<ReadonlySet<string>> {
  const parked = await readParked(target, sync);
  return new Set(parked.filter(({ kind }) => kind === 'index').map(({ root }) => tableLabel(root)));
}

async function readSizes(source: Session, relids: readonly number[]): Promise<Map<number, number>> {
  const rows = await source.rows<{ relid: number; bytes: number }>(READ_SIZES, [relids]);
  return new Map(rows.map(({ relid, bytes }) => [relid, bytes]));
}

async function isOccupied(target: Session, plan: TablePlan): Promise<boolean> {
  const { occupied } = await target.row<{ occupied: boolean }>(
    `select exists (select from ${fromTable(plan)}) as occupied`,
  );
  return occupied;
}
