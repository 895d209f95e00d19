/**
 * Takes up tables that wait to be copied, or whose copy goes on: sets aside what stands in the way on the target, notes
 * the lower bound, plans the chunks. Many tables at once, since each step costs a round trip to one of the servers.
 */
import { fillColumns } from '../apply/carried.ts';
import { parkForeignKeys, parkTriggersAndRules } from '../apply/parking.ts';
import { requireEpoch } from '../apply/state.ts';
import * as merge from '../apply/statements.ts';
import { readAllFacts, requireUndisturbed, type TargetFacts } from '../apply/target-table.ts';
import { setFloors } from '../capture/trigger/registry.ts';
import { forgetOurs } from '../conflict/guarded.ts';
import type { Carried } from '../core/carried.ts';
import { concerningTable, IbexError, isKind, isOfOneTable, missingOnTarget } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { readAside, setIndexesAside } from './aside.ts';
import { type ChunkPlan, type Heap, halves, isSmall, planChunks, wholeChunk } from './chunks.ts';
import {
  type Chunk,
  type CopyKey,
  type CopyLane,
  type CopyStart,
  type CopyState,
  readCopyStates,
  readParts,
  readUnfinished,
  replaceChunk,
  replanRelation,
  startCopies,
  startParts,
} from './progress.ts';
import * as sql from './statements.ts';

/** What becomes of rows that the target has before a table is copied first. */
export type Existing = 'merge' | 'refuse' | 'replace';

export interface CopyContext extends CopyLane {
  readonly source: Session;
  readonly target: Session;
  /** The source node's name, noted by capture on the target. */
  readonly origin: string;
  /** The target session is a replica: foreign keys do not fire, nothing is parked. */
  readonly replica: boolean;
  readonly existing: Existing;
  /** How many bytes a chunk is to have. */
  readonly chunkBytes: number;
}

/** A table that is to be copied. */
export interface CopyTable {
  readonly plan: TablePlan;
  /** What the rows will stand for once they are copied by this plan. */
  readonly carried: Carried;
}

/** A table whose chunks can be copied. */
export interface TableCopy {
  readonly plan: TablePlan;
  /** Those that are still to be copied. */
  readonly chunks: readonly Chunk[];
  /** Rows may be written straight into the table: an index tells of those that are there already, or none is. */
  readonly direct: boolean;
  /** Chunks can be copied beside each other, and divided: an index tells of rows that two of them bring. */
  readonly divisible: boolean;
  /** All of it is copied, not only parts. */
  readonly whole: boolean;
  /** Rows that the target had as the copy began; null when nobody knows. */
  readonly found: number | null;
  /** Indexes are to be built once its chunks are in. */
  readonly aside: boolean;
  /** All of it is one small chunk that goes straight into an empty table: it can be copied with others. */
  readonly small: boolean;
}

export interface TakenUp {
  readonly copies: readonly TableCopy[];
  /** What concerns one table keeps that one from being copied. */
  readonly failed: ReadonlyMap<number, IbexError>;
}

/** Takes tables up, whatever their state; those that are not to be copied any more are left out. */
export async function takeUp(context: CopyContext, tables: readonly CopyTable[]): Promise<TakenUp> {
  try {
    return { copies: await takeUpTogether(context, tables), failed: new Map() };
  } catch (error) {
    if (tables.length === 1) return { copies: [], failed: ofTable(tables[0] as CopyTable, error) };
    if (!(error instanceof IbexError)) throw error;
  }
  // Whose fault it was shows when each is taken up by itself.
  const copies: TableCopy[] = [];
  const failed = new Map<number, IbexError>();
  for (const table of tables) {
    const alone = await takeUp(context, [table]);
    copies.push(...alone.copies);
    for (const [relid, error] of alone.failed) failed.set(relid, error);
  }
  return { copies, failed };
}

/** The error as that of the table; thrown when it is none of a table. */
function ofTable({ plan }: CopyTable, error: unknown): Map<number, IbexError> {
  const known = concerningTable(error, tableLabel(plan));
  if (!(known instanceof IbexError) || !isOfOneTable(known)) throw known;
  return new Map([[plan.relid, known]]);
}

async function takeUpTogether(context: CopyContext, tables: readonly CopyTable[]): Promise<TableCopy[]> {
  const { target, sync, replica } = context;
  const relids = tables.map(({ plan }) => plan.relid);
  const states = await readCopyStates(target, sync, relids);
  const inState = (state: string) => tables.filter(({ plan }) => states.get(plan.relid)?.state === state);
  const [pending, copying] = [inState('pending'), inState('copying')];
  const all = [...pending, ...copying].map(({ plan }) => plan);
  // Where the target is written too they are to fire for those who write there, and its indexes to hold.
  const written = all.filter(({ timed }) => timed !== 'two-way');
  await parkTriggersAndRules(target, sync, written, replica);
  // Also what is removed first is no reason for a cascade. Columns that are filled break no foreign key.
  if (!replica)
    await parkForeignKeys(
      target,
      sync,
      all.filter(({ relid }) => isToBeWritten(states.get(relid))),
    );
  await setIndexesAside(
    context,
    pending
      .filter(({ plan }) => written.includes(plan))
      .map(({ plan }) => ({ plan, stays: !isReplaced(context, states.get(plan.relid)) })),
  );
  const facts = await readAllFacts(target, all);
  for (const plan of all) requireThere(plan, facts);
  await start(context, pending, states, facts);
  for (const table of copying) await goOn(context, table, states, facts);
  const after = await readCopyStates(target, sync, relids);
  const chunks = await readUnfinished(target, sync, relids);
  const aside = await readAside(target, sync);
  return all.flatMap((plan) => {
    const [state, { unique }] = [after.get(plan.relid), facts.get(plan.relid) as TargetFacts];
    if (state?.state !== 'copying') return [];
    const own = chunks.filter(({ relid }) => relid === plan.relid);
    const alone = state.chunks === 1 && state.found === 0;
    return [
      {
        plan,
        chunks: own,
        whole: own.length > 0 ? own.some(({ part }) => !part) : state.chunks > 0,
        direct: plan.mode === 'row' || unique || alone,
        divisible: plan.mode === 'key' && unique,
        found: state.found,
        aside: aside.has(tableLabel(plan)),
        small: alone && own.length === 1 && own.every(isSmall),
      },
    ];
  });
}

function isToBeWritten(state: CopyState | undefined): boolean {
  return state !== undefined && (state.state === 'pending' || state.parts || state.unfinished > 0);
}

function isReplaced({ existing }: CopyContext, state: CopyState | undefined): boolean {
  return state?.replace === true || existing === 'replace';
}

function requireThere(plan: TablePlan, facts: ReadonlyMap<number, TargetFacts>): void {
  if (facts.has(plan.relid)) return;
  throw missingOnTarget(tableLabel(plan));
}

/** Begins copies: everything from the lower bound to the plan of the chunks, in the order that is exact. */
async function start(
  context: CopyContext,
  tables: readonly CopyTable[],
  states: ReadonlyMap<number, CopyState>,
  facts: ReadonlyMap<number, TargetFacts>,
): Promise<void> {
  if (tables.length === 0) return;
  const { source, target, sync, epoch, origin } = context;
  const floors = await setFloors(
    source,
    sync,
    tables.map(({ plan }) => plan.relid),
  );
  const chunks = await planTables(context, tables, facts);
  await target.transaction('', async () => {
    await requireEpoch(target, sync, epoch);
    await target.run(merge.markOrigin(origin));
    // Before rows go: what is written in between is noted yet.
    await forgetOurs(target, sync, tables, origin);
    const found = await makeRoom(context, tables, states, facts);
    const starts = tables.map(({ plan, carried }): CopyStart => {
      const { relid, choice } = plan;
      const floor = floors.get(relid) as string;
      return { relid, choice, carried, floor, found: found.get(relid) ?? 0, chunks: chunks.get(relid) ?? [] };
    });
    await startCopies(target, context, starts);
  });
}

/** Looks at the rows that are on the target already, and resolves to how many stay, by table. */
async function makeRoom(
  context: CopyContext,
  tables: readonly CopyTable[],
  states: ReadonlyMap<number, CopyState>,
  facts: ReadonlyMap<number, TargetFacts>,
): Promise<Map<number, number>> {
  const { target, existing } = context;
  const found = new Map<number, number>();
  const occupied = new Set(await readOccupied(target, tables));
  for (const { plan } of tables.filter((table) => occupied.has(table.plan.relid))) {
    if (isReplaced(context, states.get(plan.relid))) {
      await target.run(`delete from ${merge.fromTable(plan)}`);
      await requireUndisturbed(target, plan);
      continue;
    }
    if (existing === 'refuse') throw refused(plan);
    if (plan.mode === 'row') throw withoutKey(plan);
    if (facts.get(plan.relid)?.unique === false) await requireDistinct(target, plan);
    const { rows } = await target.row<{ rows: number }>(
      `select count(*)::float8 as rows from ${merge.fromTable(plan)}`,
    );
    found.set(plan.relid, rows);
  }
  return found;
}

async function readOccupied(target: Session, tables: readonly CopyTable[]): Promise<number[]> {
  const looks = tables.map(
    ({ plan }) => `select ${plan.relid}::float8 as relid where exists (select from ${merge.fromTable(plan)})`,
  );
  return (await target.rows<{ relid: number }>(looks.join(' union all '))).map(({ relid }) => relid);
}

function refused(plan: TablePlan): IbexError {
  const label = tableLabel(plan);
  return new IbexError('schema_mismatch', `${label} has rows on the target`, {
    table: label,
    hint: `Empty it there (truncate ${tableIdent(plan)};), or choose --existing merge or replace.`,
  });
}

function withoutKey(plan: TablePlan): IbexError {
  const label = tableLabel(plan);
  return new IbexError('schema_mismatch', `${label} has rows on the target and no key to merge them by`, {
    table: label,
    hint: `Empty it there first: truncate ${tableIdent(plan)};`,
  });
}

/** Where no index keeps the rows of a key apart on the target, one key may have several rows there, and none would go. */
async function requireDistinct(target: Session, plan: TablePlan): Promise<void> {
  const { distinct } = await target.row<{ distinct: boolean }>(merge.keysAreDistinct(plan));
  if (distinct) return;
  const label = tableLabel(plan);
  throw new IbexError('schema_mismatch', `${label} has several rows of the same key on the target`, {
    table: label,
    hint: `Remove what is too much, and say so there: create unique index on ${tableIdent(plan)} (${merge.keyColumns(plan)});`,
  });
}

/** The chunks of whole tables, by table. */
async function planTables(
  context: CopyContext,
  tables: readonly CopyTable[],
  facts: ReadonlyMap<number, TargetFacts>,
): Promise<Map<number, ChunkPlan[]>> {
  const relids = tables.map(({ plan }) => plan.relid);
  const heaps = await readHeaps(context.source, relids, null);
  return new Map(
    tables.map(({ plan }) => {
      const own = heaps.filter(({ relid }) => relid === plan.relid);
      const bytes = own.reduce((sum, heap) => sum + heap.bytes, 0);
      // Without a key all rows have to come from one snapshot, whatever partition they are in.
      const whole = plan.mode === 'row' && !plan.only;
      const divisible = isDivisible(plan, facts.get(plan.relid));
      return [
        plan.relid,
        whole
          ? [wholeChunk(plan.relid, null, false, bytes)]
          : planChunks(own, { divisible, part: false, ...chunkSizes(context) }),
      ];
    }),
  );
}

/** A row that moves within its table while that is copied is read twice, which only an index of the target notices. */
function isDivisible(plan: TablePlan, facts: TargetFacts | undefined): boolean {
  return plan.mode === 'key' && facts?.unique === true;
}

function chunkSizes({ source, chunkBytes }: CopyContext) {
  return { chunkBytes, chunkBlocks: sql.mostBlocks(source.version) };
}

async function readHeaps(source: Session, relids: readonly number[], relation: number | null) {
  return source.rows<Heap & { readonly relid: number }>(sql.READ_HEAPS, [relids, relation]);
}

async function planRelation(
  context: CopyContext,
  plan: TablePlan,
  relation: number,
  facts: TargetFacts | undefined,
  part: boolean,
): Promise<ChunkPlan[]> {
  const heaps = await readHeaps(context.source, [plan.relid], relation);
  return planChunks(heaps, {
    divisible: isDivisible(plan, facts),
    part,
    ...chunkSizes(context),
  });
}

/** Plans a relation of a table under way anew, whose rows have moved to another file. */
export async function replan(
  context: CopyContext,
  table: CopyTable,
  { relation, part }: Chunk,
): Promise<void> {
  const { plan } = table;
  const { target, sync, epoch } = context;
  const facts = await readAllFacts(target, [plan]);
  if (plan.mode === 'row') return start(context, [table], new Map(), facts);
  const chunks = await planRelation(context, plan, relation, facts.get(plan.relid), part);
  await replanRelation(target, { sync, epoch, relid: plan.relid }, relation, chunks);
}

/** Divides a chunk that took too long. */
export async function divide({ source, target, sync, epoch }: CopyContext, chunk: Chunk): Promise<void> {
  const { blocks } = await source.row<{ blocks: number }>(sql.READ_BLOCKS, [chunk.relation]);
  const both = halves(chunk, blocks);
  if (both !== null) await replaceChunk(target, { sync, epoch, relid: chunk.relid }, chunk.n, both);
}

/** What is to be done before a copy that has begun goes on. */
async function goOn(
  context: CopyContext,
  table: CopyTable,
  states: ReadonlyMap<number, CopyState>,
  facts: ReadonlyMap<number, TargetFacts>,
): Promise<void> {
  const state = states.get(table.plan.relid);
  if (state?.fill) await fill(context, table);
  if (state?.parts) await takeUpParts(context, table.plan, facts.get(table.plan.relid));
}

/** Columns that were added since the first chunks were copied, or since the table was in step. */
async function fill(
  { target, sync, epoch, origin }: CopyContext,
  { plan, carried }: CopyTable,
): Promise<void> {
  try {
    await target.transaction('', async () => {
      await requireEpoch(target, sync, epoch);
      await target.run(merge.markOrigin(origin));
      await fillColumns(target, sync, plan, carried);
      await requireUndisturbed(target, plan);
    });
  } catch (error) {
    if (!isKind(error, 'constraint')) throw error;
    // Some rows of the source have other values by now, and only with those do all of them fit together.
    throw new IbexError('recopy', error.message, { table: tableLabel(plan), cause: error });
  }
}

/**
 * Partitions came or went, and what they leave to do was asked for: the rows of the regions are removed, and what
 * the source has there now is copied. Partitions are copied from what is known of them as they were armed.
 * Errors: `recopy` where a region of the source is none that the target could tell.
 */
async function takeUpParts(
  context: CopyContext,
  plan: TablePlan,
  facts: TargetFacts | undefined,
): Promise<void> {
  const { source, target, sync, epoch } = context;
  const key: CopyKey = { sync, epoch, relid: plan.relid };
  const parts = await readParts(target, key);
  const regions = parts.flatMap(({ predicate }) => (predicate === null ? [] : [predicate]));
  if (regions.length > 0 && !merge.keyIsComparable(plan)) {
    throw new IbexError('recopy', `the keys of ${tableLabel(plan)} have other types on the target`, {
      table: tableLabel(plan),
    });
  }
  const chunks: ChunkPlan[] = [];
  for (const { relation, predicate } of parts) {
    if (relation === null) chunks.push(wholeChunk(plan.relid, predicate, true, 0));
    else chunks.push(...(await planRelation(context, plan, relation, facts, true)));
  }
  const members = (await source.rows<{ relation: string }>(sql.READ_MEMBERS, [plan.relid])).map((row) =>
    Number(row.relation),
  );
  await startParts(target, key, members, chunks, async () => {
    await target.run(merge.markOrigin(context.origin));
    for (const region of regions) await target.run(merge.deleteRegion(plan, region));
  });
}
