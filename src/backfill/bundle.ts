/**
 * Copies the only chunks of several small tables in one transaction: each step is one round trip for all of them, and
 * what a table costs is little more than its rows. What makes a chunk exact holds for each table as it does alone: locks
 * come before the one snapshot, every file and outline is compared after it, the source's log is on disk by then, and rows
 * commit with the progress.
 *
 * There is one answer to whatever is not as planned: nothing of the bundle is copied, and each chunk is tried alone.
 */
import { disturbed } from '../apply/target-table.ts';
import { isKind } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import type { TableName, TablePlan } from '../core/plan.ts';
import type { ChunkJob, ChunkName, ChunkOutcome } from '../core/ports.ts';
import { waitForFlush } from '../postgres/flush.ts';
import { tableIdent } from '../postgres/quote.ts';
import { bookChunks, type Claim, type Claimed, type Copied, claimChunks } from './booking.ts';
import { isSmall } from './chunks.ts';
import { type CopierOptions, copyChunk, isTimeout } from './copier.ts';
import type { TableCopy } from './starting.ts';
import * as sql from './statements.ts';

/** Each table is locked on both servers while its bundle is copied, whose lock tables have an end. */
const TABLES_OF_BUNDLE = 50;

/** The small tables among some, by those that are copied together; of a bundle are so many bytes at the most. */
export function planBundles(copies: readonly TableCopy[], bytes: number): TableCopy[][] {
  const bundles: TableCopy[][] = [];
  let left = 0;
  for (const copy of copies.filter(({ small }) => small)) {
    const planned = copy.chunks[0]?.planned ?? 0;
    const last = bundles.at(-1);
    if (last === undefined || last.length === TABLES_OF_BUNDLE || planned > left) {
      bundles.push([copy]);
      left = bytes - planned;
    } else {
      last.push(copy);
      left -= planned;
    }
  }
  return bundles.filter((bundle) => bundle.length > 1);
}

/** Copies the chunks of a job, by the plans of their tables. Errors that concern one table carry its name. */
export async function copyJob(
  options: CopierOptions,
  plans: readonly TablePlan[],
  { chunks, ...lane }: ChunkJob,
): Promise<ChunkOutcome[]> {
  const [first] = chunks as readonly [ChunkName];
  if (chunks.length === 1)
    return [await copyChunk({ ...options, plan: plans[0] as TablePlan }, { ...lane, ...first })];
  try {
    return await options.target.transaction('', () => copyTogether(options, plans, { chunks, ...lane }));
  } catch (error) {
    const { source, target, signal } = options;
    const lost = !isTimeout(error) && (source.broken !== null || target.broken !== null);
    if (signal.aborted || lost || isKind(error, 'taken')) throw error;
    return chunks.map(() => ({ result: 'alone', rows: 0, bytes: 0, inTheWay: false }));
  }
}

/** Not all of the tables are as they were planned. */
class NotTogether extends Error {}

async function copyTogether(
  options: CopierOptions,
  plans: readonly TablePlan[],
  job: ChunkJob,
): Promise<ChunkOutcome[]> {
  const { target, origin } = options;
  const claims = await claimChunks(target, job, job.chunks, origin);
  if (!claims.every(isShared)) throw new NotTogether();
  // All tables of the bundle stay locked on the source while one of them is waited for on the target.
  await target.run(`set local lock_timeout = '1s'`);
  const { copied, lsn } = await readAndWrite(options, plans, claims);
  await waitForFlush(options.source, lsn);
  const [fired] = await bookChunks(target, job.sync, copied);
  if (fired !== undefined) {
    const plan = plans.find(({ relid }) => relid === fired.relid) as TablePlan;
    throw disturbed(plan, fired.name);
  }
  failpoint('chunk-written');
  return copied.map(({ rows, bytes }) => ({ result: 'copied', rows, bytes, inTheWay: false }));
}

function isShared(claim: Claim): claim is Claimed {
  return typeof claim !== 'string' && isSmall(claim);
}

/** The rows of all tables, in one snapshot that is not kept any longer than they are read. */
async function readAndWrite(
  { source, target, patienceMs, rateLimit, signal }: CopierOptions,
  plans: readonly TablePlan[],
  chunks: readonly Claimed[],
): Promise<{ readonly copied: readonly Copied[]; readonly lsn: string }> {
  const oids = chunks.map(({ relation }) => relation);
  const relations = await source.rows<TableName>(sql.RELATION_NAMES, [oids]);
  if (relations.length !== chunks.length) throw new NotTogether();
  return source.transaction('isolation level repeatable read read only', async () => {
    // The locks come before the snapshot: to an older snapshot a rewritten table reads empty.
    await source.run(sql.lockRelations(relations));
    const now = await source.rows<sql.RelationNow>(sql.READ_RELATIONS, [
      oids,
      plans.map(({ relid }) => relid),
    ]);
    if (now.length !== chunks.length) throw new NotTogether();
    const reads = plans.map((plan, i) => {
      const [chunk, relation, at] = [
        chunks[i] as Claimed,
        relations[i] as TableName,
        now[i] as sql.RelationNow,
      ];
      if (at.outline !== plan.outline || at.filenode !== chunk.filenode) throw new NotTogether();
      return sql.readDirect(plan, relation, sql.rangeOf(chunk, at.blocks, source.version));
    });
    const piped = await source.pipe(reads, target, plans.map(sql.writeDirect), {
      throttle: rateLimit && ((bytes) => rateLimit.reserve(bytes)),
      signal: AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]),
    });
    const copied = plans.map((plan, i): Copied => {
      const { relid, n } = chunks[i] as Claimed;
      const floor = plan.mode === 'row' ? (now[i] as sql.RelationNow).snapshot : null;
      return { relid, n, ...(piped[i] as (typeof piped)[number]), met: 0, floor, table: tableIdent(plan) };
    });
    return { copied, lsn: (now[0] as sql.RelationNow).lsn };
  });
}
