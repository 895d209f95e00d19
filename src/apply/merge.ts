/**
 * Merges the staged tables of one batch into the target, inside the applier's transaction.
 *
 * Two ways. The plain one keeps every foreign key true after each statement by order: rows go in parents first,
 * gone rows go out children first. Where that cannot work (unique values that swap owners, cycles of foreign
 * keys) the careful way sets the foreign keys aside for the transaction and writes changed rows anew. What fails
 * even then is a real disagreement, and is raised with the table's name and the row's key.
 */
import { concerning, IbexError } from '../core/errors.ts';
import { parentsFirst } from '../core/order.ts';
import { rowLabel, type TablePlan, tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import type { Session } from '../postgres/session.ts';
import type { Statement } from '../postgres/together.ts';
import { nameRow } from './culprit.ts';
import { emptyTruncated, type TruncatedTable } from './emptying.ts';
import { actsBeyond, type ForeignKey, isWithin, requireNoOrphans, requireParents } from './foreign-keys.ts';
import { MergeMeter } from './merge-meter.ts';
import { type DroppedKey, enforceForeignKey, parkForeignKey } from './parking.ts';
import * as sql from './statements.ts';
import { requireUndisturbed, type TargetFacts } from './target-table.ts';

/** One table of a batch as it lies in its staging table. */
export interface StagedTable extends TruncatedTable {
  readonly plan: TablePlan;
  readonly facts: TargetFacts;
  readonly present: number;
  readonly gone: number;
  /** This batch takes the table into step: rows may have been copied that no batch has looked at. */
  readonly joins: boolean;
}

/** What is staged of one table. */
export type StagedRows = Pick<StagedTable, 'plan' | 'facts' | 'present' | 'gone'>;

export interface MergeContext {
  readonly session: Session;
  readonly sync: string;
  /** The role has become a replica: nobody holds what it writes to foreign keys and deferrable constraints. */
  readonly replica: boolean;
  /** Every foreign key of the tables; for a replica only those with an end outside of the sync. */
  readonly foreignKeys: readonly ForeignKey[];
  readonly meter: MergeMeter;
}

type Writing = Pick<MergeContext, 'session' | 'foreignKeys' | 'meter'>;

/** A large table is written in so many statements at most, of at least so many rows: after each, it is known how far it is. */
const PARTS = 20;
const PART_ROWS = 100_000;
/** From this version on a range of a table's blocks is read without the rest of it. */
const READS_BLOCKS = 140_000;
/** Rows up to which all that a batch writes goes in one go. */
const TOGETHER_ROWS = 10_000;

/** Statements that write or remove so many rows of a table. */
interface Write {
  readonly plan: TablePlan;
  readonly rows: number;
  readonly statements: readonly Statement[];
  /** Whether they did, by the rows that each of them touched. */
  readonly check?: (touched: readonly number[]) => Promise<void>;
}

/** The unique and foreign key violations that the careful way can solve. */
const ORDER_STATES = new Set(['23503', '23505', '23P01', '23001', '21000']);

export async function merge(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const { session } = context;
  await session.run('savepoint staged');
  try {
    if (!(await mergeInOrder(context, tables))) {
      await session.run('rollback to savepoint staged');
      await mergeCarefully(context, tables);
    }
    await requireConsistency(context, tables);
  } catch (error) {
    throw await nameRow(error, session, tables, context.replica ? [] : context.foreignKeys);
  }
}

/** Merges what is staged of a table whose rows are tied to no others. */
export async function mergeAlone(session: Session, table: StagedRows): Promise<void> {
  const context = { session, foreignKeys: [], meter: new MergeMeter(() => undefined) };
  await write(context, [...removeGone(table), ...(await writePresent(context, table))]);
}

/** False when it cannot be done in this way. */
async function mergeInOrder(context: MergeContext, tables: readonly StagedTable[]): Promise<boolean> {
  const { session, meter } = context;
  meter.begin(tables);
  for (const table of tables) if (await identityMoved(context, table)) return false;
  if (!context.replica && (await anyActsBeyond(context, tables))) return false;
  const ordered = parentsFirst(
    tables.map((table) => ({ ...table.plan, table })),
    context.foreignKeys,
  ).map(({ table }) => table);
  const childrenFirst = ordered.toReversed();
  const referenced = new Set(context.foreignKeys.map((key) => tableLabel(key.parent)));
  const isReferenced = (table: StagedTable) => referenced.has(tableLabel(table.plan));
  try {
    await emptyTruncated(session, childrenFirst);
    // A gone row may hand its unique values to a new one; where nothing refers to the table it can go first.
    const before = childrenFirst.filter((table) => !isReferenced(table)).flatMap(removeGone);
    const present: Write[] = [];
    for (const table of ordered) present.push(...(await writePresent(context, table)));
    const after = childrenFirst.filter(isReferenced).flatMap(removeGone);
    await write(context, [...before, ...present, ...after]);
    if (isDeferred(context, tables)) await session.run('set constraints all immediate');
    return true;
  } catch (error) {
    if (ORDER_STATES.has(serverError(error)?.state ?? '')) return false;
    throw error;
  }
}

async function anyActsBeyond(
  { session, foreignKeys }: MergeContext,
  tables: readonly StagedTable[],
): Promise<boolean> {
  const byLabel = new Map(tables.map((table) => [tableLabel(table.plan), table]));
  for (const key of foreignKeys) {
    const parent = byLabel.get(tableLabel(key.parent));
    const child = byLabel.get(tableLabel(key.child))?.plan;
    if (parent !== undefined && (await actsBeyond(session, key, parent, child))) return true;
  }
  return false;
}

/** Constraints that would be checked at COMMIT, where nobody could say any more whose rows they are about. */
function isDeferred({ foreignKeys }: MergeContext, tables: readonly StagedTable[]): boolean {
  return tables.some(({ facts }) => facts.deferred) || foreignKeys.some((key) => key.deferred);
}

/**
 * Rows that go are removed while foreign keys from outside of the sync stand: what these say is to happen then,
 * happens. The keys within the sync, and those from outside while rows are written anew, are set aside.
 */
async function mergeCarefully(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const { session, meter } = context;
  meter.begin(tables);
  const inBatch = new Set(tables.map(({ plan }) => tableLabel(plan)));
  const keys = context.foreignKeys.filter(
    (key) => inBatch.has(tableLabel(key.parent)) || !isInStep(key.parentState),
  );
  const within = keys.filter((key) => key.childState !== null && key.parentState !== null);
  const fromOutside = keys.filter((key) => key.childState === null);
  if (isDeferred(context, tables)) await session.run('set constraints all immediate');
  const parked: DroppedKey[] = [];
  if (!context.replica) {
    // Dropped and back in one transaction, nobody else is without them. What is there is checked right after it, by
    // the tending, which finds them written down: a check here would read whole tables for every such batch.
    parked.push(...(await parkAll(context, within)));
  }
  await emptyTruncated(session, tables);
  await write(context, tables.flatMap(removeGone));
  if (!context.replica) parked.push(...(await parkAll(context, fromOutside)));
  for (const table of tables) {
    await write(context, [table.plan.mode === 'row' ? mergeRows(session, table) : rewriteChanged(table)]);
  }
  for (const key of parked) {
    await concerning(tableLabel(key.child), () => enforceForeignKey(session, key));
    const child = tables.find(({ plan }) => tableLabel(plan) === tableLabel(key.child));
    if (child !== undefined && inBatch.has(tableLabel(key.parent)))
      await requireParents(session, key, child.plan);
  }
}

async function parkAll({ session, sync }: MergeContext, keys: readonly ForeignKey[]): Promise<DroppedKey[]> {
  const parked: DroppedKey[] = [];
  for (const key of keys) {
    const dropped = await parkForeignKey(session, sync, key);
    if (dropped !== null) parked.push(dropped);
  }
  return parked;
}

function isInStep(state: string | null): boolean {
  return state === null || state === 'streaming';
}

/** What nothing holds a replica to is looked at here, as far as the source cannot vouch for it. */
async function requireConsistency(context: MergeContext, tables: readonly StagedTable[]): Promise<void> {
  const { session, replica, foreignKeys } = context;
  if (!replica) return;
  for (const { plan, facts } of tables) {
    for (const constraint of facts.unchecked) await requireNoContradiction(session, plan, constraint);
  }
  const byLabel = new Map(tables.map((table) => [tableLabel(table.plan), table]));
  for (const key of foreignKeys) {
    const child = byLabel.get(tableLabel(key.child));
    const parent = byLabel.get(tableLabel(key.parent));
    if (child !== undefined) await requireParents(session, key, child.joins ? undefined : child.plan);
    if (isWithin(key)) {
      if (parent !== undefined && parent.gone > 0) await requireNoOrphans(session, key, parent.plan);
    } else if (child === undefined && parent !== undefined) await requireParents(session, key);
  }
}

async function requireNoContradiction(
  session: Session,
  plan: TablePlan,
  constraint: TargetFacts['unchecked'][number],
): Promise<void> {
  const [found] = await session.rows<{ values: string; key: string[] }>(
    sql.findContradiction(plan, constraint),
  );
  if (found === undefined) return;
  const label = tableLabel(plan);
  const row = plan.mode === 'row' ? '' : ` (${rowLabel(plan, found.key)})`;
  throw new IbexError(
    'constraint',
    `${label}: constraint ${constraint.name}: two rows for (${found.values})${row}`,
    { table: label },
  );
}

/** Small writes in one go, large ones each by itself, so that it is known how far they are. */
async function write({ session, meter }: Writing, writes: readonly Write[]): Promise<void> {
  const small = writes.reduce((sum, { rows }) => sum + rows, 0) <= TOGETHER_ROWS;
  const answers = small ? await session.together(writes.flatMap(({ statements }) => statements)) : [];
  for (const { plan, rows, statements, check } of writes) {
    await meter.write(plan, rows, async () => {
      const own = small ? answers.splice(0, statements.length) : await session.together(statements);
      await check?.(own.map(({ rowCount }) => rowCount ?? 0));
    });
  }
}

/** `prepared`: only what has one plan, whatever the sizes of the tables. */
function writeOf(plan: TablePlan, rows: number, texts: readonly string[], prepared = false): Write {
  const table = tableLabel(plan);
  return { plan, rows, statements: texts.map((text) => ({ text, table, prepared })) };
}

function removeGone({ plan, gone }: StagedRows): Write[] {
  return plan.mode === 'row' || gone === 0 ? [] : [writeOf(plan, gone, [sql.deleteGone(plan)])];
}

async function writePresent(context: Writing, table: StagedRows): Promise<Write[]> {
  const { plan, facts, present } = table;
  if (plan.mode === 'row') return [mergeRows(context.session, table)];
  if (present === 0) return [];
  if (facts.arbiter && facts.takesOnConflict) return upsert(context, table);
  const update = sql.updatePresent(plan, facts);
  return [writeOf(plan, present, [...(update === null ? [] : [update]), sql.insertMissing(plan, facts)])];
}

/** In parts, unless rows may refer to others of their table: those have to be there when a statement ends. */
async function upsert(
  { session, foreignKeys }: Writing,
  { plan, facts, present }: StagedRows,
): Promise<Write[]> {
  const label = tableLabel(plan);
  const toItself = foreignKeys.some(
    ({ child, parent }) => tableLabel(child) === label && tableLabel(parent) === label,
  );
  // Before PostgreSQL 14 each part would read the stage from its beginning.
  const most = toItself || session.version < READS_BLOCKS ? 1 : PARTS;
  const parts = Math.min(most, Math.ceil(present / PART_ROWS));
  if (parts === 1) return [writeOf(plan, present, [sql.upsert(plan, facts)], true)];
  const { blocks } = await session.row<{ blocks: number }>(sql.blocksOfStage(plan));
  const size = Math.ceil(blocks / parts);
  const writes: Write[] = [];
  for (let first = 0; first < blocks; first += size) {
    const range = { first, end: first + size };
    writes.push(writeOf(plan, Math.ceil(present / parts), [sql.upsert(plan, facts, range)]));
  }
  return writes;
}

/** What goes first, so that it hands over its unique values; what comes and goes within the batch does neither. */
function mergeRows(session: Session, { plan, facts, present, gone }: StagedRows): Write {
  const remove = gone === 0 ? [] : [sql.deleteRemoved(plan)];
  const insert = present === 0 ? [] : [sql.insertAdded(plan, facts, gone)];
  const label = tableLabel(plan);
  const check = async (touched: readonly number[]) => {
    const removed = gone === 0 ? 0 : (touched[0] ?? 0);
    const added = present === 0 ? 0 : (touched.at(-1) ?? 0);
    const missing = gone - removed - (present - added);
    if (missing === 0) return;
    await requireUndisturbed(session, plan);
    throw new IbexError('swallowed', `${label}: ${missing} of ${gone} rows to remove were not there`, {
      table: label,
      hint: `The target was written by somebody else. Copy the table again: ibex tables recopy '${label}'.`,
    });
  };
  return { ...writeOf(plan, present + gone, [...remove, ...insert]), check };
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

function rewriteChanged({ plan, facts, present, gone }: StagedTable): Write {
  const change = facts.others.length === 0 ? sql.deleteChanged(plan) : sql.rewriteChanged(plan, facts);
  return writeOf(plan, present + gone, [change, sql.insertMissing(plan, facts)]);
}
