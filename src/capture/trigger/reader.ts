/**
 * Cuts and reads batches: every key changed between two snapshots of the source, with its row as of the second.
 *
 * Keeps four promises. What a batch carries is one snapshot (one REPEATABLE READ transaction, and a look at the
 * files afterwards, since TRUNCATE and rewrites are not MVCC-safe). It ends only once the source's log is
 * flushed past its snapshot, so that no transaction id in it can be used again after a crash. And the reading
 * transaction never waits for the queue or the target: what they cannot take yet goes to the spool. Nor does it wait
 * for a lock while it holds one: of two that wait for each other the server may choose the application to fail.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { BatchHeader, BatchTable, TruncatedRelation } from '../../core/batch.ts';
import { concerningTable, IbexError, isKind } from '../../core/errors.ts';
import { type TablePlan, tableLabel } from '../../core/plan.ts';
import type { BatchOutcome, BatchQueue, BatchWriter } from '../../core/ports.ts';
import type { Snapshot, SourceIdentity } from '../../core/position.ts';
import { serverError } from '../../postgres/errors.ts';
import type { Session } from '../../postgres/session.ts';
import { Spool } from '../../queue/spool.ts';
import { noteSeenPartition, readSnapshot } from './registry.ts';
import {
  ALTERED_TABLES,
  BEGIN_BATCH,
  type Generations,
  LOCKED_RELATIONS,
  lockForReading,
  MOVED_RELATIONS,
  NEVER_WAIT,
  readStatement,
  summaryStatement,
  truncatedStatement,
  UNKNOWN_PARTITIONS,
} from './statements.ts';

/** A table that a batch looks at, with its own lower bound while it is not in step with the lane. */
export interface ReadTable {
  readonly plan: TablePlan;
  readonly floor: Snapshot | null;
}

/** The lane's side of a batch that is to be read. */
export interface ReadRequest {
  readonly sync: string;
  readonly epoch: number;
  readonly id: string;
  readonly from: Snapshot;
  readonly tables: readonly ReadTable[];
  /** Publish the batch even when nothing changed, to move the checkpoint or to let a table join. */
  readonly evenIfEmpty: boolean;
}

export interface ReadResult {
  readonly to: Snapshot;
  /** Null when there was nothing to carry and nothing was published. */
  readonly published: { readonly header: BatchHeader; readonly applied: Promise<BatchOutcome> } | null;
}

interface Tables {
  readonly requested: readonly ReadTable[];
  readonly generations: ReadonlyMap<number, Generations>;
}

/** How often a batch is begun anew because of others' locks, and the pause before it, in milliseconds. */
const TRIES = 20;
const PAUSE_MS = 50;

export class DeltaReader {
  readonly #reading: Session;
  readonly #control: Session;
  readonly #identity: SourceIdentity;
  readonly #queue: BatchQueue;
  readonly #spoolDirectory: string;
  /** Relations that moved under the batch that was read last, or that others had locked. */
  #inTheWay: readonly string[] = [];
  #neverWaits = false;

  /** `control` is a second session: the log is flushed by a transaction of its own, outside the snapshot. */
  constructor(options: {
    reading: Session;
    control: Session;
    identity: SourceIdentity;
    queue: BatchQueue;
    spoolDirectory: string;
  }) {
    this.#reading = options.reading;
    this.#control = options.control;
    this.#identity = options.identity;
    this.#queue = options.queue;
    this.#spoolDirectory = options.spoolDirectory;
  }

  /** The source's snapshot now. Unchanged since the last batch means that nothing was committed since. */
  peek(): Promise<Snapshot> {
    return readSnapshot(this.#control);
  }

  /**
   * Reads one batch and publishes it. Resolves once all of it is in the queue. A batch under which a table changed
   * its file, or was locked, is read again with that table locked before the snapshot, so that an application that
   * truncates all the time cannot hold it up for ever.
   */
  async read(request: ReadRequest): Promise<ReadResult> {
    // The one works while the other has locks in hand: what they wait for, nobody's search for deadlocks would see.
    if (!this.#neverWaits)
      await Promise.all([this.#reading, this.#control].map((one) => one.run(NEVER_WAIT)));
    this.#neverWaits = true;
    let locked: readonly string[] = [];
    for (let n = 1; ; n++) {
      this.#inTheWay = [];
      try {
        return await this.#readOnce(n === 1 ? request : { ...request, id: `${request.id}-${n}` }, locked);
      } catch (error) {
        if (isKind(error, 'lock')) await this.#findLocked(request, error, n);
        else if (!isKind(error, 'source_moved') || n === TRIES) throw error;
        // Its columns changed: another plan is needed, not another try.
        else if (this.#inTheWay.length === 0) throw error;
        // One that was dropped is a mere number.
        const first = this.#inTheWay.filter((relation) => !/^\d+$/.test(relation));
        locked = [...first, ...locked.filter((relation) => !first.includes(relation))];
      }
    }
  }

  /** Who is in the way of reading: a table can be waited for; an index, or who has gone, is looked at again. */
  async #findLocked({ tables }: ReadRequest, error: IbexError, n: number): Promise<void> {
    const relids = tables.map(({ plan }) => plan.relid);
    const found = await this.#control.rows<{ relation: string }>(LOCKED_RELATIONS, [relids]);
    this.#inTheWay = found.map(({ relation }) => relation);
    if (n === TRIES) {
      throw new IbexError('lock', `${error.message}: ${this.#inTheWay.join(', ') || error.table}`, {
        cause: error,
      });
    }
    if (found.length === 0) await sleep(PAUSE_MS);
  }

  async #readOnce(request: ReadRequest, locked: readonly string[]): Promise<ReadResult> {
    const spool = new Spool({ spoolDir: this.#spoolDirectory });
    let writer: BatchWriter | undefined;
    let pumping: Promise<void> | undefined;
    try {
      const { header, lsn, to } = await this.#reading.transaction(
        'isolation level repeatable read read only',
        async () => {
          if (locked.length > 0) await this.#reading.run(lockForReading(locked));
          const cut = await this.#cut(request);
          if (cut.header === null) return cut;
          writer = await this.#queue.open(cut.header);
          pumping = pump(spool, writer);
          // What stops the pump must stop the reading too, at its next push.
          pumping.catch((error) => spool.fail(error));
          await this.#readTables(request, cut, cut.header, spool);
          return cut;
        },
      );
      if (header === null || writer === undefined) return { to, published: null };
      spool.end();
      await Promise.all([pumping, this.#waitForFlush(lsn)]);
      await writer.end();
      return { to, published: { header, applied: writer.applied } };
    } catch (error) {
      spool.fail(error as Error);
      await pumping?.catch(() => undefined);
      await writer?.abort(error as Error).catch(() => undefined);
      throw error;
    } finally {
      await spool.dispose();
    }
  }

  /** Takes the snapshot that ends the batch and finds out which tables have something in it. */
  async #cut(request: ReadRequest) {
    const { snapshot, lsn, generations } = await this.#reading.row<{
      snapshot: Snapshot;
      lsn: string;
      generations: [number, number][];
    }>(BEGIN_BATCH, [request.tables.map((table) => table.plan.relid)]);
    const byTable = new Map<number, number[]>();
    for (const [relid, n] of generations) byTable.set(relid, [...(byTable.get(relid) ?? []), n]);
    const tables: Tables = { requested: request.tables, generations: byTable };
    const { batchTables, oldestAt } = await this.#summarise(request.from, tables);
    const needed = batchTables.length > 0 || request.evenIfEmpty;
    const header: BatchHeader | null = needed
      ? {
          sync: request.sync,
          id: request.id,
          epoch: request.epoch,
          from: request.from,
          to: snapshot,
          source: this.#identity,
          tables: batchTables,
          oldestAt,
        }
      : null;
    return { header, lsn, to: snapshot, tables };
  }

  /** Joining tables belong to the batch even without deltas: it is what takes them into step. */
  async #summarise(from: Snapshot, tables: Tables) {
    const noted = tables.requested.filter((table) => tables.generations.has(table.plan.relid));
    const statement = noted
      .map(({ plan, floor }) =>
        summaryStatement(plan, tables.generations.get(plan.relid) ?? [], floor ?? from),
      )
      .join(' union all ');
    const rows =
      noted.length === 0
        ? []
        : await this.#reading.rows<{
            relid: string;
            captured: string;
            truncates: string;
            unknown: string;
            oldest: number | null;
          }>(statement);
    const summary = new Map(rows.map((row) => [Number(row.relid), row]));
    const batchTables: BatchTable[] = [];
    for (const { plan, floor } of tables.requested) {
      const captured = Number(summary.get(plan.relid)?.captured ?? 0);
      if (captured === 0 && floor === null) continue;
      if (Number(summary.get(plan.relid)?.unknown ?? 0) > 0) throw unknownKeys(plan);
      const truncates = Number(summary.get(plan.relid)?.truncates ?? 0);
      const truncated = truncates > 0 ? await this.#truncated(plan, tables, floor ?? from) : [];
      batchTables.push({ plan, truncated, captured, ...(floor === null ? {} : { floor }) });
    }
    const times = rows.map((row) => row.oldest).filter((time) => time !== null);
    return { batchTables, oldestAt: times.length === 0 ? null : Math.min(...times) };
  }

  #truncated(plan: TablePlan, tables: Tables, from: Snapshot): Promise<TruncatedRelation[]> {
    const generations = tables.generations.get(plan.relid) ?? [];
    return this.#reading.rows<TruncatedRelation>(truncatedStatement(plan, generations, from));
  }

  async #readTables(
    request: ReadRequest,
    cut: { tables: Tables },
    header: BatchHeader,
    spool: Spool,
  ): Promise<void> {
    for (const [index, { plan, floor, truncated, captured }] of header.tables.entries()) {
      if (captured === 0) continue;
      const generations = cut.tables.generations.get(plan.relid) ?? [];
      const statement = readStatement(plan, generations, floor ?? request.from, truncated.length > 0);
      try {
        for await (const bytes of this.#reading.copyOut(statement)) await spool.push({ table: index, bytes });
      } catch (error) {
        throw isNoValue(error) ? unknownKeys(plan, error) : concerningTable(error, tableLabel(plan));
      }
    }
    const relids = header.tables.map((table) => table.plan.relid);
    if (relids.length === 0) return;
    await this.#noteUnknownPartitions(header);
    const outlines = header.tables.map((table) => table.plan.outline);
    // The locks of the reading are still held, so what the other session sees is what was read.
    const [moved, altered] = await Promise.all([
      this.#reading.rows<{ relation: string }>(MOVED_RELATIONS, [relids]),
      this.#control.rows<{ relation: string }>(ALTERED_TABLES, [relids, outlines]),
    ]);
    if (altered.length > 0) {
      const names = altered.map((row) => row.relation).join(', ');
      throw new IbexError('source_moved', `the columns of ${names} changed while a batch was read`);
    }
    if (moved.length > 0) {
      this.#inTheWay = moved.map((row) => row.relation);
      const names = this.#inTheWay.join(', ');
      throw new IbexError(
        'source_moved',
        `the file of ${names} changed while a batch was read; it is read again`,
      );
    }
  }

  /** Before the batch can be applied it is durable that the table's partitions have to be looked at. */
  async #noteUnknownPartitions({ tables }: BatchHeader): Promise<void> {
    const partitioned = tables.filter(({ plan }) => !plan.only).map(({ plan }) => plan.relid);
    if (partitioned.length === 0) return;
    const unknown = await this.#reading.rows<{ relid: number; leaf: number }>(UNKNOWN_PARTITIONS, [
      partitioned,
    ]);
    for (const { relid, leaf } of unknown) await noteSeenPartition(this.#control, relid, leaf);
  }

  /** Resolves once the source's log is on disk up to `lsn`: see the promise at the top of this file. */
  async #waitForFlush(lsn: string): Promise<void> {
    const { flushed } = await this.#control.row<{ flushed: boolean }>(
      'select pg_current_wal_flush_lsn() >= $1::pg_lsn as flushed',
      [lsn],
    );
    // A transactional message is a commit with a transaction id, which flushes the log whatever came before it.
    if (!flushed) await this.#control.run(`select pg_logical_emit_message(true, 'ibex', '')`);
  }
}

/** Noted keys are not values of their type any more: a label of an enum was renamed, a domain has a new CHECK. */
function isNoValue(error: unknown): boolean {
  const state = serverError(error)?.state ?? '';
  return state.startsWith('22') || state === '23514';
}

function unknownKeys(plan: TablePlan, cause?: unknown): IbexError {
  const label = tableLabel(plan);
  return new IbexError('recopy', `${label} was written while its key was being altered`, {
    table: label,
    cause,
  });
}

async function pump(spool: Spool, writer: BatchWriter): Promise<void> {
  for await (const part of spool) await writer.write(part);
}
