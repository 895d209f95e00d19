/**
 * The backfill of a running sync, beside the lane: takes up tables that are not copied yet, hands their chunks to whoever
 * copies them, and lets tables join the lane whose chunks are all in. A table that cannot be copied waits with its
 * reason, and the others go on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { endForsakenBuilds, rebuildIndexes } from '../apply/rebuilding.ts';
import { requestCopy, setReason } from '../apply/state.ts';
import { copyJob, planBundles } from '../backfill/bundle.ts';
import { chunkSize } from '../backfill/chunks.ts';
import { endClaim } from '../backfill/claims.ts';
import { CHUNK_PATIENCE_MS } from '../backfill/copier.ts';
import { type Chunk, finishCopies } from '../backfill/progress.ts';
import {
  type CopyContext,
  type CopyTable,
  divide,
  replan,
  type TableCopy,
  takeUp,
} from '../backfill/starting.ts';
import { concerning, IbexError, isOfOneTable } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import type { ChunkJob, ChunkOutcome } from '../core/ports.ts';
import { tableIdent } from '../postgres/quote.ts';
import { reasonToHold } from '../setup/remedies.ts';
import type { Adopting } from './adopting.ts';
import { Batching } from './batching.ts';
import { Bell } from './bell.ts';
import { HandIn } from './hand-in.ts';
import type { IncarnationOptions } from './options.ts';
import type { Rooms } from './rooms.ts';
import type { Roster, RosterTable } from './roster.ts';

/** Pause between looks for tables that wait. */
const LOOK_MS = 100;
/** Tables that are taken up at once: small ones cost little more than the round trips of all of them. */
const TABLES_AT_ONCE = 100;
/** Tables under way that end within so many milliseconds are finished together; the longer while chunks are copied. */
const GATHER_MS = 50;
const GATHER_MORE_MS = 500;
/** Pause before chunks are tried again that another session had in hand. */
const AGAIN_MS = 250;
/** Chunks that nobody has from here, and that somebody has in hand for longer, are taken away from there. */
const STRAY_MS = 5_000;

interface Due extends CopyTable {
  readonly table: RosterTable;
}

/** What a round over the chunks of a table left to do. */
type LeftToDo = { readonly chunk: Chunk; readonly outcome: ChunkOutcome }[];

export class Copying {
  readonly #options: IncarnationOptions;
  readonly #rooms: Rooms;
  readonly #roster: Roster;
  readonly #adopting: Adopting;
  readonly #retryAt = new Map<number, number>();
  /** Tables under way, by the plans by which their chunks are copied. */
  readonly #active = new Map<number, TablePlan>();
  /** Tables whose rows are in the way of their own chunks: these are merged at once. */
  readonly #occupied = new Set<number>();
  /** Tables of which some chunks were in other hands, since when. */
  readonly #strayAt = new Map<number, number>();
  readonly #finishing: Batching<TableCopy, boolean | IbexError>;
  /** A chunk or a table is done with, or the roster has changed. */
  readonly #bell = new Bell();
  readonly #handIn: HandIn;
  #failure: { readonly error: unknown } | null = null;

  constructor(options: IncarnationOptions, rooms: Rooms, roster: Roster, adopting: Adopting) {
    this.#options = options;
    this.#rooms = rooms;
    this.#roster = roster;
    this.#adopting = adopting;
    this.#handIn = new HandIn(options, rooms, () => this.#bell.ring());
    roster.onChange = () => this.#bell.ring();
    this.#finishing = new Batching((copies) => this.#finish(copies), {
      everyMs: GATHER_MS,
      // While chunks are under way more comes soon, and each time all tables of the sync are gone through.
      atMostMs: (waiting) =>
        this.#handIn.jobs > 0 ? GATHER_MORE_MS : this.#active.size > waiting ? GATHER_MS : 0,
    });
  }

  /** Runs until the signal. Rejects with what does not concern a single table. */
  async run(signal: AbortSignal): Promise<void> {
    const { chunks, pairs } = this.#rooms;
    chunks.consume((job) => this.#copyJob(job, signal), this.#options.copying.jobs);
    try {
      await this.#asOne(({ target, sync }) => endForsakenBuilds(target, sync));
      while (!signal.aborted && this.#failure === null) {
        const goesOn = this.#rooms.brake.paused === null && !this.#handIn.isFull;
        const due = goesOn ? this.#due() : [];
        if (due.length > 0) await this.#takeUp(due, signal);
        else await this.#bell.rest(LOOK_MS, signal);
      }
    } finally {
      pairs.close();
      await chunks.close();
    }
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** Tables that can be taken up now. */
  #due(): Due[] {
    const { until } = this.#options;
    return this.#roster.tables
      .flatMap((table): Due[] => {
        const { relid, state, armed, plan, givenUp, carries: carried } = table;
        const waits = (state === 'pending' || state === 'copying') && givenUp === null;
        const due = waits && !this.#active.has(relid) && (this.#retryAt.get(relid) ?? 0) <= Date.now();
        const asked = (until.kind !== 'copied' || until.covers(table)) && this.#adopting.mayCopy(table);
        return due && asked && armed && plan !== null && carried !== null ? [{ table, plan, carried }] : [];
      })
      .slice(0, TABLES_AT_ONCE);
  }

  async #takeUp(due: readonly Due[], signal: AbortSignal): Promise<void> {
    for (const { plan } of due) this.#active.set(plan.relid, plan);
    const taken = await this.#asOne((context) => takeUp(context, due));
    const copies = new Map(taken.copies.map((copy) => [copy.plan.relid, copy]));
    const bundled = this.#runBundles(taken.copies, signal);
    for (const one of due) {
      const { relid } = one.plan;
      const error = taken.failed.get(relid);
      const copy = copies.get(relid);
      const work =
        error !== undefined
          ? this.#wait(one.table, error)
          : copy !== undefined
            ? this.#copy(one, copy, bundled.get(relid), signal)
            : this.#readStates();
      void this.#watch(relid, work);
    }
  }

  /** What the coordinator does itself, before chunks that wait. */
  #asOne<T>(work: (context: CopyContext) => Promise<T>): Promise<T> {
    const { sync, copying } = this.#options;
    const { pairs, lease, replica } = this.#rooms;
    const lane = { sync: sync.name, epoch: lease.epoch, origin: sync.source.name, replica };
    const how = { existing: copying.existing, chunkBytes: this.#chunkBytes };
    return pairs.use((pair) => work({ ...pair, ...lane, ...how }), 'urgent');
  }

  get #chunkBytes(): number {
    const { copying, rateLimit } = this.#options;
    return chunkSize(rateLimit === null ? null : rateLimit.bytesPerSecond / copying.jobs);
  }

  /** Takes note of how the work on a table ends; what does not concern it alone ends everything. */
  async #watch(relid: number, work: Promise<void>): Promise<void> {
    try {
      await work;
    } catch (error) {
      this.#failure ??= { error };
    }
    this.#active.delete(relid);
    this.#bell.ring();
  }

  /** Lest a table is taken up once more for a state in which it is no longer. */
  async #readStates(): Promise<void> {
    await this.#asOne(({ target }) => this.#roster.readStates(target));
  }

  /** Copies small tables together; resolves, for each, to whether it is copied. */
  #runBundles(copies: readonly TableCopy[], signal: AbortSignal): Map<number, Promise<boolean>> {
    const bundled = new Map<number, Promise<boolean>>();
    for (const bundle of planBundles(copies, this.#chunkBytes)) {
      const done = this.#runBundle(bundle, signal);
      for (const { plan } of bundle) bundled.set(plan.relid, done);
    }
    return bundled;
  }

  async #runBundle(bundle: readonly TableCopy[], signal: AbortSignal): Promise<boolean> {
    await this.#handIn.turn();
    if (signal.aborted) {
      this.#handIn.callNext();
      return false;
    }
    const outcomes = await this.#handIn.run(
      bundle.map(({ plan, chunks, divisible }) => ({
        plan,
        n: (chunks[0] as Chunk).n,
        direct: true,
        divisible,
      })),
    );
    return outcomes.every(({ result }) => result === 'copied');
  }

  /** One round over the chunks of a table; what is left after it is taken up again. `bundled`: it is tried with others first. */
  async #copy(
    { table, ...due }: Due,
    copy: TableCopy,
    bundled: Promise<boolean> | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await concerning(tableLabel(table), async () => {
        const left = (await bundled) === true ? [] : await this.#runChunks(copy, signal);
        if (signal.aborted) return;
        if (left.length > 0) return this.#answer(due, left);
        if (copy.aside) await this.#rebuild(table);
        const joined = await this.#finishing.add(copy);
        if (joined instanceof IbexError) throw joined;
        if (joined) this.#joined(table);
      });
    } catch (error) {
      if (signal.aborted || !(error instanceof IbexError)) throw error;
      await this.#wait(table, error);
    }
  }

  #joined({ relid, ...name }: RosterTable): void {
    const table = tableLabel(name);
    this.#occupied.delete(relid);
    this.#strayAt.delete(relid);
    this.#options.log.info({ table }, `${table} is copied`);
  }

  /** Hands in the chunks of a table; resolves once all of them are done with. */
  async #runChunks(copy: TableCopy, signal: AbortSignal): Promise<LeftToDo> {
    const { plan, chunks, divisible, found } = copy;
    const left: LeftToDo = [];
    let failure: { readonly error: unknown } | null = null;
    const running: Promise<void>[] = [];
    for (const chunk of chunks) {
      await this.#handIn.turn();
      if (signal.aborted || failure !== null) {
        this.#handIn.callNext();
        break;
      }
      const direct = copy.direct && !this.#occupied.has(plan.relid);
      const done = this.#handIn.run([{ plan, n: chunk.n, direct, divisible }]).then(
        ([outcome]) => {
          if (outcome === undefined) return;
          if (outcome.inTheWay && found !== 0) this.#occupied.add(plan.relid);
          if (outcome.result !== 'copied' && outcome.result !== 'gone') left.push({ chunk, outcome });
        },
        (error) => {
          failure ??= { error };
        },
      );
      running.push(done);
      if (!divisible) await done;
    }
    await Promise.all(running);
    if (failure !== null) throw (failure as { readonly error: unknown }).error;
    return left;
  }

  /** What the handler of jobs does in this process. */
  #copyJob(job: ChunkJob, signal: AbortSignal): Promise<ChunkOutcome[]> {
    const plans = job.chunks.flatMap(({ relid }) => this.#active.get(relid) ?? []);
    if (plans.length !== job.chunks.length)
      return Promise.resolve(job.chunks.map(() => ({ result: 'gone', rows: 0, bytes: 0, inTheWay: false })));
    const { sync, rateLimit } = this.#options;
    const { pairs, brake } = this.#rooms;
    const more = { origin: sync.source.name, patienceMs: CHUNK_PATIENCE_MS, rateLimit, signal };
    return brake.pace.within(signal, () => pairs.use((pair) => copyJob({ ...pair, ...more }, plans, job)));
  }

  /** Prepares the next round: plans anew what moved, divides what took too long. */
  async #answer(table: CopyTable, left: LeftToDo): Promise<void> {
    const moved = new Map(
      left.flatMap(({ chunk, outcome }) => (outcome.result === 'moved' ? [[chunk.relation, chunk]] : [])),
    );
    // Rows of the old file are there: what is read anew is merged with them, by the key's index.
    if (moved.size > 0) await this.#rebuild(table.plan);
    for (const chunk of moved.values()) {
      this.#occupied.add(table.plan.relid);
      await this.#asOne((context) => replan(context, table, chunk));
    }
    for (const { chunk, outcome } of left)
      if (outcome.result === 'slow') await this.#asOne((context) => divide(context, chunk));
    const again = left.filter(({ outcome }) => outcome.result === 'again').map(({ chunk }) => chunk);
    await this.#reclaim(table.plan.relid, again);
    if (again.length > 0) await sleep(AGAIN_MS);
  }

  /** No job for these chunks is under way: who has one in hand still is of another time, or stands still. */
  async #reclaim(relid: number, chunks: readonly Chunk[]): Promise<void> {
    const since = chunks.length === 0 ? undefined : (this.#strayAt.get(relid) ?? Date.now());
    if (since === undefined) this.#strayAt.delete(relid);
    else this.#strayAt.set(relid, since);
    if (since === undefined || Date.now() - since < STRAY_MS) return;
    for (const chunk of chunks) await this.#asOne((context) => endClaim(context, context.sync, chunk));
  }

  /** Builds the indexes that were set aside, beside whatever else is copied. */
  async #rebuild(table: TableName): Promise<void> {
    const { sync, log } = this.#options;
    const { pairs } = this.#rooms;
    const later = await rebuildIndexes(sync.name, table, (work) => pairs.use(({ target }) => work(target)));
    for (const { message, hint } of later) log.warn({ table: tableLabel(table) }, `${message} (${hint})`);
  }

  /** Lets tables join the lane; false for one that has to be taken up again, or was called off. */
  async #finish(copies: readonly TableCopy[]): Promise<(boolean | IbexError)[]> {
    try {
      const joined = await this.#asOne((context) => this.#finishTogether(context, copies));
      return copies.map(({ plan }) => joined.has(plan.relid));
    } catch (error) {
      if (!(error instanceof IbexError)) throw error;
      if (copies.length === 1) return [error];
    }
    // Whose fault it was shows when each is finished by itself.
    const results: (boolean | IbexError)[] = [];
    for (const copy of copies) results.push(...(await this.#finish([copy])));
    return results;
  }

  async #finishTogether(
    { target, sync, epoch }: CopyContext,
    copies: readonly TableCopy[],
  ): Promise<Set<number>> {
    const analyzed = copies.filter((copy) => copy.whole && !copy.small).map(({ plan }) => tableIdent(plan));
    if (analyzed.length > 0) await target.run(`analyze ${analyzed.join(', ')}`);
    // Foreign keys of the tables may have been parked: what the applier knows of them is out of date.
    this.#rooms.applier.forgetCatalog();
    const relids = copies.map(({ plan }) => plan.relid);
    const joined = await finishCopies(target, { sync, epoch }, relids);
    failpoint('after-hand-over');
    this.#roster.settle(joined);
    await this.#roster.readStates(target);
    this.#rooms.lane.wake();
    return joined;
  }

  /** A table cannot be copied for now, and says why; or has to be copied from the start. */
  async #wait(table: RosterTable, error: IbexError): Promise<void> {
    const { sync, log, pauses } = this.#options;
    const label = tableLabel(table);
    if (!isOfOneTable(error)) throw error;
    await this.#asOne(async ({ source, target }) => {
      if (error.kind === 'recopy') {
        log.warn({ table: label }, `${error.message} (${error.hint})`);
        return requestCopy(target, sync.name, table.relid, true, null);
      }
      const reason = await reasonToHold(source, target, table, error);
      log.warn({ table: label }, `${label} waits: ${reason}`);
      this.#retryAt.set(table.relid, Date.now() + pauses.copy);
      return setReason(target, sync.name, table.relid, reason);
    });
    await this.#readStates();
    this.#rooms.news.ring();
  }
}
