/**
 * Copies the existing rows of one table, chunk by chunk.
 *
 * The argument for its exactness: the lower bound (floor) is noted after the table was armed and before the first
 * chunk is read. Whatever a chunk's own snapshot misses or has out of date was changed after the floor, so it is
 * in the deltas, and the batch that takes the table into step carries every key changed since the floor once
 * more. Each chunk commits together with its progress row: killed anywhere, only chunks in flight are redone.
 */
import { fillColumns } from '../apply/carried.ts';
import { parkForeignKeys, parkTriggersAndRules } from '../apply/parking.ts';
import { requireEpoch, type SyncTable } from '../apply/state.ts';
import * as merge from '../apply/statements.ts';
import { readFacts, requireUndisturbed } from '../apply/target-table.ts';
import { setFloor } from '../capture/trigger/registry.ts';
import type { Carried } from '../core/carried.ts';
import { concerning, IbexError, isKind } from '../core/errors.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type ChunkPlan, planChunks, wholeChunk } from './chunks.ts';
import type { Pace } from './pace.ts';
import {
  type Chunk,
  type CopyKey,
  finishChunk,
  finishCopy,
  lockChunk,
  readChunks,
  readParts,
  replanRelation,
  setCopyFloor,
  startCopy,
  startParts,
} from './progress.ts';
import type { RateLimit } from './rate-limit.ts';
import { isInTheWay, settle } from './settling.ts';
import * as sql from './statements.ts';

export interface CopyOptions {
  readonly source: Session;
  readonly target: Session;
  readonly key: CopyKey;
  /** What the rows will stand for once they are copied by this plan. */
  readonly carried: Carried;
  /** The source node's name, noted by capture on the target. */
  readonly origin: string;
  /** The target session is a replica: foreign keys do not fire, nothing is parked. */
  readonly replica: boolean;
  readonly rateLimit: RateLimit | null;
  readonly pace: Pace;
  readonly signal: AbortSignal;
  readonly onRows: (rows: number) => void;
}

/** Copies a table from where an earlier attempt stopped. Errors that concern the table carry its name. */
export async function copyTable(options: CopyOptions, plan: TablePlan, state: SyncTable): Promise<void> {
  await concerning(tableLabel(plan), () => copyChunks(options, plan, state));
}

async function copyChunks(options: CopyOptions, plan: TablePlan, state: SyncTable): Promise<void> {
  const { key, target, signal } = options;
  await parkTriggersAndRules(target, key.sync, [plan], options.replica);
  // Also what a new copy removes first is no reason for a cascade.
  if (!options.replica && state.state === 'pending') await parkForeignKeys(target, key.sync, [plan]);
  if (state.state === 'pending') await start(options, plan, state.replace);
  else await fill(options, plan);
  const { unique } = await readFacts(target, plan);
  let direct = true;
  do {
    await takeUpParts(options, plan);
    let chunks = await readChunks(target, key);
    if (!options.replica && chunks.some((chunk) => chunk.rows === null))
      await parkForeignKeys(target, key.sync, [plan]);
    while (chunks.some((chunk) => chunk.rows === null)) {
      const chunk = chunks.find((candidate) => candidate.rows === null) as Chunk;
      signal.throwIfAborted();
      const unseen = plan.mode === 'row' || unique || (await isEmpty(target, plan));
      const outcome = await options.pace.within(signal, () =>
        copyChunk(options, plan, chunk, direct && unseen && !chunk.part),
      );
      if (outcome === 'in the way') direct = false;
      // Called off: the table was taken out, or is to be copied from the start.
      if (outcome === 'gone') return;
      if (outcome === 'moved') await replan(options, plan, chunk);
      if (outcome === 'left over') await leaveToStream(options, chunk);
      chunks = await readChunks(target, key);
    }
    if (!chunks.every((chunk) => chunk.part)) await target.run(`analyze ${tableIdent(plan)}`);
  } while (!(await finishCopy(target, key)));
}

async function start(options: CopyOptions, plan: TablePlan, replace: boolean): Promise<void> {
  const { source, target, key } = options;
  const { unique } = await readFacts(target, plan);
  const floor = await setFloor(source, key.sync, plan.relid);
  // Without a key all rows have to come from one snapshot, whatever partition they are in.
  const chunks =
    plan.mode === 'row' && !plan.only
      ? [wholeChunk(plan.relid, null, false)]
      : await planRelation(options, plan, null, false);
  await startCopy(target, key, { floor, choice: plan.choice, carried: options.carried }, chunks, async () => {
    await target.run(merge.markOrigin(options.origin));
    if (replace) {
      await target.run(`delete from ${merge.fromTable(plan)}`);
      await requireUndisturbed(target, plan);
    } else if (plan.mode === 'row') await requireEmpty(target, plan);
    else if (!unique) await requireDistinct(target, plan);
  });
}

/** The chunks of one relation of the table, or of all of them. */
async function planRelation(
  { source, target }: CopyOptions,
  plan: TablePlan,
  relation: number | null,
  part: boolean,
): Promise<ChunkPlan[]> {
  // A row that moves within its table while that is copied is read twice, which only an index of the target notices.
  const { unique } = await readFacts(target, plan);
  const heaps = await source.rows<Record<'relation' | 'filenode' | 'blocks', string>>(sql.READ_HEAPS, [
    plan.relid,
    relation,
  ]);
  return planChunks(
    heaps.map((heap) => ({
      relation: Number(heap.relation),
      filenode: Number(heap.filenode),
      blocks: Number(heap.blocks),
    })),
    unique && source.version >= 140_000,
    part,
  );
}

async function replan(options: CopyOptions, plan: TablePlan, { relation, part }: Chunk): Promise<void> {
  if (plan.mode === 'row') return start(options, plan, false);
  await replanRelation(
    options.target,
    options.key,
    relation,
    await planRelation(options, plan, relation, part),
  );
}

/**
 * Partitions came or went, and what they leave to do was asked for: the rows of the regions are removed, and what
 * the source has there now is copied. Partitions are copied from what is known of them as they were armed.
 * Errors: `recopy` where a region of the source is none that the target could tell.
 */
async function takeUpParts(options: CopyOptions, plan: TablePlan): Promise<void> {
  const { source, target, key } = options;
  const parts = await readParts(target, key);
  if (parts.length === 0) return;
  const regions = parts.flatMap(({ predicate }) => (predicate === null ? [] : [predicate]));
  if (regions.length > 0 && !merge.keyIsComparable(plan)) {
    throw new IbexError('recopy', `the keys of ${tableLabel(plan)} have other types on the target`, {
      table: tableLabel(plan),
    });
  }
  const chunks: ChunkPlan[] = [];
  for (const { relation, predicate } of parts) {
    if (relation === null) chunks.push(wholeChunk(plan.relid, predicate, true));
    else chunks.push(...(await planRelation(options, plan, relation, true)));
  }
  const members = (await source.rows<{ relation: string }>(sql.READ_MEMBERS, [plan.relid])).map((row) =>
    Number(row.relation),
  );
  await startParts(target, key, members, chunks, async () => {
    await target.run(merge.markOrigin(options.origin));
    for (const region of regions) await target.run(merge.deleteRegion(plan, region));
  });
}

/** Columns that were added since the first chunks were copied, or since the table was in step. */
async function fill({ target, key, carried, origin }: CopyOptions, plan: TablePlan): Promise<void> {
  try {
    await target.transaction('', async () => {
      await requireEpoch(target, key.sync, key.epoch);
      await target.run(merge.markOrigin(origin));
      await fillColumns(target, key.sync, plan, carried);
      await requireUndisturbed(target, plan);
    });
  } catch (error) {
    if (!isKind(error, 'constraint')) throw error;
    // Some rows of the source have other values by now, and only with those do all of them fit together.
    throw new IbexError('recopy', error.message, { table: tableLabel(plan), cause: error });
  }
}

async function isEmpty(target: Session, plan: TablePlan): Promise<boolean> {
  const { empty } = await target.row<{ empty: boolean }>(
    `select not exists (select from ${merge.fromTable(plan)}) as empty`,
  );
  return empty;
}

/** Where no index keeps the rows of a key apart on the target, one key may have several rows there, and none would go. */
async function requireDistinct(target: Session, plan: TablePlan): Promise<void> {
  const { distinct } = await target.row<{ distinct: boolean }>(merge.keysAreDistinct(plan));
  if (distinct) return;
  const label = tableLabel(plan);
  throw new IbexError('schema_mismatch', `${label} has several rows of the same key on the target`, {
    table: label,
    hint: `Remove what is too much, and say so there: create unique index on ${label} (${merge.keyColumns(plan)});`,
  });
}

async function requireEmpty(target: Session, plan: TablePlan): Promise<void> {
  if (await isEmpty(target, plan)) return;
  const label = tableLabel(plan);
  throw new IbexError('schema_mismatch', `${label} has rows on the target and no key to merge them by`, {
    table: label,
    hint: `Empty it there first: truncate ${label};`,
  });
}

/**
 * - `copied`: it is in.
 * - `gone`: somebody else copied it, or the copy was called off.
 * - `in the way`: other rows of the target share a key with it; it must be merged instead.
 * - `moved`: the relation has another file than planned, rows may have moved between chunks: plan again.
 * - `left over`: some of its rows found other rows of the target in their place.
 */
type Outcome = 'copied' | 'gone' | 'in the way' | 'moved' | 'left over';

async function copyChunk(
  options: CopyOptions,
  plan: TablePlan,
  chunk: Chunk,
  direct: boolean,
): Promise<Outcome> {
  const { source } = options;
  const [relation] = await source.rows<TableName>(sql.RELATION_NAME, [chunk.relation]);
  if (relation === undefined) return 'moved';
  try {
    return await source.transaction('isolation level repeatable read read only', async () => {
      // The lock comes before the snapshot: to an older snapshot a rewritten table reads empty.
      await source.run(sql.lockRelation(relation, chunk));
      const [now] = await source.rows<{ filenode: string; snapshot: string; outline: string | null }>(
        sql.READ_RELATION,
        [chunk.relation, plan.relid],
      );
      if (now !== undefined && now.outline !== plan.outline) throw altered(plan);
      if (now === undefined || Number(now.filenode) !== chunk.filenode) return 'moved';
      return writeChunk(options, plan, chunk, { ...relation, snapshot: now.snapshot }, direct);
    });
  } catch (error) {
    if (!isInTheWay(error)) throw error;
    if (direct && plan.mode === 'key') return 'in the way';
    throw chunk.part ? needsWhole(plan, error) : error;
  }
}

/**
 * A row of a part that has to wait for another one to make room would be lost: what came with a partition is in no
 * delta that could bring it back later. In a copy of the whole table no old row is in the way.
 */
function needsWhole(plan: TablePlan, cause: unknown): IbexError {
  return new IbexError('recopy', `rows of ${tableLabel(plan)} on the target are in the way of a partition`, {
    table: tableLabel(plan),
    cause,
  });
}

function altered(plan: TablePlan): IbexError {
  return new IbexError('source_moved', `the columns of ${tableLabel(plan)} changed while it was copied`);
}

async function writeChunk(
  options: CopyOptions,
  plan: TablePlan,
  chunk: Chunk,
  relation: TableName & { readonly snapshot: string },
  direct: boolean,
): Promise<Outcome> {
  const { target, key } = options;
  return target.transaction('', async () => {
    await target.run(merge.markOrigin(options.origin));
    if (!(await lockChunk(target, key, chunk.n))) return 'gone';
    const rows = direct
      ? await pipe(options, sql.readDirect(plan, relation, chunk), sql.writeDirect(plan))
      : await mergeChunk(options, plan, sql.readStaged(plan, relation, chunk), chunk.part);
    if (rows === null) return 'left over';
    if (chunk.filenode === 0) await requireKnownPartitions(options.source, plan);
    if (plan.mode === 'row') await setCopyFloor(target, key, relation.snapshot);
    await requireUndisturbed(target, plan);
    await finishChunk(target, key, chunk.n, rows);
    options.onRows(rows);
    return 'copied';
  });
}

/**
 * Rows that were on the target before may hold values, unique there, that the source has in other rows by now. No
 * chunk alone can make room; the batch that takes the table into step can. So all keys of the chunk are noted as if
 * they had changed, and travel with it.
 */
async function leaveToStream({ source, target, key }: CopyOptions, chunk: Chunk): Promise<void> {
  await source.run(sql.NOTE_CHUNK, [key.relid, chunk.relation, chunk.firstBlock, chunk.lastBlock]);
  await target.transaction('', async () => {
    if (await lockChunk(target, key, chunk.n)) await finishChunk(target, key, chunk.n, 0);
  });
}

async function requireKnownPartitions(source: Session, plan: TablePlan): Promise<void> {
  const { known } = await source.row<{ known: boolean }>(sql.PARTITIONS_ARE_KNOWN, [plan.relid]);
  if (known) return;
  throw new IbexError('source_moved', `partitions of ${tableLabel(plan)} changed while it was copied`);
}

/** Whatever fails on either side, both are left as they are between two statements. */
async function pipe(
  { source, target, rateLimit, signal }: CopyOptions,
  read: string,
  write: string,
): Promise<number> {
  const into = target.copyIn(write);
  let failure: Error | undefined;
  const failed = (error: unknown) => {
    failure ??= error as Error;
  };
  try {
    for await (const bytes of source.copyOut(read)) {
      // The rest of a chunk that cannot be written is read and dropped: a COPY cannot be left half-way.
      if (failure !== undefined) continue;
      if (signal.aborted) failed(signal.reason);
      else await into.write(bytes).catch(failed);
      // Behind what was written, so that the target is not kept waiting by what the source has sent already.
      await rateLimit?.take(bytes.length, signal).catch(failed);
    }
  } catch (error) {
    failed(error);
  }
  if (failure !== undefined) {
    await into.fail(failure).catch(() => undefined);
    throw failure;
  }
  return into.end();
}

/**
 * The chunk beside rows that are there already: what is missing is inserted, what differs is brought in line. Null
 * when not all of it found its place.
 */
async function mergeChunk(
  options: CopyOptions,
  plan: TablePlan,
  read: string,
  part: boolean,
): Promise<number | null> {
  const { target } = options;
  const facts = await readFacts(target, plan);
  await target.run(`drop table if exists ${merge.stageName(plan)}`);
  await target.run(merge.createStage(plan));
  const rows = await pipe(options, read, merge.loadStage(plan));
  const settled = await settle(target, plan, facts, part);
  await target.run(`drop table ${merge.stageName(plan)}`);
  return settled ? rows : null;
}
