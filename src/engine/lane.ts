/**
 * The ordered flow of one sync: cut a batch, hand it to the queue, let it be applied, move on. Reads ahead of the
 * applier by at most one batch. Owns no truth: when anything fails it is thrown away and a new lane starts at the
 * checkpoint.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ReadTable } from '../capture/trigger/cut.ts';
import type { DeltaReader } from '../capture/trigger/reader.ts';
import { IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import type { BatchOutcome } from '../core/ports.ts';
import type { Snapshot } from '../core/position.ts';
import { Bell } from './bell.ts';
import type { RosterTable } from './roster.ts';
import type { Staging, StagingProgress } from './staging.ts';

/** Batches read and not yet applied. Two overlap reading with applying; more would only age in the queue. */
const AHEAD = 2;
/** Pauses between looks at the source that find nothing, in milliseconds: ever longer, up to the last. */
const PAUSE_MIN = 4;
const PAUSE_MAX = 100;
/**
 * After a batch the lane rests, within the same bounds: as long as reading it took where that was so many milliseconds, by its
 * square: shorter where it went quickly, longer where it did not. A batch costs both servers more than what is in it, most of
 * all where they have no time left: there fewer and larger ones leave it to the application.
 */
const EVEN = 40;
/** The pause before it is seen that a paused lane may go on, which asks nobody. */
const PAUSED = 20;
/** A checkpoint that has nothing to carry still moves this often, so that reading stays short and deltas go. */
const EMPTY_BATCH_EVERY_MS = 10_000;

export interface LaneOptions {
  readonly sync: string;
  readonly epoch: number;
  readonly start: Snapshot;
  /** The lane of the other direction, where the target is written too; else null. */
  readonly counterpart: string | null;
  /** Others write the target: nothing is staged in pieces. */
  readonly shared: boolean;
  readonly reader: DeltaReader;
  /** The tables as they stand; asked before each batch. */
  readonly roster: () => readonly RosterTable[];
  /** Whether a held table is to be tried again. */
  readonly isDue: (table: RosterTable) => boolean;
  /** Nothing is read meanwhile. */
  readonly isPaused: () => boolean;
  /** Large backlogs, as far as they are staged. */
  readonly staging: Staging;
  /** `joined`: tables came into step with it. */
  readonly onApplied: (position: Snapshot, joined: boolean) => void;
  /** How far the staging of a table is; null once a batch has it. */
  readonly onStaged: (plan: TablePlan, progress: StagingProgress | null) => void;
}

export class Lane {
  readonly #options: LaneOptions;
  /** Tables that this lane reads, each with the floor from which it took it; `taken` once a batch has it. */
  readonly #tables = new Map<number, { readonly floor: Snapshot | null; taken: boolean }>();
  readonly #pending: Promise<BatchOutcome>[] = [];
  #position: Snapshot;
  #seen: Snapshot | null = null;
  /** The roster when it was last gone through and no table waited to join. */
  #quietRoster: readonly RosterTable[] | null = null;
  #batches = 0;
  #lastPublished = Date.now();
  #flush = false;
  readonly #bell = new Bell();
  /** The last look published a batch: more is likely to have come since. */
  #carried = false;
  /** The last pause between looks that found nothing, in milliseconds; 0 after one that did. */
  #idlePause = 0;
  /** The look at the source that is under way, and what is done before the next one. */
  #looking: Promise<unknown> = Promise.resolve();
  #resting: Promise<unknown> = Promise.resolve();

  constructor(options: LaneOptions) {
    this.#options = options;
    this.#position = options.start;
  }

  /** Where reading has come to; the applier may be up to two batches behind. */
  get position(): Snapshot {
    return this.#position;
  }

  /** Moves the checkpoint to the source's present even when there is nothing to carry. */
  flush(): void {
    this.#flush = true;
    this.wake();
  }

  /** There may be something to carry: looks at once, or once more after the look that is under way. */
  wake(): void {
    this.#bell.ring();
  }

  /**
   * Does something between two looks at the source; the next one waits for it. Not at all when the look that is under way
   * takes longer than `withinMs`. Errors: those of the work.
   */
  async rest(withinMs: number, work: () => Promise<void>): Promise<void> {
    const looked = this.#looking.then(
      () => true,
      () => true,
    );
    if (!(await Promise.race([looked, sleep(withinMs, false, { ref: false })]))) return;
    const rested = work();
    this.#resting = rested.catch(() => undefined);
    await rested;
  }

  /** Runs until the signal; throws what reading or applying threw. */
  async run(signal: AbortSignal): Promise<void> {
    let failure: unknown;
    const failed = (error: unknown) => {
      failure ??= error;
    };
    while (!signal.aborted) {
      if (failure !== undefined) throw failure;
      await this.#resting;
      const heard = this.#bell.rung;
      const paused = this.#options.isPaused();
      const began = performance.now();
      this.#carried = !paused && (await this.#look(failed));
      const pause = paused ? PAUSED : this.#pauseAfter(performance.now() - began);
      await this.#bell.rest(pause, signal, heard);
    }
    // A clean stop lets what is in the queue arrive.
    await Promise.all([...this.#pending]);
  }

  /** In milliseconds, after a look that took so many. */
  #pauseAfter(lookedMs: number): number {
    this.#idlePause = this.#carried ? 0 : Math.max(PAUSE_MIN, this.#idlePause * 1.5);
    const rest = Math.max(PAUSE_MIN, lookedMs ** 2 / EVEN);
    return Math.min(PAUSE_MAX, this.#carried ? rest : this.#idlePause);
  }

  #look(failed: (error: unknown) => void): Promise<boolean> {
    const look = this.#step(failed);
    this.#looking = look;
    return look;
  }

  /** One look at the source; true when a batch was published. */
  async #step(failed: (error: unknown) => void): Promise<boolean> {
    const { reader, sync, epoch, counterpart } = this.#options;
    const roster = this.#options.roster();
    const late = this.#flush || Date.now() - this.#lastPublished > EMPTY_BATCH_EVERY_MS;
    const asksFirst = !late && !this.#carried;
    // With nothing new on either side there is nothing to go through: most looks of an idle daemon end here.
    const isQuiet = roster === this.#quietRoster;
    if (asksFirst && isQuiet && (await reader.peek()) === this.#seen) return false;
    const tables = this.#tablesToRead(roster);
    const unfinished = this.#options.staging.unfinished(tables);
    if (unfinished !== undefined) return this.#stage(unfinished, failed);
    const joins = tables.some((table) => table.floor !== null);
    this.#quietRoster = joins ? null : roster;
    const evenIfEmpty = joins || late;
    if (asksFirst && !joins && !isQuiet && (await reader.peek()) === this.#seen) return false;
    const id = await this.#nextId();
    const from = this.#position;
    const result = await reader.read({ sync, epoch, id, from, tables, counterpart, evenIfEmpty });
    for (const plan of result.spoiled) this.#options.staging.spoil(plan);
    for (const part of result.large) this.#options.staging.begin(part, this.#lowerOf(part.plan.relid));
    // Nothing is read of it yet: that is for the next steps.
    if (result.spoiled.length > 0 || result.large.length > 0) return true;
    this.#seen = result.to;
    if (result.published === null) return false;
    this.#flush = false;
    this.#lastPublished = Date.now();
    this.#position = result.to;
    for (const { plan } of tables) this.#markTaken(plan.relid);
    this.#await(result.published.applied, failed, joins);
    const staged = result.published.header.tables.filter((table) => table.staged !== undefined);
    for (const { plan } of staged) this.#options.onStaged(plan, null);
    this.#options.staging.taken(result.published.header.tables.map(({ plan }) => plan));
    return result.published.header.tables.length > 0;
  }

  /** Reads one piece of a large backlog; the batch that takes it in follows the last one through the queue. */
  async #stage({ plan, floor }: ReadTable, failed: (error: unknown) => void): Promise<boolean> {
    const { reader, sync, epoch, staging, onStaged } = this.#options;
    const piece = await staging.next(plan, () => reader.deltaFiles(plan.relid));
    if (piece !== undefined) {
      const id = await this.#nextId();
      const table = { plan, floor };
      const { applied, bytes } = await reader.readPiece({
        sync,
        epoch,
        id,
        from: this.#position,
        table,
        piece,
      });
      this.#await(applied, failed, false);
      staging.took(plan, piece, bytes);
    }
    const progress = staging.progressOf(plan);
    if (progress !== null) onStaged(plan, progress);
    return true;
  }

  /** The id of the next batch, once there is room for it. */
  async #nextId(): Promise<string> {
    while (this.#pending.length >= AHEAD) await this.#pending[0];
    return `${this.#options.epoch}-${++this.#batches}`;
  }

  #await(applied: Promise<BatchOutcome>, failed: (error: unknown) => void, joins: boolean): void {
    const settled = applied.then((outcome) => {
      this.#pending.splice(this.#pending.indexOf(settled), 1);
      this.#options.onApplied(outcome.position, joins);
      return outcome;
    });
    this.#pending.push(settled);
    settled.catch(failed);
  }

  /**
   * What the next batch reads. A table keeps the lower bound with which it came until a batch has taken it; from
   * then on it goes with the lane, although the target's record still says otherwise until that batch is applied.
   */
  #tablesToRead(roster: readonly RosterTable[]): ReadTable[] {
    const present = new Set(roster.map((table) => table.relid));
    for (const relid of [...this.#tables.keys()]) if (!present.has(relid)) this.#tables.delete(relid);
    const tables: ReadTable[] = [];
    for (const table of roster) {
      const entry = this.#enter(table);
      if (entry === undefined) continue;
      requireFit(table);
      if (table.plan === null) continue;
      const staging = this.#stagingOf(table.plan);
      const floor = entry.taken ? null : entry.floor;
      tables.push({ plan: table.plan, floor, ...(staging === undefined ? {} : { staging }) });
    }
    return tables;
  }

  /**
   * Where the target is written too nothing is staged in pieces: between a piece and its batch the other lane may write
   * what the piece does not have, and no delta would bring it. Nor with a guard: pieces do not keep when a key was changed.
   */
  #stagingOf(plan: TablePlan) {
    if (this.#options.shared) return undefined;
    return this.#options.staging.describe(plan, this.#lowerOf(plan.relid));
  }

  #enter(table: RosterTable) {
    const known = this.#tables.get(table.relid);
    const again =
      table.state === 'held' && table.floor !== null && (known !== undefined || this.#options.isDue(table));
    if (table.state !== 'streaming' && table.state !== 'joining' && !again) {
      this.#tables.delete(table.relid);
      return undefined;
    }
    const sameCopy = known !== undefined && (table.state === 'streaming' || table.floor === known.floor);
    if (sameCopy) return known;
    const entry = { floor: table.state === 'streaming' ? null : table.floor, taken: false };
    this.#tables.set(table.relid, entry);
    return entry;
  }

  /** The position from which a table is read. */
  #lowerOf(relid: number): Snapshot {
    const entry = this.#tables.get(relid);
    return entry === undefined || entry.taken ? this.#position : (entry.floor ?? this.#position);
  }

  #markTaken(relid: number): void {
    const entry = this.#tables.get(relid);
    if (entry !== undefined) entry.taken = true;
  }
}

/**
 * A table in step that has no plan any more, or another one than its rows on the target stand for, must not be passed
 * over: the lane ends, and what it means is decided before the next one starts.
 */
function requireFit(table: RosterTable): void {
  const fits = table.fit === null || table.fit.kind === 'same';
  if (table.plan === null ? table.state === 'held' : fits) return;
  throw new IbexError('source_moved', `${tableLabel(table)} was altered: the lane starts anew`);
}
