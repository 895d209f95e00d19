/**
 * Copies one chunk: reads it in a snapshot of its own, writes it together with its progress.
 *
 * Why chunks are exact together: the lower bound (floor) is noted after the table was armed and before the first chunk
 * is read. Whatever a chunk's own snapshot misses or has out of date was changed after the floor, so it is in the
 * deltas, and the batch that takes the table into step carries every key changed since the floor once more. Each
 * chunk commits together with its progress row: killed anywhere, only chunks in flight are redone. It commits only what
 * a crash of the source cannot take back: of rows that are lost there, no delta would tell.
 */
import { createHash } from 'node:crypto';
import * as merge from '../apply/statements.ts';
import { disturbed, readFacts } from '../apply/target-table.ts';
import { concerning, IbexError, isKind } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import type { ChunkName, ChunkOutcome, ChunkResult } from '../core/ports.ts';
import { serverError } from '../postgres/errors.ts';
import { waitForFlush } from '../postgres/flush.ts';
import type { Piped } from '../postgres/pipe.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { bookChunks, type Claim, type Claimed, claimChunks } from './booking.ts';
import { halves } from './chunks.ts';
import type { CopyLane } from './progress.ts';
import type { RateLimit } from './rate-limit.ts';
import { isInTheWay, settle } from './settling.ts';
import * as sql from './statements.ts';

export interface CopierOptions {
  /** Closed when they end in the middle of a COPY: by the signal, or because the chunk took too long. */
  readonly source: Session;
  readonly target: Session;
  /** The source node's name, noted by capture on the target. */
  readonly origin: string;
  /** How old the snapshot of a chunk that can be divided may become, in milliseconds. */
  readonly patienceMs: number;
  readonly rateLimit: RateLimit | null;
  readonly signal: AbortSignal;
}

interface TableOptions extends CopierOptions {
  readonly plan: TablePlan;
}

/** A chunk that is to be copied, under the epoch of its lane. */
export type ChunkTask = CopyLane & ChunkName;

/** A snapshot holds back the cleaning up of the whole source. */
export const CHUNK_PATIENCE_MS = 120_000;

/** Of a plan: others of the same print bring the same rows. */
export function fingerprint(plan: TablePlan): string {
  return createHash('sha256').update(JSON.stringify(plan)).digest('base64');
}

/** Copies one chunk by the plan of its table. Errors that concern the table carry its name. */
export async function copyChunk(options: TableOptions, job: ChunkTask): Promise<ChunkOutcome> {
  return concerning(tableLabel(options.plan), async () => {
    const tried = await tryCopy(options, job, job.direct);
    if (tried !== 'in the way') return tried;
    const merged = await tryCopy(options, job, false);
    if (merged === 'in the way') throw new IbexError('internal', 'a merged chunk cannot be in the way');
    return { ...merged, inTheWay: true };
  });
}

/** `in the way`: other rows of the target share a key with it; it must be merged instead. */
async function tryCopy(
  options: TableOptions,
  job: ChunkTask,
  direct: boolean,
): Promise<ChunkOutcome | 'in the way'> {
  const { target, origin, plan } = options;
  let part = false;
  try {
    const written = await target.transaction('', async () => {
      const [chunk] = (await claimChunks(target, job, [job], origin)) as [Claim];
      if (chunk === 'gone' || chunk === 'busy') return came(chunk === 'gone' ? 'gone' : 'again');
      part = chunk.part;
      return readAndWrite(options, job, chunk, direct && !part);
    });
    if ('result' in written) return written;
    await leaveToStream(options, job, written);
    return came('copied');
  } catch (error) {
    if (isTimeout(error)) return came('slow');
    if (isKind(error, 'lock') || serverError(error)?.state.startsWith('40')) return came('again');
    if (!isInTheWay(error)) throw error;
    if (direct && plan.mode === 'key' && !part) return 'in the way';
    throw part ? needsWhole(plan, error) : error;
  }
}

/** What `AbortSignal.timeout` fails with. */
export function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'TimeoutError';
}

function came(result: ChunkResult, { rows, bytes } = { rows: 0, bytes: 0 }): ChunkOutcome {
  return { result, rows, bytes, inTheWay: false };
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

/** A chunk of which some rows found other rows of the target in their place; nothing of it is written. */
interface LeftOver {
  readonly chunk: Claimed;
  readonly met: number;
}

/** Fills the transaction of a claimed chunk. */
async function readAndWrite(
  options: TableOptions,
  job: ChunkTask,
  chunk: Claimed,
  direct: boolean,
): Promise<ChunkOutcome | LeftOver> {
  const { target, plan } = options;
  if (!direct) {
    await target.run(`drop table if exists ${merge.stageName(plan)}`);
    await target.run(merge.createStage(plan));
  }
  const read = await readChunk(options, job, chunk, direct);
  if (read === 'moved') return came('moved');
  await waitForFlush(options.source, read.lsn);
  let met = 0;
  if (!direct) {
    if (chunk.found) met = (await target.row<{ met: number }>(merge.countMet(plan))).met;
    const settled = await settle(target, plan, await readFacts(target, plan), chunk.part, options.origin);
    await target.run(`drop table ${merge.stageName(plan)}`);
    if (!settled) return { chunk, met };
  }
  await book(options, job, read, met);
  failpoint('chunk-written');
  return came('copied', read);
}

/** The last thing before the chunk is committed. `read` is null where nothing was written. */
async function book(
  { target, plan }: TableOptions,
  { sync, relid, n }: ChunkTask,
  read: Read | null,
  met: number,
): Promise<void> {
  const [rows, bytes] = read === null ? [0, 0] : [read.rows, read.bytes];
  const floor = plan.mode === 'row' && read !== null ? read.snapshot : null;
  const copied = { relid, n, rows, bytes, met, floor, table: tableIdent(plan) };
  const [fired] = await bookChunks(target, sync, [copied]);
  if (fired !== undefined && read !== null) throw disturbed(plan, fired.name);
}

type Read = Piped & Pick<sql.RelationNow, 'snapshot' | 'lsn'>;

/** The rows of a chunk, in a snapshot that is not kept any longer than they are read. */
async function readChunk(
  { source, target, plan, patienceMs, rateLimit, signal }: TableOptions,
  job: ChunkTask,
  chunk: Claimed,
  direct: boolean,
): Promise<Read | 'moved'> {
  const [relation] = await source.rows<TableName>(sql.RELATION_NAMES, [[chunk.relation]]);
  if (relation === undefined) return 'moved';
  return source.transaction('isolation level repeatable read read only', async () => {
    // The lock comes before the snapshot: to an older snapshot a rewritten table reads empty.
    await source.run(sql.lockRelation(relation, chunk));
    const [now] = await source.rows<sql.RelationNow>(sql.READ_RELATIONS, [[chunk.relation], [plan.relid]]);
    if (now !== undefined && now.outline !== plan.outline) throw altered(plan);
    if (now === undefined || now.filenode !== chunk.filenode) return 'moved';
    const range = sql.rangeOf(chunk, now.blocks, source.version);
    const read = direct ? sql.readDirect(plan, relation, range) : sql.readStaged(plan, relation, range);
    const write = direct ? sql.writeDirect(plan) : merge.loadStage(plan);
    const limited = job.divisible && halves(chunk, now.blocks) !== null;
    const [piped] = await source.pipe([read], target, [write], {
      throttle: rateLimit && ((bytes) => rateLimit.reserve(bytes)),
      signal: limited ? AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]) : signal,
    });
    if (chunk.filenode === 0) await requireKnownPartitions(source, plan);
    return { ...(piped as Piped), snapshot: now.snapshot, lsn: now.lsn };
  });
}

function altered(plan: TablePlan): IbexError {
  return new IbexError('source_moved', `the columns of ${tableLabel(plan)} changed while it was copied`);
}

async function requireKnownPartitions(source: Session, plan: TablePlan): Promise<void> {
  const { known } = await source.row<{ known: boolean }>(sql.PARTITIONS_ARE_KNOWN, [plan.relid]);
  if (known) return;
  throw new IbexError('source_moved', `partitions of ${tableLabel(plan)} changed while it was copied`);
}

/**
 * Rows that were on the target before may hold values, unique there, that the source has in other rows by now. No
 * chunk alone can make room; the batch that takes the table into step can. So all keys of the chunk are noted as if
 * they had changed, and travel with it.
 */
async function leaveToStream(options: TableOptions, job: ChunkTask, { chunk, met }: LeftOver): Promise<void> {
  const { source, target, origin } = options;
  await source.run(sql.NOTE_CHUNK, [job.relid, chunk.relation, chunk.firstBlock, chunk.lastBlock]);
  await target.transaction('', async () => {
    const [still] = (await claimChunks(target, job, [job], origin)) as [Claim];
    if (typeof still !== 'string') await book(options, job, null, met);
  });
}
