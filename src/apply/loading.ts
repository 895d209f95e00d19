/**
 * Loads what a batch brings into the staging tables: a small batch in one go, once all of it is there, and a larger one as
 * it comes. A large table is handed over in slices, so that they can be merged while the source still reads the rest.
 */
import type { BatchPart, BatchTable } from '../core/batch.ts';
import { concerningTable } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { IncomingBatch } from '../core/ports.ts';
import type { CopyIn } from '../postgres/copy.ts';
import { COPY_END, COPY_HEADER, RowEnds } from '../postgres/copy-rows.ts';
import type { Session } from '../postgres/session.ts';
import { type Counts, comesInSlices, countStaged, countsOf } from './slices.ts';
import { countStage, loadStage } from './statements.ts';

/** Bytes of a slice, about. Small enough that both servers soon have work, large enough for a few thousand rows. */
const SLICE_BYTES = 1024 * 1024;
/** Bytes up to which a batch is small. */
const SMALL_BYTES = 256 * 1024;

export interface Loading {
  readonly session: Session;
  /** Makes the staging table, where there is none yet. */
  readonly prepare: (plan: TablePlan) => Promise<void>;
  /** Called between two rows of a table, when a slice is staged. False: no more slices of it are wanted. */
  readonly onSlice: (table: BatchTable) => Promise<boolean>;
}

/** Resolves to what is staged of the tables of which anything came, by their oids on the source. */
export async function load(batch: IncomingBatch, loading: Loading): Promise<ReadonlyMap<number, Counts>> {
  const { tables } = batch.header;
  const parts = batch.parts()[Symbol.asyncIterator]();
  const first: BatchPart[] = [];
  for (let bytes = 0; bytes <= SMALL_BYTES; ) {
    const next = await parts.next();
    if (next.done) return loadTogether(tables, first, loading);
    first.push(next.value);
    bytes += next.value.bytes.length;
  }
  return loadAsItComes(tables, follow(first, parts), loading);
}

async function* follow(
  first: readonly BatchPart[],
  rest: AsyncIterator<BatchPart>,
): AsyncGenerator<BatchPart> {
  yield* first;
  yield* { [Symbol.asyncIterator]: () => rest };
}

async function loadTogether(
  tables: readonly BatchTable[],
  parts: readonly BatchPart[],
  { session, prepare }: Loading,
): Promise<ReadonlyMap<number, Counts>> {
  const indexes = [...new Set(parts.map(({ table }) => table))];
  if (indexes.length === 0) return new Map();
  const plans = indexes.map((index) => (tables[index] as BatchTable).plan);
  for (const plan of plans) await prepare(plan);
  const loads = indexes.map((index, i) => ({
    statement: loadStage(plans[i] as TablePlan),
    parts: parts.filter(({ table }) => table === index).map(({ bytes }) => bytes),
    table: tableLabel(plans[i] as TablePlan),
  }));
  const answers = await session.load(loads, plans.map(countStage));
  return new Map(plans.map(({ relid }, i) => [relid, countsOf(answers[plans.length + i]?.rows[0])]));
}

async function loadAsItComes(
  tables: readonly BatchTable[],
  parts: AsyncIterable<BatchPart>,
  loading: Loading,
): Promise<ReadonlyMap<number, Counts>> {
  const loaded: TablePlan[] = [];
  let current: { readonly index: number; readonly table: BatchTable; readonly load: TableLoad } | undefined;
  try {
    for await (const { table: index, bytes } of parts) {
      if (current?.index !== index) {
        await current?.load.end();
        current = undefined;
        const table = tables[index] as BatchTable;
        await loading.prepare(table.plan);
        loaded.push(table.plan);
        current = { index, table, load: new TableLoad(table, loading) };
      }
      await current.load.write(bytes);
    }
    await current?.load.end();
  } catch (error) {
    await current?.load.fail(error as Error);
    // What the server says of a value, such as a character that its encoding lacks, concerns its table alone.
    throw current === undefined ? error : concerningTable(error, tableLabel(current.table.plan));
  }
  const counts = new Map<number, Counts>();
  for (const plan of loaded) counts.set(plan.relid, await countStaged(loading.session, plan));
  return counts;
}

class TableLoad {
  readonly #table: BatchTable;
  readonly #loading: Loading;
  /** Null while a slice is handed over. */
  #copy: CopyIn | null;
  /** Null once no more slices are wanted. */
  #ends: RowEnds | null;
  #bytes = 0;

  constructor(table: BatchTable, loading: Loading) {
    this.#table = table;
    this.#loading = loading;
    this.#ends = comesInSlices(table) ? new RowEnds() : null;
    this.#copy = this.#begin();
  }

  async write(bytes: Buffer): Promise<void> {
    const end = this.#ends?.lastIn(bytes) ?? 0;
    this.#bytes += bytes.length;
    if (this.#bytes < SLICE_BYTES || end === 0) return this.#copy?.write(bytes);
    await this.#copy?.write(bytes.subarray(0, end));
    await this.#copy?.write(COPY_END);
    await this.end();
    if (!(await this.#loading.onSlice(this.#table))) this.#ends = null;
    this.#bytes = bytes.length - end;
    this.#copy = this.#begin();
    await this.#copy.write(COPY_HEADER);
    await this.#copy.write(bytes.subarray(end));
  }

  async end(): Promise<void> {
    const copy = this.#copy;
    this.#copy = null;
    await copy?.end();
  }

  async fail(reason: Error): Promise<void> {
    await this.#copy?.fail(reason).catch(() => undefined);
  }

  #begin(): CopyIn {
    return this.#loading.session.copyIn(loadStage(this.#table.plan));
  }
}
