/**
 * The backfill of a running sync: copies tables that are not copied yet, one after the other, beside the lane. One
 * that cannot be copied waits with its reason, and the next one goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { requestCopy, setReason } from '../apply/state.ts';
import { copyTable } from '../backfill/copier.ts';
import type { Carried } from '../core/carried.ts';
import { IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { reasonToHold } from '../setup/remedies.ts';
import type { IncarnationOptions } from './options.ts';
import type { Rooms } from './rooms.ts';
import type { Roster, RosterTable } from './roster.ts';

/** Pause before a table that could not be copied is tried again. */
const RETRY_MS = 15_000;

interface Next {
  readonly table: RosterTable;
  readonly plan: TablePlan;
  readonly carried: Carried;
}

export class Copying {
  readonly #options: IncarnationOptions;
  readonly #rooms: Rooms;
  readonly #roster: Roster;
  readonly #retryAt = new Map<number, number>();

  constructor(options: IncarnationOptions, rooms: Rooms, roster: Roster) {
    this.#options = options;
    this.#rooms = rooms;
    this.#roster = roster;
  }

  /** Runs until the signal. Rejects with what does not concern a single table. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const next = this.#rooms.brake.paused === null ? this.#next() : undefined;
      if (next === undefined) {
        await sleep(100, undefined, { signal }).catch(() => undefined);
        continue;
      }
      await this.#copy(next, signal);
      await this.#roster.readStates(this.#rooms.copyTarget);
    }
  }

  #next(): Next | undefined {
    const { until } = this.#options;
    for (const table of this.#roster.tables) {
      const due = (this.#retryAt.get(table.relid) ?? 0) <= Date.now();
      const asked = until.kind !== 'copied' || until.covers(table);
      const waits = table.state === 'pending' || table.state === 'copying';
      const { plan, carries: carried } = table;
      if (waits && due && asked && table.armed && plan !== null && carried !== null)
        return { table, plan, carried };
    }
    return undefined;
  }

  async #copy({ table, plan, carried }: Next, signal: AbortSignal): Promise<void> {
    const { sync, log, metrics, rateLimit } = this.#options;
    const { copySource, copyTarget, lease, replica, applier, brake } = this.#rooms;
    const label = tableLabel(table);
    const key = { sync: sync.name, epoch: lease.epoch, relid: table.relid };
    const onRows = (rows: number) => metrics.copied.inc({ sync: sync.name, table: label }, rows);
    const { pace } = brake;
    const sides = { source: copySource, target: copyTarget, origin: sync.source.name, replica };
    try {
      await copyTable({ ...sides, key, carried, rateLimit, pace, signal, onRows }, plan, table);
      // Foreign keys of the table may have been parked: what the applier knows of them is out of date.
      applier.forgetCatalog();
      this.#roster.settle(table.relid);
      log.info({ table: label }, `${label} is copied`);
    } catch (error) {
      if (signal.aborted || !(error instanceof IbexError)) throw error;
      if (error.table === undefined && error.kind !== 'lock') throw error;
      if (error.kind === 'recopy') {
        log.warn({ table: label }, `${error.message} (${error.hint})`);
        await requestCopy(copyTarget, sync.name, table.relid, true, null);
        return;
      }
      const reason = await reasonToHold(copySource, copyTarget, table, error);
      log.warn({ table: label }, `${label} waits: ${reason}`);
      this.#retryAt.set(table.relid, Date.now() + RETRY_MS);
      await setReason(copyTarget, sync.name, table.relid, reason);
    }
  }
}
