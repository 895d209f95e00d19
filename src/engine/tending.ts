/**
 * Looks after everything of a running sync that is not the flow itself: arms what is not armed, answers DDL, puts
 * indexes and foreign keys back, keeps the source small, and sees when a run has come to its end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ParkedObject, parkTriggersAndRules, readParked } from '../apply/parking.ts';
import { isContradicted, lackingFor, noteReason, restoreParked } from '../apply/restoring.ts';
import { setReason, setReasons } from '../apply/state.ts';
import { noteTrouble } from '../apply/trouble.ts';
import { WAITS_FOR_LOCK, type Waiting } from '../capture/trigger/arming.ts';
import { moveWitness, readRegistered, readSnapshot } from '../capture/trigger/registry.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { tableLabel } from '../core/plan.ts';
import { covers, type Snapshot } from '../core/position.ts';
import type { TableInfo } from '../core/table.ts';
import { readTables } from '../postgres/catalog.ts';
import { isRefusal } from '../setup/refusal.ts';
import { reasonToHold } from '../setup/remedies.ts';
import { armAll } from '../setup/setup.ts';
import { answerDrift } from './drift.ts';
import { keepSmall, LOOK_MS, tellSource } from './keeper.ts';
import { type IncarnationOptions, NOTHING_LEFT, type RunOutcome } from './options.ts';
import { readAdmissible } from './partitions.ts';
import { RivalryWatch } from './rivalry-watch.ts';
import type { Rooms } from './rooms.ts';
import { isHeld, type Roster } from './roster.ts';
import { faultText, SequenceCarrier } from './sequences.ts';

/** Pause between rounds; shorter in a run that is to end soon, unless a round itself takes long. News ends it. */
const ROUND_MS = 1_000;
const SHORT_ROUND_MS = 200;
/** Whether a paused sync is to go on is looked at more often than that: somebody waits for it. */
const RESUME_MS = 50;
/** The source is looked over no more often than this, and at most in this part of the time: thousands of tables take a while. */
const WATCH_MS = 500;
const WATCH_SHARE = 1 / 10;
/** The witness moves no more often than this, and only while others write. */
const WITNESS_MS = 10_000;
/** Sequences are looked at no more often than this; `core/sequence.ts` leaves a margin for as long. */
const SEQUENCES_MS = 10_000;
/** Rows that contradict a foreign key are looked at no more often than this, and those that contradict an index. */
const CONTRADICTED_MS = { foreign_key: 10_000, index: 60_000 };
/** An object for which there was no room is tried again no more often than this. */
const NO_ROOM_MS = 15_000;
/** A lane that has run for so long is not thrown back by what threw it back before. */
const TROUBLE_OVER_MS = 10_000;

export class Tending {
  readonly #options: IncarnationOptions;
  readonly #rooms: Rooms;
  readonly #roster: Roster;
  readonly #applied: () => Snapshot;
  /** How long the last look at the source only waited, for the lane and for others. */
  #waitedMs = 0;
  #watchAt = 0;
  #witnessAt = 0;
  /** The source's snapshot when it was last looked over. */
  #seen: Snapshot | null = null;
  /** When a foreign key or index that rows contradict is looked at again: each look may read the whole table. */
  readonly #contradicted = new Map<string, number>();
  /** Tables whose DDL waits for a lock of others, which has been said. */
  #postponed: ReadonlySet<string> = new Set();
  readonly #bornAt = Date.now();
  /** What was noted of trouble is over. */
  #settled = false;
  /** Tables were missing on the source's side when it was last looked over. */
  #missing = false;
  /** Indexes and foreign keys that can come back and have not yet. */
  #restorable = 0;
  readonly #sequences = new SequenceCarrier();
  #sequencesAt = 0;
  readonly #rivalry: RivalryWatch;
  /** What was said about sequences that cannot be carried. */
  readonly #said = new Set<string>();

  constructor(options: IncarnationOptions, rooms: Rooms, roster: Roster, applied: () => Snapshot) {
    this.#options = options;
    this.#rooms = rooms;
    this.#roster = roster;
    this.#applied = applied;
    this.#rivalry = new RivalryWatch(options);
  }

  /** Runs until the signal, or until the run has come to its end. */
  async run(signal: AbortSignal): Promise<RunOutcome> {
    const { until } = this.#options;
    for (;;) {
      if (signal.aborted) return NOTHING_LEFT;
      const began = Date.now();
      const heard = this.#rooms.news.rung;
      await this.#rooms.brake.lookAtRecord(this.#rooms.target);
      if (!(await this.#roster.readStates(this.#rooms.target))) await this.#takeIn();
      await this.#watchLoad();
      await this.#settleTrouble();
      await this.#explain();
      this.#countStates();
      await this.#rooms.merges.tell(this.#rooms.target);
      await this.#armWaiting();
      await this.#restoreParked();
      if (Date.now() >= this.#watchAt) await this.#watchSource();
      await this.#watchDisk();
      await this.#watchTarget();
      await this.#rivalry.look(this.#rooms.source, this.#rooms.target, this.#roster.tables);
      const outcome = this.#outcome();
      if (outcome !== null || Date.now() - this.#sequencesAt >= SEQUENCES_MS) {
        await this.#carrySequences(outcome === null ? 0 : SEQUENCES_MS, signal);
      }
      if (outcome !== null) return outcome;
      if (until.kind === 'caught-up') this.#rooms.lane.flush();
      const soon = Math.min(ROUND_MS, Math.max(SHORT_ROUND_MS, 2 * (Date.now() - began)));
      await this.#rest(until.kind === 'forever' ? ROUND_MS : soon, signal, heard);
    }
  }

  /** Until the next round, until there is news beyond what was heard, or until a paused sync is to go on. */
  async #rest(ms: number, signal: AbortSignal, heard: number): Promise<void> {
    const { brake, target, news } = this.#rooms;
    const pause = (part: number) => sleep(part, undefined, { signal }).catch(() => undefined);
    if (brake.paused === null) return news.rest(ms, signal, heard);
    for (let rested = 0; rested < ms && brake.paused !== null && !signal.aborted; rested += RESUME_MS) {
      await pause(RESUME_MS);
      await brake.lookAtRecord(target);
    }
  }

  /** What threw the lane back before is over once it has run for a while. */
  async #settleTrouble(): Promise<void> {
    if (this.#settled || Date.now() - this.#bornAt < TROUBLE_OVER_MS) return;
    this.#settled = true;
    await noteTrouble(this.#rooms.target, this.#options.sync.name, null);
  }

  /** What the run has come to; null while it is to go on. A paused sync does not get any further. */
  #outcome(): RunOutcome | null {
    const { until } = this.#options;
    if (until.kind === 'forever') return null;
    const chosen = this.#roster.tables.filter(
      (table) => table.state !== 'dropped' && (until.kind === 'caught-up' || until.covers(table)),
    );
    const held = chosen.filter(isHeld);
    const waiting = chosen.filter((table) => table.state !== 'streaming' && !held.includes(table));
    const behind = until.kind === 'caught-up' && !covers(this.#applied(), this.#rooms.goal);
    const done = waiting.length === 0 && this.#restorable === 0 && !behind;
    const { paused: since } = this.#rooms.brake;
    if (!done && since === null) return null;
    return {
      held: held.map((table) => ({ table: tableLabel(table), reason: table.reason ?? '' })),
      paused: done || since === null ? [] : [{ sync: this.#options.sync.name, since }],
    };
  }

  #countStates(): void {
    const { sync, metrics } = this.#options;
    for (const state of ['pending', 'copying', 'joining', 'streaming', 'held', 'dropped']) {
      const count = this.#roster.tables.filter((table) => table.state === state).length;
      metrics.tables.set({ sync: sync.name, state }, count);
    }
    metrics.queueBytes.set({ sync: sync.name }, this.#rooms.queue.bytes());
    const { brake } = this.#rooms;
    metrics.paused.set({ sync: sync.name }, brake.paused === null ? 0 : 1);
    metrics.slowed.set({ sync: sync.name }, brake.busy === null ? 0 : 1);
  }

  /** Tables that others had locked are tried again; which, and by whom, is what `status` shows as their reason. */
  async #armWaiting(): Promise<void> {
    const { sync, lockTimeoutMs, log } = this.#options;
    const { source, target } = this.#rooms;
    const unarmed = this.#roster.tables.filter(
      ({ named, armed, givenUp, plan, stale }) =>
        named !== null && !armed && givenUp === null && (plan !== null || stale),
    );
    if (unarmed.length === 0) return;
    const relids = unarmed.map((table) => table.relid);
    const waiting = await armAll(source, sync.name, relids, lockTimeoutMs);
    const reasons = new Map<number, string | null>();
    for (const { relid, plan, reason: before } of unarmed) {
      const reason = waitingReason(waiting.get(relid) ?? []);
      if (reason !== null && !before?.startsWith(WAITS_FOR_LOCK)) log.warn(reason);
      // What keeps it from having a plan is the more important reason.
      if (plan !== null) reasons.set(relid, reason);
    }
    await setReasons(target, sync.name, reasons);
    await this.#roster.refresh(source, target);
  }

  /** Foreign keys of the target come back once both their tables are in step, after the indexes that are left. */
  async #restoreParked(): Promise<void> {
    const outOfStep = new Set(
      this.#roster.tables
        .filter((table) => table.state !== 'streaming' && table.state !== 'dropped')
        .map(tableLabel),
    );
    const parked = await readParked(this.#rooms.target, this.#options.sync.name);
    const ready = parked.filter(
      ({ kind, root, referenced }) =>
        (kind === 'index' || kind === 'foreign_key') &&
        !outOfStep.has(tableLabel(root)) &&
        !outOfStep.has(referenced ?? ''),
    );
    const left: ParkedObject[] = [];
    this.#restorable = 0;
    for (const object of ready) {
      const now = (this.#contradicted.get(keyOf(object)) ?? 0) <= Date.now();
      const back = now && lackingFor(object, left) === undefined && (await this.#restore(object));
      if (!back) left.push(object);
    }
  }

  /** False when it is not back yet. */
  async #restore(object: ParkedObject): Promise<boolean> {
    const { sync, log } = this.#options;
    const [table, kind] = [tableLabel(object), object.kind.replace('_', ' ')];
    try {
      await restoreParked(this.#rooms.target, sync.name, object);
      this.#rooms.applier.forgetCatalog();
      log.info({ table }, `${kind} ${object.object} is back`);
      return true;
    } catch (error) {
      const passes = isKind(error, 'lock') || isKind(error, 'transient') || isKind(error, 'server_fault');
      const full = isKind(error, 'resources');
      if (
        !passes &&
        !full &&
        !(isContradicted(error) && (object.kind === 'index' || error.kind === 'constraint'))
      )
        throw error;
      log.warn({ table }, `${error.message} (${error.hint})`);
      await noteReason(this.#rooms.target, sync.name, object, error.message);
      if (passes) this.#restorable++;
      else
        this.#contradicted.set(
          keyOf(object),
          Date.now() + (full ? NO_ROOM_MS : CONTRADICTED_MS[object.kind as 'index']),
        );
      return false;
    }
  }

  /**
   * That the source still notes for this sync what is carried: somebody may have taken a table's registration away.
   * One that is just being taken out of the sync is gone from the roster at the second look.
   */
  async #requireRegistered(): Promise<void> {
    const captured = this.#roster.tables.filter(({ named, state }) => named !== null && state !== 'dropped');
    const registered = new Set(await readRegistered(this.#rooms.source, this.#options.sync.name));
    const missing = captured.filter(({ relid }) => !registered.has(relid)).map(tableLabel);
    if (missing.length === 0) this.#missing = false;
    else if (this.#missing) {
      throw new IbexError('source_moved', `${missing.join(', ')} is not noted on the source any more`);
    } else {
      this.#missing = true;
      this.#seen = null;
    }
  }

  /** DDL on the target: tables may fit there now, or fit no longer. */
  async #watchTarget(): Promise<void> {
    const altered = await this.#rooms.watch.look(this.#rooms.target);
    for (const table of altered) this.#options.tryAgain(table);
    if (altered.length === 0) return;
    const message = `${altered.join(', ')} changed on the target: the lane starts anew`;
    throw new IbexError('source_moved', message);
  }

  /** Tables that somebody added to the sync. */
  async #takeIn(): Promise<void> {
    const { source, target, replica } = this.#rooms;
    const known = new Set(this.#roster.tables.map((table) => table.relid));
    await this.#roster.refresh(source, target);
    const added = this.#roster.tables.filter((table) => !known.has(table.relid) && table.plan !== null);
    const { name: sync, rivalry } = this.#options.sync;
    if (rivalry === null) await parkTriggersAndRules(target, sync, added, replica);
    for (const table of added)
      this.#options.log.info({ table: tableLabel(table) }, `${tableLabel(table)} was added`);
  }

  async #watchLoad(): Promise<void> {
    const { brake, source, target } = this.#rooms;
    const copies = this.#roster.tables.some(({ state }) => state === 'pending' || state === 'copying');
    await brake.lookAtSource(source, target, copies);
  }

  /**
   * Those that others have locked are tried again for so many milliseconds, and then at the next look. Where both sides are
   * written each draws from its own: carried both ways they would run ahead of each other for ever.
   */
  async #carrySequences(patienceMs: number, signal: AbortSignal): Promise<void> {
    if (this.#options.sync.rivalry !== null) return;
    const { source, target } = this.#rooms;
    const tables = this.#roster.tables
      .filter(({ state }) => state !== 'dropped')
      .map((table) => ({ source: table.named ?? table, target: table }));
    const limits = { deadline: Date.now() + patienceMs, signal };
    const { locked, faults } = await this.#sequences.carry(source, target, tables, limits);
    const waiting = patienceMs > 0 ? locked.map((one) => `sequence ${one} is not carried: it is locked`) : [];
    for (const sentence of [...faults.map(faultText), ...waiting]) {
      if (!this.#said.has(sentence)) this.#options.log.warn(sentence);
      this.#said.add(sentence);
    }
    this.#sequencesAt = Date.now();
  }

  /** Says why a table cannot be copied that was added, or is to be copied again, while its lane runs. */
  async #explain(): Promise<void> {
    const { source, target } = this.#rooms;
    for (const table of this.#roster.tables) {
      if (table.state !== 'pending' || table.reason !== null || table.obstacle === null) continue;
      const reason = await reasonToHold(source, target, table, table.obstacle);
      await setReason(target, this.#options.sync.name, table.relid, reason);
    }
  }

  /** DDL and retained deltas; both need somebody to have committed something on the source. */
  async #watchSource(): Promise<void> {
    const began = Date.now();
    this.#waitedMs = 0;
    try {
      await this.#lookOverSource();
    } finally {
      const now = Date.now();
      this.#watchAt = now + Math.max(WATCH_MS, (now - began - this.#waitedMs) / WATCH_SHARE);
    }
  }

  async #lookOverSource(): Promise<void> {
    const { sync, log, lockTimeoutMs } = this.#options;
    const { source, target } = this.#rooms;
    const now = await readSnapshot(source);
    if (now === this.#seen) return;
    this.#seen = now;
    // A table that waits has no plan: whatever is altered may be what it waits for.
    const outlines = new Map(this.#roster.tables.map(({ relid, plan }) => [relid, plan?.outline ?? null]));
    const reports = await answerDrift({ source, target, sync: sync.name, lockTimeoutMs, outlines });
    for (const { table, what, again } of reports) {
      if (!again || !this.#postponed.has(table)) log.warn({ table }, `${table}: ${what}`);
      this.#options.tryAgain(table);
    }
    this.#postponed = new Set(reports.filter(({ again }) => again).map(({ table }) => table));
    if (this.#postponed.size > 0) this.#seen = null;
    if (reports.some((report) => report.replan)) {
      throw new IbexError('source_moved', 'the catalogs of the source changed: the lane starts anew');
    }
    // Others wait for the target, which has a watch of its own.
    const refused = this.#roster.tables.filter(({ named, reason }) => named === null && isRefusal(reason));
    const relids = refused.map(({ relid }) => relid);
    if ((await readAdmissible(source, relids)).length > 0) {
      throw new IbexError(
        'source_moved',
        'a table that was refused can be carried now: the lane starts anew',
      );
    }
    await this.#requireRegistered();
    const dropped = this.#roster.tables.filter(({ state }) => state === 'dropped');
    if (dropped.length > 0 && (await readTables(source, dropped)).some(isTable)) {
      throw new IbexError('source_moved', 'a table that was dropped was created again: the lane starts anew');
    }
    const atRest = async (work: () => Promise<void>) => {
      const from = Date.now();
      await this.#rooms.lane.rest(LOOK_MS, work);
      this.#waitedMs += Date.now() - from;
    };
    if (!(await keepSmall(source, target, sync.name, this.#options.disk.near, atRest))) this.#seen = null;
    if (Date.now() - this.#witnessAt < WITNESS_MS) return;
    this.#witnessAt = Date.now();
    await moveWitness(source, sync.name);
  }

  /** What the deltas take of the source's disk. What was given up, or is wanted again, the lane has to know. */
  async #watchDisk(): Promise<void> {
    const { sync, disk } = this.#options;
    const { source, target } = this.#rooms;
    if (!disk.isDue) return;
    // What was applied must not count as waiting.
    if (disk.near || disk.isAgeDue) await tellSource(source, target, sync.name);
    await disk.lookFor(source);
    const lost = new Set(disk.givenUp.map(({ relid }) => relid));
    const captured = this.#roster.tables.filter(({ named }) => named !== null);
    if (captured.every(({ relid, givenUp }) => lost.has(relid) === (givenUp !== null))) return;
    throw new IbexError('source_moved', 'deltas were given up, or are wanted again: the lane starts anew');
  }
}

function isTable({ kind, isPartition }: TableInfo): boolean {
  return ['r', 'p'].includes(kind) && !isPartition;
}

function waitingReason(waiting: readonly Waiting[]): string | null {
  if (waiting.length === 0) return null;
  return waiting
    .map(
      ({ relation, blockers }) =>
        `${WAITS_FOR_LOCK} ${relation}: locked by ${blockers.join(', ') || 'others'}`,
    )
    .join('; ');
}

function keyOf(object: ParkedObject): string {
  return `${object.kind} ${tableLabel(object)} ${object.object}`;
}
