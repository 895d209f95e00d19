/**
 * One life of a running sync, from taking its lease to the first failure or the end: opens the rooms, starts the
 * lane, the backfill and the tending beside each other, and ends them together.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AppliedBatch } from '../apply/applier.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { tableLabel } from '../core/plan.ts';
import type { Snapshot } from '../core/position.ts';
import { endAbandonedMoves } from './abandoned-move.ts';
import { Adopting } from './adopting.ts';
import { Brake } from './brake.ts';
import { Copying } from './copying.ts';
import type { IncarnationOptions, RunOutcome } from './options.ts';
import { openRooms, type Rooms } from './rooms.ts';
import { Roster } from './roster.ts';
import { Sessions } from './sessions.ts';
import { keepSource } from './source-hold.ts';
import { Tending } from './tending.ts';
import { keepTurn } from './turn.ts';

/** How long a clean stop may take before what is still under way is cut off and left to the next start. */
const STOP_MS = 4_000;
/** And how long letting go of the lane may. */
const RELEASE_MS = 1_000;

export class Incarnation {
  readonly #options: IncarnationOptions;
  readonly #sessions: Sessions;
  readonly #roster: Roster;
  readonly #brake: Brake;
  readonly #bornAt = Date.now();
  #started = false;
  #applied: Snapshot = '0:0:';

  constructor(options: IncarnationOptions) {
    this.#options = options;
    this.#sessions = new Sessions(options.sync);
    this.#roster = new Roster(options.sync);
    const { sync, busySessions, log } = options;
    this.#brake = new Brake({ sync: sync.name, busySessions, log });
  }

  /** True once the lane ran: whatever fails from then on is not a fault of the configuration. */
  get started(): boolean {
    return this.#started;
  }

  get ranForMs(): number {
    return Date.now() - this.#bornAt;
  }

  /** Every table is in step, and the lane goes on. */
  get streaming(): boolean {
    const inStep = this.#roster.tables.every(({ state }) => state === 'streaming' || state === 'dropped');
    return this.#started && inStep && this.#brake.paused === null;
  }

  async run(signal: AbortSignal): Promise<RunOutcome> {
    try {
      const rooms = await openRooms({
        options: this.#options,
        sessions: this.#sessions,
        roster: this.#roster,
        brake: this.#brake,
        signal,
        onApplied: (batch) => this.#count(batch),
        onPosition: (position) => {
          this.#applied = position;
        },
      });
      this.#started = true;
      return await this.#supervise(rooms, signal);
    } finally {
      this.#sessions.abandon();
    }
  }

  async #supervise(rooms: Rooms, signal: AbortSignal): Promise<RunOutcome> {
    const stop = new AbortController();
    const either = AbortSignal.any([signal, stop.signal]);
    rooms.queue.consume((batch) => rooms.applier.apply(batch));
    const lane = rooms.lane.run(either);
    const tending = new Tending(this.#options, rooms, this.#roster, () => this.#applied).run(either);
    const adopting = new Adopting(this.#options, rooms, this.#roster);
    const others = [
      rooms.lease.keep(either),
      keepSource(rooms.source, either),
      keepTurn(this.#options.sync, this.#options.direction, rooms, () => rooms.lane.flush(), either),
      endAbandonedMoves(this.#options, rooms, either),
      new Copying(this.#options, rooms, this.#roster, adopting).run(either),
      adopting.run(either),
    ];
    try {
      const outcome = await Promise.race([tending, ...[lane, ...others].map(failureOf)]).catch(
        (error): IbexError => {
          // As clean an end as any: nothing is wrong, and the lane of the other direction waits for its turn.
          if (isKind(error, 'turned')) return error;
          throw error;
        },
      );
      stop.abort();
      await Promise.race([lane, sleep(STOP_MS, undefined, { ref: false })]);
      // Also with something under way: who stands by must not take a daemon that was stopped for one that died.
      await Promise.race([rooms.lease.release(), sleep(RELEASE_MS, undefined, { ref: false })]);
      if (outcome instanceof IbexError) throw outcome;
      return outcome;
    } finally {
      stop.abort();
      this.#sessions.abandon();
      await rooms.queue.close().catch(() => undefined);
      await Promise.allSettled([lane, tending, ...others]);
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
      metrics.resolved.inc(labels, account.resolved);
      metrics.held.inc(labels, account.held);
      for (const [type, n] of Object.entries(account.conflicts))
        metrics.conflicts.inc({ ...labels, type }, n);
    }
  }
}

/** Never resolves; rejects with the error of a task that was to run until it is stopped. */
async function failureOf(task: Promise<unknown>): Promise<never> {
  await task;
  return new Promise<never>(() => undefined);
}
