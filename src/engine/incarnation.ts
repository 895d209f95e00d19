/**
 * One life of a running sync, from taking its lease to the first failure or the end. Puts the rooms together
 * (capture -> queue -> apply, the backfill beside them) and tends them: arms what is not armed, answers DDL,
 * restores foreign keys, keeps the source small.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type AppliedBatch, Applier } from '../apply/applier.ts';
import { becomeReplica, readParked, restoreParked } from '../apply/parking.ts';
import { readRecord, readSyncTables, requestCopy, setReason, startLane } from '../apply/state.ts';
import { copyTable } from '../backfill/copier.ts';
import { DeltaReader } from '../capture/trigger/reader.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import type { BatchQueue } from '../core/ports.ts';
import {
  covers,
  identityDifference,
  parseSnapshot,
  type Snapshot,
  type SourceIdentity,
} from '../core/position.ts';
import { readIdentity } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';
import { armAll, inspect, install } from '../setup/setup.ts';
import { answerDrift } from './drift.ts';
import { keepSmall } from './keeper.ts';
import { Lane } from './lane.ts';
import { Lease } from './lease.ts';
import { isHeld, type RosterTable, readRoster } from './roster.ts';
import { Sessions } from './sessions.ts';
import type { SyncEngineOptions } from './sync-engine.ts';

/**
 * When a run ends by itself:
 * - `forever`: never;
 * - `caught-up`: everything committed on the source before the start is on the target;
 * - `copied`: every table that it covers is copied and in step.
 */
export type Until =
  | { readonly kind: 'forever' }
  | { readonly kind: 'caught-up' }
  | { readonly kind: 'copied'; readonly covers: (table: TableName) => boolean };

export interface RunOutcome {
  /** Tables that were left behind because they are held. */
  readonly held: readonly { readonly table: string; readonly reason: string }[];
}

/** How long a clean stop may take before what is still under way is cut off and left to the next start. */
const STOP_MS = 4_000;
/** Pause between rounds of tending, and before a table that could not be copied is tried again. */
const TEND_MS = 500;
const RETRY_TABLE_MS = 15_000;

export interface IncarnationOptions extends SyncEngineOptions {
  /** Whether a held table is to be tried again. */
  readonly isDue: (table: TableName) => boolean;
}

/** Everything of one life once it is set up. */
interface Rooms {
  readonly lease: Lease;
  readonly lane: Lane;
  readonly applier: Applier;
  readonly queue: BatchQueue;
  readonly source: Session;
  readonly target: Session;
  readonly copySource: Session;
  readonly copyTarget: Session;
  readonly replica: boolean;
  /** What `caught-up` waits for. */
  readonly goal: Snapshot;
}

export class Incarnation {
  readonly #options: IncarnationOptions;
  readonly #sessions: Sessions;
  readonly #bornAt = Date.now();
  #roster: RosterTable[] = [];
  #applied: Snapshot | null = null;
  #started = false;
  #tended: Snapshot | null = null;
  readonly #retryAt = new Map<number, number>();

  constructor(options: IncarnationOptions) {
    this.#options = options;
    this.#sessions = new Sessions(options.sync);
  }

  /** True once the lane ran: whatever fails from then on is not a fault of the configuration. */
  get started(): boolean {
    return this.#started;
  }

  get ranForMs(): number {
    return Date.now() - this.#bornAt;
  }

  get streaming(): boolean {
    return this.#started && this.#roster.every((table) => table.state === 'streaming');
  }

  async run(signal: AbortSignal): Promise<RunOutcome> {
    const stop = new AbortController();
    const both = AbortSignal.any([signal, stop.signal]);
    try {
      const rooms = await this.#open(both);
      this.#started = true;
      return await this.#supervise(rooms, both, stop);
    } finally {
      stop.abort();
      this.#sessions.abandon();
    }
  }

  async #open(signal: AbortSignal): Promise<Rooms> {
    const { sync, log } = this.#options;
    const source = await this.#sessions.open('source', 'control');
    const target = await this.#sessions.open('target', 'control');
    const apply = await this.#sessions.open('target', 'apply');
    const replica = await becomeReplica(apply);
    const goal = await readSnapshot(source);
    const setup = { sync: sync.name, source, target, replica, tables: sync.tables, exclude: sync.exclude };
    const obstacles = await install(setup, await inspect(setup));
    for (const { error } of obstacles) log.warn({ table: error.table }, `${error.message} (${error.hint})`);
    const lease = await Lease.acquire(
      await this.#sessions.open('target', 'lease'),
      sync.name,
      signal,
      (holder) => log.info(`waiting for ${holder} to let go of sync ${sync.name}`),
    );
    const copyTarget = await this.#sessions.open('target', 'copy');
    if (replica) await becomeReplica(copyTarget);
    const copySource = await this.#sessions.open('source', 'copy');
    const queue = await this.#options.createQueue();
    try {
      await queue.clear();
      const identity = await readIdentity(source);
      const start = await this.#startPosition(source, target, lease, identity);
      await this.#refresh(source, target);
      await this.#requireDeltas(target, start);
      const reading = await this.#sessions.open('source', 'read');
      const reader = new DeltaReader({
        reading,
        control: await this.#sessions.open('source', 'flush'),
        identity,
        queue,
        spoolDirectory: this.#options.spoolDirectory,
      });
      const applier = new Applier({
        session: apply,
        origin: sync.source.name,
        onApplied: (batch) => this.#count(batch),
      });
      const lane = new Lane({
        sync: sync.name,
        epoch: lease.epoch,
        start,
        reader,
        roster: () => this.#roster,
        isDue: this.#options.isDue,
        onApplied: (position) => {
          this.#applied = position;
        },
      });
      log.info({ epoch: lease.epoch, queue: queue.kind, replica }, `sync ${sync.name} runs`);
      return { lease, lane, applier, queue, source, target, copySource, copyTarget, replica, goal };
    } catch (error) {
      await queue.close().catch(() => undefined);
      throw error;
    }
  }

  /** Where the lane starts: at the checkpoint, if it belongs to this source; else at the source's present. */
  async #startPosition(
    source: Session,
    target: Session,
    lease: Lease,
    identity: SourceIdentity,
  ): Promise<Snapshot> {
    const { name } = this.#options.sync;
    const now = await readSnapshot(source);
    const record = await readRecord(target, name);
    const difference = record && identityDifference(record.source, identity);
    if (difference) {
      throw new IbexError(
        'identity',
        `${source.server} is not the source that sync ${name} has carried: ${difference}`,
      );
    }
    if (record?.started && parseSnapshot(record.started).xmax > parseSnapshot(now).xmax) {
      throw new IbexError(
        'identity',
        `${source.server} is older than what sync ${name} has carried from it`,
        {
          hint: 'The source was restored or failed over with a loss. Compare both sides, then start anew with `ibex teardown`, `ibex setup`.',
        },
      );
    }
    await startLane(target, name, lease.epoch, now);
    const position = record?.started ?? now;
    this.#applied = position;
    return position;
  }

  /** Deltas that were forgotten cannot be read again: a checkpoint from before them needs a new copy. */
  async #requireDeltas(target: Session, start: Snapshot): Promise<void> {
    const { sync, log } = this.#options;
    for (const table of this.#roster) {
      if (!['streaming', 'joining', 'held'].includes(table.state) || table.forgotten === null) continue;
      if (covers(table.floor ?? start, table.forgotten)) continue;
      log.warn(
        { table: tableLabel(table) },
        'the checkpoint is older than the deltas that are left: the table is copied again',
      );
      await requestCopy(target, sync.name, table.relid, true, null);
    }
  }

  async #supervise(rooms: Rooms, signal: AbortSignal, stop: AbortController): Promise<RunOutcome> {
    rooms.queue.consume((batch) => rooms.applier.apply(batch));
    const lane = rooms.lane.run(signal);
    const others = [rooms.lease.keep(signal), this.#copyTables(rooms, signal)];
    const tending = this.#tend(rooms, signal);
    try {
      const outcome = await Promise.race([tending, failureOf(lane), ...others.map(failureOf)]);
      stop.abort();
      const clean = await Promise.race([lane.then(() => true), sleep(STOP_MS, false)]);
      if (clean) await rooms.lease.release();
      return outcome;
    } finally {
      stop.abort();
      this.#sessions.abandon();
      await rooms.queue.close().catch(() => undefined);
      await Promise.allSettled([lane, tending, ...others]);
    }
  }

  /** Looks after everything that is not the flow itself, until the run is to end. */
  async #tend(rooms: Rooms, signal: AbortSignal): Promise<RunOutcome> {
    const { until } = this.#options;
    for (;;) {
      if (signal.aborted) return { held: [] };
      await this.#readStates(rooms.target);
      await this.#armWaiting(rooms);
      await this.#restoreForeignKeys(rooms);
      await this.#watchSource(rooms);
      const outcome = this.#outcome(rooms);
      if (outcome !== null) return outcome;
      if (until.kind === 'caught-up') rooms.lane.flush();
      await sleep(until.kind === 'forever' ? TEND_MS : 50, undefined, { signal }).catch(() => undefined);
    }
  }

  /** What the run has come to; null while it is to go on. */
  #outcome(rooms: Rooms): RunOutcome | null {
    const { until } = this.#options;
    if (until.kind === 'forever') return null;
    const chosen = this.#roster.filter((table) => until.kind === 'caught-up' || until.covers(table));
    const waiting = chosen.filter((table) => table.state !== 'streaming' && !isHeld(table));
    if (waiting.length > 0 || this.#restorable > 0) return null;
    if (until.kind === 'caught-up' && !covers(this.#applied ?? '0:0:', rooms.goal)) return null;
    const held = chosen.filter((table) => isHeld(table));
    return { held: held.map((table) => ({ table: tableLabel(table), reason: table.reason ?? '' })) };
  }

  /** The states as the target has them; plans only change with `#refresh`. */
  async #readStates(target: Session): Promise<void> {
    const { sync, metrics } = this.#options;
    const states = new Map((await readSyncTables(target, sync.name)).map((state) => [state.relid, state]));
    this.#roster = this.#roster.flatMap((table) => {
      const state = states.get(table.relid);
      return state === undefined ? [] : [{ ...table, ...state }];
    });
    metrics.tables.reset();
    for (const { state } of this.#roster) metrics.tables.inc({ sync: sync.name, state });
  }

  async #refresh(source: Session, target: Session): Promise<void> {
    this.#roster = await readRoster(source, target, this.#options.sync.name);
  }

  /** Tables that others had locked are tried again; which and by whom is what `status` shows as their reason. */
  async #armWaiting({ source, target }: Rooms): Promise<void> {
    const { sync, lockTimeoutMs } = this.#options;
    const unarmed = this.#roster.filter((table) => table.plan !== null && !table.armed);
    if (unarmed.length === 0) return;
    const waiting = await armAll(
      source,
      unarmed.map((table) => table.relid),
      lockTimeoutMs,
    );
    for (const table of unarmed) {
      const blocked = waiting.get(table.relid);
      const reason = blocked?.map(
        ({ relation, blockers }) =>
          `waiting to arm ${relation}: locked by ${blockers.join(', ') || 'others'}`,
      );
      await setReason(target, sync.name, table.relid, reason?.join('; ') ?? null);
    }
    await this.#refresh(source, target);
  }

  #restorable = 0;

  /** Foreign keys of the target come back once both their tables are in step. */
  async #restoreForeignKeys({ target, applier }: Rooms): Promise<void> {
    const { sync, log } = this.#options;
    const outOfStep = new Set(this.#roster.filter((table) => table.state !== 'streaming').map(tableLabel));
    const parked = (await readParked(target, sync.name)).filter((object) => object.kind === 'foreign_key');
    const ready = parked.filter(
      (key) => !outOfStep.has(tableLabel(key)) && !outOfStep.has(key.referenced ?? ''),
    );
    this.#restorable = ready.length;
    for (const key of ready) {
      try {
        await restoreParked(target, sync.name, key);
        applier.forgetCatalog();
        log.info({ table: tableLabel(key) }, `foreign key ${key.object} is back`);
      } catch (error) {
        if (!isKind(error, 'lock') && !isKind(error, 'constraint') && !isKind(error, 'transient'))
          throw error;
        log.warn({ table: tableLabel(key) }, `${error.message} (${error.hint})`);
        if (error.kind === 'constraint') this.#restorable--;
      }
    }
  }

  /** DDL and retained deltas; both need somebody to have committed something on the source. */
  async #watchSource({ source, target }: Rooms): Promise<void> {
    const { sync, log, lockTimeoutMs } = this.#options;
    const now = await readSnapshot(source);
    if (now === this.#tended) return;
    this.#tended = now;
    const reports = await answerDrift(source, target, sync.name, lockTimeoutMs);
    for (const { table, what } of reports) log.warn({ table }, `${table}: ${what}`);
    if (reports.some((report) => report.replan)) {
      throw new IbexError('source_moved', 'the catalogs of the source changed: the lane starts anew');
    }
    await keepSmall(source, target, sync.name);
  }

  /** Copies tables one after the other; one that cannot be copied waits, the next one goes on. */
  async #copyTables(rooms: Rooms, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = this.#nextToCopy();
      if (next === undefined) {
        await sleep(100, undefined, { signal }).catch(() => undefined);
        continue;
      }
      await this.#copyOne(rooms, next.table, next.plan, signal);
      await this.#readStates(rooms.copyTarget);
    }
  }

  #nextToCopy(): { readonly table: RosterTable; readonly plan: TablePlan } | undefined {
    const until = this.#options.until;
    for (const table of this.#roster) {
      const due = (this.#retryAt.get(table.relid) ?? 0) <= Date.now();
      const asked = until.kind !== 'copied' || until.covers(table);
      const waits = table.state === 'pending' || table.state === 'copying';
      if (waits && due && asked && table.armed && table.plan !== null) return { table, plan: table.plan };
    }
    return undefined;
  }

  async #copyOne(rooms: Rooms, table: RosterTable, plan: TablePlan, signal: AbortSignal): Promise<void> {
    const { sync, log, metrics } = this.#options;
    const label = tableLabel(table);
    try {
      await copyTable(
        {
          source: rooms.copySource,
          target: rooms.copyTarget,
          key: { sync: sync.name, epoch: rooms.lease.epoch, relid: table.relid },
          origin: sync.source.name,
          replica: rooms.replica,
          signal,
          onRows: (rows) => metrics.copied.inc({ sync: sync.name, table: label }, rows),
        },
        plan,
        table,
      );
      // Foreign keys of the table may have been parked: what the applier knows of them is out of date.
      rooms.applier.forgetCatalog();
      log.info({ table: label }, `${label} is copied`);
    } catch (error) {
      if (signal.aborted || !(error instanceof IbexError)) throw error;
      if (error.table === undefined && error.kind !== 'lock') throw error;
      log.warn({ table: label }, `${error.message} (${error.hint})`);
      this.#retryAt.set(table.relid, Date.now() + RETRY_TABLE_MS);
      await setReason(rooms.copyTarget, sync.name, table.relid, error.message);
    }
  }

  #count({ header, accounts }: AppliedBatch): void {
    const { sync, metrics } = this.#options;
    metrics.batches.inc({ sync: sync.name });
    if (header.oldestAt !== null) {
      metrics.lag.observe({ sync: sync.name }, Math.max(0, Date.now() - header.oldestAt) / 1000);
    }
    for (const account of accounts) {
      const table = header.tables.find(({ plan }) => plan.relid === account.relid);
      if (table === undefined) continue;
      const labels = { sync: sync.name, table: tableLabel(table.plan) };
      metrics.captured.inc(labels, account.captured);
      metrics.applied.inc(labels, account.applied);
      metrics.coalesced.inc(labels, account.coalesced);
    }
  }
}

async function readSnapshot(source: Session): Promise<Snapshot> {
  const { snapshot } = await source.row<{ snapshot: Snapshot }>(
    'select txid_current_snapshot()::text as snapshot',
  );
  return snapshot;
}

/** Never resolves; rejects with the error of a task that was to run until it is stopped. */
async function failureOf(task: Promise<unknown>): Promise<never> {
  await task;
  return new Promise<never>(() => undefined);
}
