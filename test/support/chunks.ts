/**
 * A copy taken apart: planned in chunks of any size, of which a test copies some itself, as a job would, before it
 * starts a daemon that copies the rest.
 */
import { readRecord } from '../../src/apply/state.ts';
import { copyJob } from '../../src/backfill/bundle.ts';
import { copyChunk, fingerprint } from '../../src/backfill/copier.ts';
import { type CopyContext, divide, type TableCopy, takeUp } from '../../src/backfill/starting.ts';
import type { ChunkOutcome } from '../../src/core/ports.ts';
import { readRoster } from '../../src/engine/roster.ts';
import { Session } from '../../src/postgres/session.ts';
import type { Pair } from './pair.ts';

/** Sets up and arms, and copies nothing. */
export async function setUp(pair: Pair): Promise<void> {
  pair.start({ until: { kind: 'copied', covers: () => false } });
  await pair.sync.stopped;
}

export interface Chunked {
  readonly copies: readonly TableCopy[];
  /** Copies one chunk as a job of that name would. */
  copy(n: number, options?: { readonly patienceMs?: number; readonly epoch?: number }): Promise<ChunkOutcome>;
  /** Copies the first chunks of all tables as one job would; in the order of `copies`. */
  copyTogether(): Promise<readonly ChunkOutcome[]>;
  /** Divides a chunk in two. */
  divide(n: number): Promise<void>;
}

/** Plans the copies of all tables in chunks of so many bytes; jobs are those of the first table. */
export async function planChunks(pair: Pair, chunkBytes: number): Promise<Chunked> {
  const open = (side: 'source' | 'target') =>
    Session.open({ url: pair.databases[`${side}Url`], name: 'ibex:main:copy' });
  const within = async <T>(work: (context: CopyContext) => Promise<T>): Promise<T> => {
    await using source = await open('source');
    await using target = await open('target');
    const epoch = (await readRecord(target, 'main'))?.epoch ?? 0;
    const lane = { sync: 'main', epoch, origin: 'source', replica: false, existing: 'merge' as const };
    return await work({ source, target, ...lane, chunkBytes });
  };
  const { copies, failed } = await within(async (context) => {
    const wishes = { name: 'main', carry: [], keyless: 'carry' as const };
    const roster = await readRoster(context.source, context.target, wishes);
    const tables = roster.flatMap(({ plan, carries }) =>
      plan === null || carries === null ? [] : [{ plan, carried: carries }],
    );
    return takeUp(context, tables);
  });
  for (const error of failed.values()) throw error;
  const [{ plan, chunks, divisible }] = copies as [TableCopy];
  const job = { sync: 'main', relid: plan.relid, plan: fingerprint(plan), divisible };
  const signal = new AbortController().signal;
  return {
    copies,
    copy: (n, { patienceMs = 60_000, epoch } = {}) =>
      within(({ source, target, epoch: current }) =>
        copyChunk(
          { source, target, plan, origin: 'source', patienceMs, rateLimit: null, signal },
          { ...job, epoch: epoch ?? current, n, direct: true },
        ),
      ),
    copyTogether: () =>
      within(({ source, target, epoch }) => {
        const names = copies.map((one) => ({
          relid: one.plan.relid,
          n: one.chunks[0]?.n ?? 0,
          plan: fingerprint(one.plan),
          direct: true,
          divisible: one.divisible,
        }));
        const how = { source, target, origin: 'source', patienceMs: 60_000, rateLimit: null, signal };
        return copyJob(
          how,
          copies.map((one) => one.plan),
          { sync: 'main', epoch, chunks: names },
        );
      }),
    divide: async (n) => {
      const chunk = chunks.find((one) => one.n === n);
      if (chunk !== undefined) await within((context) => divide(context, chunk));
    },
  };
}

/** The chunks of all tables as the target has them recorded. */
export async function recordedChunks(pair: Pair) {
  const { rows } = await pair.target.query<{
    n: number;
    first: number;
    last: number | null;
    rows: number | null;
    planned: number;
    bytes: number | null;
  }>(
    `select n, first_block::int4 as first, last_block::int4 as last, rows::int4, planned::int4, bytes::int4
       from ibex.chunk order by relid, n`,
  );
  return rows;
}
