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
import type { DeltaFile } from '../../core/backlog.ts';
import type { BatchHeader } from '../../core/batch.ts';
import { concerningTable, IbexError, isKind } from '../../core/errors.ts';
import { failpoint } from '../../core/failpoints.ts';
import { type TablePlan, tableLabel } from '../../core/plan.ts';
import type { BatchOutcome, BatchQueue, BatchWriter } from '../../core/ports.ts';
import type { Snapshot, SourceIdentity } from '../../core/position.ts';
import { serverError } from '../../postgres/errors.ts';
import { askingForFlush, type FlushAnswer, flushUnlessFlushed } from '../../postgres/flush.ts';
import type { Session } from '../../postgres/session.ts';
import { FailedAt } from '../../postgres/together.ts';
import { Spool } from '../../queue/spool.ts';
import { type GivenUp, readingGivenUp } from './budget.ts';
import {
  type Ahead,
  type Beginning,
  beginning,
  type Cut,
  cutBatch,
  cutPiece,
  type PieceRequest,
  type ReadRequest,
  type ReadTable,
  type Summary,
  summaryAhead,
  unknownKeys,
} from './cut.ts';
import { noteSeenPartition, readSnapshot } from './registry.ts';
import {
  ALTERED_TABLES,
  DELTA_FILES,
  LOCKED_RELATIONS,
  lockForReading,
  MOVED_RELATIONS,
  NEVER_WAIT,
  UNKNOWN_PARTITIONS,
} from './statements.ts';

export interface ReadResult extends Pick<Cut, 'to' | 'large' | 'spoiled'> {
  /** Null when there was nothing to carry and nothing was published. */
  readonly published: Published | null;
}

export interface Published {
  readonly header: BatchHeader;
  readonly applied: Promise<BatchOutcome>;
  /** Bytes that were sent. */
  readonly bytes: number;
}

/** What is asked for, with the tables that are looked at for it. */
interface Asked {
  readonly sync: string;
  readonly id: string;
  readonly from: Snapshot;
  readonly tables: readonly Pick<ReadTable, 'plan'>[];
}

/** What a reading transaction begins with. */
type Begun = readonly [Beginning, Ahead | null];

/** How often a batch is begun anew because of others' locks, and the pause before it, in milliseconds: the nth is n times as long. */
const TRIES = 20;
const PAUSE_MS = 25;

export class DeltaReader {
  readonly #reading: Session;
  readonly #control: Session;
  readonly #identity: SourceIdentity;
  readonly #queue: BatchQueue;
  readonly #spoolDirectory: string;
  /** Relations that moved under the batch that was read last, or that others had locked. */
  #inTheWay: readonly string[] = [];
  #neverWaits = false;
  /** What counted the deltas of the last batch; null: it is not known what the next one asks. */
  #summary: string | null = null;

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
    const { cut, published } = await this.#persistently(request, (id, begun, ahead) =>
      cutBatch(this.#reading, this.#identity, { ...request, id }, begun, ahead),
    );
    // What is staged in pieces first is not counted again for each of them.
    this.#summary = cut.large.length > 0 ? null : cut.summary;
    return { to: cut.to, large: cut.large, spoiled: cut.spoiled, published };
  }

  /** Reads a piece of a large backlog and publishes it, in a short transaction of its own, as `read` does a batch. */
  async readPiece(request: PieceRequest): Promise<Published> {
    const asked = { ...request, tables: [request.table] };
    const { published } = await this.#persistently(asked, async (id, begun) =>
      cutPiece(this.#identity, { ...request, id }, begun),
    );
    return published as Published;
  }

  /** The delta tables of a table: what any snapshot from before sees lies in these blocks. */
  deltaFiles(relid: number): Promise<DeltaFile[]> {
    return this.#control.rows<DeltaFile>(DELTA_FILES, [relid]);
  }

  async #persistently(asked: Asked, cut: (id: string, ...begun: Begun) => Promise<Cut>) {
    // The one works while the other has locks in hand: what they wait for, nobody's search for deadlocks would see.
    if (!this.#neverWaits)
      await Promise.all([this.#reading, this.#control].map((one) => one.run(NEVER_WAIT)));
    this.#neverWaits = true;
    let locked: readonly string[] = [];
    for (let n = 1; ; n++) {
      this.#inTheWay = [];
      try {
        const id = n === 1 ? asked.id : `${asked.id}-${n}`;
        return await this.#readOnce(asked, (...begun) => cut(id, ...begun), locked);
      } catch (error) {
        if (isKind(error, 'lock')) await this.#findLocked(asked, error, n);
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
  async #findLocked({ tables }: Asked, error: IbexError, n: number): Promise<void> {
    const relids = tables.map(({ plan }) => plan.relid);
    const found = await this.#control.rows<{ relation: string }>(LOCKED_RELATIONS, [relids]);
    this.#inTheWay = found.map(({ relation }) => relation);
    if (n === TRIES) {
      const inTheWay = this.#inTheWay.join(', ') || error.table || 'by now nobody holds it';
      throw new IbexError('lock', `${error.message}: ${inTheWay}`, { cause: error });
    }
    if (found.length === 0) await sleep(n * PAUSE_MS);
  }

  async #readOnce(asked: Asked, cutNow: (...begun: Begun) => Promise<Cut>, locked: readonly string[]) {
    const spool = new Spool({ spoolDir: this.#spoolDirectory });
    let writer: BatchWriter | undefined;
    let pumping: Promise<void> | undefined;
    let bytes = 0;
    let flushed: FlushAnswer | undefined;
    try {
      const cut = await this.#begin(asked, locked, async (...begun) => {
        const { header, statements, ...rest } = await cutNow(...begun);
        if (header === null) return { header, statements, ...rest };
        writer = await this.#queue.open(header);
        pumping = pump(spool, writer);
        // What stops the pump must stop the reading too, at its next push.
        pumping.catch((error) => spool.fail(error));
        bytes = await this.#readTables(header, statements, spool);
        flushed = await this.#requireUndisturbed(header, asked, rest.lsn);
        failpoint('after-read');
        return { header, statements, ...rest };
      });
      if (cut.header === null || writer === undefined) return { cut, published: null };
      spool.end();
      await Promise.all([pumping, flushUnlessFlushed(this.#control, flushed)]);
      failpoint('before-publish');
      await writer.end();
      failpoint('after-publish');
      return { cut, published: { header: cut.header, applied: writer.applied, bytes } };
    } catch (error) {
      spool.fail(error as Error);
      await pumping?.catch(() => undefined);
      await writer?.abort(error as Error).catch(() => undefined);
      throw error;
    } finally {
      await spool.dispose();
    }
  }

  /**
   * Relations are locked before the snapshot, which the first statement after that takes. With that goes what the last batch
   * asked; should it fail, as a delta table is gone since, the batch begins without it.
   */
  async #begin<T>(
    asked: Asked,
    locked: readonly string[],
    body: (...begun: Begun) => Promise<T>,
  ): Promise<T> {
    const summary = locked.length === 0 ? this.#summary : null;
    this.#summary = null;
    let begun = false;
    const begin = (...answers: Begun) => {
      begun = true;
      return body(...answers);
    };
    try {
      return await this.#transact(asked, locked, summary, begin);
    } catch (error) {
      if (begun || summary === null) throw error;
      return this.#transact(asked, locked, null, body);
    }
  }

  #transact<T>(
    asked: Asked,
    locked: readonly string[],
    summary: string | null,
    body: (...begun: Begun) => Promise<T>,
  ): Promise<T> {
    const begin = beginning(asked);
    const along = summary === null ? [] : [summaryAhead(summary, asked.from)];
    const reading = this.#reading;
    return reading.transaction(
      'isolation level repeatable read read only',
      async ([answer, counted]) => {
        if (answer !== undefined) {
          const ahead = summary === null ? null : { summary, rows: counted?.rows as Summary[] };
          return body(answer.rows[0] as Beginning, ahead);
        }
        await reading.run(lockForReading(locked));
        return body(await reading.preparedRow<Beginning>(begin.text, begin.values ?? []), null);
      },
      locked.length === 0 ? [begin, ...along] : [],
    );
  }

  /** Resolves to the bytes that were read. */
  async #readTables(
    header: BatchHeader,
    statements: readonly (string | null)[],
    spool: Spool,
  ): Promise<number> {
    const reads = header.tables.flatMap(({ plan }, table) => {
      const statement = statements[table];
      return typeof statement === 'string' ? [{ plan, table, statement }] : [];
    });
    let sum = 0;
    try {
      const pieces = this.#reading.copyOutTogether(reads.map(({ statement }) => statement));
      for await (const { place, bytes } of pieces) {
        sum += bytes.length;
        await spool.push({ table: (reads[place] as { table: number }).table, bytes });
      }
    } catch (error) {
      if (!(error instanceof FailedAt)) throw error;
      const { plan } = reads[error.place] as { plan: TablePlan };
      throw isNoValue(error.cause)
        ? unknownKeys(plan, error.cause)
        : concerningTable(error.cause, tableLabel(plan));
    }
    return sum;
  }

  /**
   * Throws unless the tables are still what the snapshot saw and the plans were made from, and their deltas are all there.
   * It is asked after the last row was read; the locks of the reading are still held, so what the other session sees is
   * what was read. Resolves to whether the log was flushed up to `lsn` by then.
   */
  async #requireUndisturbed(
    header: BatchHeader,
    asked: Asked,
    lsn: string,
  ): Promise<FlushAnswer | undefined> {
    const relids = header.tables.map(({ plan }) => plan.relid);
    const outlines = header.tables.map(({ plan }) => plan.outline);
    await this.#noteUnknownPartitions(header);
    const [moved, [altered, lost, flushed]] = await Promise.all([
      relids.length === 0 ? [] : this.#reading.prepared<Moved>(MOVED_RELATIONS, [relids]),
      this.#control.together([
        { text: ALTERED_TABLES, values: [relids, outlines], prepared: true },
        readingGivenUp(asked.sync),
        askingForFlush(lsn),
      ]),
    ]);
    requireUnaltered(altered?.rows as Moved[]);
    this.#requireUnmoved(moved);
    requireDeltas(lost?.rows as GivenUp[], asked);
    return flushed;
  }

  #requireUnmoved(moved: readonly Moved[]): void {
    if (moved.length === 0) return;
    this.#inTheWay = moved.map((row) => row.relation);
    const names = this.#inTheWay.join(', ');
    throw new IbexError(
      'source_moved',
      `the file of ${names} changed while a batch was read; it is read again`,
    );
  }

  /** Before the batch can be applied it is durable that the table's partitions have to be looked at. */
  async #noteUnknownPartitions({ tables }: BatchHeader): Promise<void> {
    const partitioned = tables.filter(({ plan }) => !plan.only).map(({ plan }) => plan.relid);
    if (partitioned.length === 0) return;
    const unknown = await this.#reading.prepared<{ relid: number; leaf: number }>(UNKNOWN_PARTITIONS, [
      partitioned,
    ]);
    for (const { relid, leaf } of unknown) await noteSeenPartition(this.#control, relid, leaf);
  }
}

interface Moved {
  readonly relation: string;
}

function requireUnaltered(altered: readonly Moved[]): void {
  if (altered.length === 0) return;
  const names = altered.map((row) => row.relation).join(', ');
  throw new IbexError('source_moved', `the columns of ${names} changed while a batch was read`);
}

/**
 * Deltas that were given up are truncated, which is not MVCC-safe, and no more are noted: a batch must not end where some
 * are missing. The mark was there before either; the other session sees it also if our snapshot is older.
 */
function requireDeltas(lost: readonly GivenUp[], { tables }: Asked): void {
  const missed = lost.filter(({ relid }) => tables.some(({ plan }) => plan.relid === relid));
  if (missed.length === 0) return;
  const names = missed.map(tableLabel).join(', ');
  throw new IbexError('source_moved', `the deltas of ${names} were given up while a batch was read`);
}

/** Noted keys are not values of their type any more: a label of an enum was renamed, a domain has a new CHECK. */
function isNoValue(error: unknown): boolean {
  const state = serverError(error)?.state ?? '';
  return state.startsWith('22') || state === '23514';
}

async function pump(spool: Spool, writer: BatchWriter): Promise<void> {
  for await (const part of spool) await writer.write(part);
}
