/**
 * Merges the staged tables of one batch into the target, inside the applier's transaction.
 *
 * Two ways. The plain one keeps every foreign key true after each statement by order: rows go in parents first,
 * gone rows go out children first. Where that cannot work (unique values that swap owners, cycles of foreign
 * keys) the careful way sets the foreign keys aside for the transaction and writes changed rows anew. What fails
 * even then is a real disagreement, and is raised with the table's name.
 */
import type { TruncatedRelation } from '../core/batch.ts';
import { concerningTable, IbexError } from '../core/errors.ts';
import { parentsFirst } from '../core/order.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { enforceForeignKey, parkForeignKey } from './parking.ts';
import * as sql from './statements.ts';
import type { ForeignKey, TargetFacts } from './target-table.ts';

/** One table of a batch as it lies in its staging table. */
export interface StagedTable {
  readonly plan: TablePlan;
  readonly facts: TargetFacts;
  readonly present: number;
  readonly gone: number;
  readonly emptied: readonly TruncatedRelation[];
}

export interface MergeContext {
  readonly session: Session;
  readonly sync: string;
  /** Foreign keys at work on the tables: none when the role may set session_replication_role. */
  readonly foreignKeys: readonly ForeignKey[];
}

/** The unique and foreign key violations that the careful way can solve. */
const ORDER_STATES = new Set(['23503', '23505', '23P01', '23001', '21000']);

export async function merge(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const { session } = context;
  for (const table of tables) if (await identityMoved(context, table)) return mergeCarefully(context, tables);
  await session.run('savepoint staged');
  try {
    await mergeInOrder(context, tables);
  } catch (error) {
    if (!ORDER_STATES.has(serverError(error)?.state ?? '')) throw error;
    await session.run('rollback to savepoint staged');
    await mergeCarefully(context, tables);
  }
}

async function mergeInOrder(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const ordered = parentsFirst(
    tables.map((table) => ({ ...table.plan, table })),
    context.foreignKeys,
  ).map(({ table }) => table);
  const childrenFirst = ordered.toReversed();
  const referenced = new Set(context.foreignKeys.map((key) => tableLabel(key.parent)));
  const isReferenced = (table: StagedTable) => referenced.has(tableLabel(table.plan));
  for (const table of childrenFirst) await emptyTruncated(context, table, isReferenced(table));
  // A gone row may hand its unique values to a new one; where nothing refers to the table it can go first.
  for (const table of childrenFirst) if (!isReferenced(table)) await removeGone(context, table);
  for (const table of ordered) await writePresent(context, table);
  for (const table of childrenFirst) if (isReferenced(table)) await removeGone(context, table);
  for (const table of tables) await verifyIfDisturbed(context, table);
}

async function mergeCarefully(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const { session } = context;
  // Dropped and back in one transaction, nobody else is without them. What is there is checked right after it, by
  // the tending, which finds them written down: a check here would read whole tables for every such batch.
  for (const key of context.foreignKeys) await parkForeignKey(session, context.sync, key);
  for (const table of tables) {
    await emptyTruncated(context, table, false);
    if (table.plan.mode === 'row') await mergeRows(context, table);
    else await rewriteChanged(context, table);
    await verifyIfDisturbed(context, table);
  }
  for (const key of context.foreignKeys) {
    await onTable(key.child, () => enforceForeignKey(session, key));
  }
}

async function emptyTruncated(
  { session }: MergeContext,
  table: StagedTable,
  referenced: boolean,
): Promise<void> {
  const { plan, facts } = table;
  if (table.emptied.some((relation) => relation.whole)) {
    await onTable(plan, () => session.run(sql.emptyRelation(plan, facts.partitioned, referenced)));
    return;
  }
  for (const leaf of table.emptied) await emptyPartition(session, plan, leaf, referenced);
}

/**
 * A TRUNCATE of one partition empties the target's partition of that name if it is for the same rows, and otherwise
 * removes these rows, wherever they lie. Where neither can be said for sure the table is copied again.
 */
async function emptyPartition(
  session: Session,
  plan: TablePlan,
  leaf: TruncatedRelation,
  referenced: boolean,
): Promise<void> {
  const comparable = sql.keyIsComparable(plan);
  const { same } = await session.row<{ same: boolean }>(sql.IS_SAME_PARTITION, [
    tableIdent(plan),
    tableIdent(leaf),
    leaf.definition,
  ]);
  if (comparable && same) {
    await onTable(plan, () => session.run(sql.emptyRelation(leaf, true, referenced)));
  } else if (comparable && leaf.predicate !== null) {
    await onTable(plan, () => session.run(sql.deleteRegion(plan, leaf.predicate as string)));
  } else {
    throw new IbexError(
      'recopy',
      `partition ${tableLabel(leaf)} of ${tableLabel(plan)} was truncated, whose rows cannot be told apart on the target`,
      { table: tableLabel(plan) },
    );
  }
}

async function removeGone({ session }: MergeContext, { plan, gone }: StagedTable): Promise<void> {
  if (plan.mode === 'row' || gone === 0) return;
  await onTable(plan, () => session.run(sql.deleteGone(plan)));
}

async function writePresent(context: MergeContext, table: StagedTable): Promise<void> {
  const { session } = context;
  const { plan, facts } = table;
  if (plan.mode === 'row') return mergeRows(context, table);
  if (table.present === 0) return;
  await onTable(plan, async () => {
    if (facts.arbiter && facts.takesOnConflict) {
      await session.run(sql.upsert(plan, facts));
    } else {
      const update = sql.updatePresent(plan, facts);
      if (update !== null) await session.run(update);
      await session.run(sql.insertMissing(plan, facts));
    }
  });
}

async function mergeRows(
  { session }: MergeContext,
  { plan, facts, present, gone }: StagedTable,
): Promise<void> {
  await onTable(plan, async () => {
    const added = present === 0 ? 0 : await session.run(sql.insertAdded(plan, facts));
    const removed = gone === 0 ? 0 : await session.run(sql.deleteRemoved(plan));
    if (added === present && removed === gone) return;
    throw new IbexError(
      'swallowed',
      `${tableLabel(plan)}: of ${present} rows to add ${added} arrived, of ${gone} to remove ${removed} were there`,
      {
        table: tableLabel(plan),
        hint: 'The target was written by somebody else, or a trigger or rule interferes.',
      },
    );
  });
}

/**
 * UPDATE cannot set a GENERATED ALWAYS identity; a row that got another number is removed and inserted anew, which
 * is safe only while no foreign key can act on the removal.
 */
async function identityMoved(
  { session }: MergeContext,
  { plan, facts, present }: StagedTable,
): Promise<boolean> {
  const moved = present === 0 ? null : sql.identityMoved(plan, facts);
  return moved !== null && (await session.row<{ moved: boolean }>(moved)).moved;
}

async function rewriteChanged({ session }: MergeContext, { plan, facts }: StagedTable): Promise<void> {
  await onTable(plan, async () => {
    await session.run(facts.others.length === 0 ? sql.deleteChanged(plan) : sql.rewriteChanged(plan, facts));
    await session.run(sql.insertMissing(plan, facts));
  });
}

/** No error is no proof: a trigger that returns NULL, or a rule, swallows rows in silence. */
async function verifyIfDisturbed({ session }: MergeContext, { plan, facts }: StagedTable): Promise<void> {
  if (!facts.interferes || plan.mode === 'row') return;
  const { unmerged } = await session.row<{ unmerged: string }>(sql.countUnmerged(plan));
  if (unmerged === '0') return;
  throw new IbexError('swallowed', `${tableLabel(plan)}: ${unmerged} rows did not arrive as they were sent`, {
    table: tableLabel(plan),
    hint: 'Disable the triggers and rules of this table on the target while it is written by ibex.',
  });
}

/** Names the table in whatever concerns its rows or its shape, so that it alone is held. */
async function onTable<T>(table: TableName, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw concerningTable(error, tableLabel(table));
  }
}
