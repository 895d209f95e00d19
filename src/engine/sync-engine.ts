/**
 * Keeps one sync running. What it starts is an incarnation: lease, sessions, lane, backfill. When that fails, all
 * of it is thrown away and a new one starts at the checkpoint, after a pause, unless trying again cannot help
 * (retrying.ts). What concerns one table holds that table, and the others go on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { holdTable, readRecord, requestCopyOf } from '../apply/state.ts';
import { noteTrouble } from '../apply/trouble.ts';
import { type ErrorKind, IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { reasonToHold } from '../setup/remedies.ts';
import { DiskWatch } from './disk-watch.ts';
import { Incarnation } from './incarnation.ts';
import { NOTHING_LEFT, type RunOutcome, type SyncEngineOptions } from './options.ts';
import { isFinal, PAUSE_MAX_MS, PAUSE_MIN_MS, pauseMs, TableRetries } from './retrying.ts';
import { readRoster } from './roster.ts';
import { Sessions } from './sessions.ts';

/** Kinds after which a new start at the checkpoint is all that is needed, and needs no pause to speak of. */
const AT_ONCE = new Set<ErrorKind>(['gap', 'source_moved', 'queue_lost', 'recopy']);
const AT_ONCE_MS = 50;
/** Whatever is under way, a stop takes no longer. */
const STOP_AT_LAST_MS = 8_000;

export class SyncEngine {
  readonly #options: SyncEngineOptions;
  #current: Incarnation | null = null;
  /** Tables that failed a short while ago: one that fails again is held. */
  readonly #suspects = new Set<string>();
  /** An incarnation has run: all that it takes was there, and all tables that were there are taken in. */
  #hasRun = false;
  readonly #disk: DiskWatch;
  readonly #retries: TableRetries;

  constructor(options: SyncEngineOptions) {
    this.#options = options;
    this.#disk = new DiskWatch(options);
    this.#retries = new TableRetries(options.pauses.heldFirst, options.pauses.heldLongest);
  }

  get name(): string {
    return this.#options.sync.name;
  }

  /** Whether the lane streams: alive, nothing left to copy, nothing held. */
  get streaming(): boolean {
    return this.#current?.streaming ?? false;
  }

  /** Runs until `until` holds or the signal comes. */
  async run(signal: AbortSignal): Promise<RunOutcome> {
    const ended = new AbortController();
    void this.#disk.run(AbortSignal.any([signal, ended.signal]));
    try {
      return await this.#keepRunning(signal);
    } finally {
      ended.abort();
    }
  }

  async #keepRunning(signal: AbortSignal): Promise<RunOutcome> {
    const { log, adopt } = this.#options;
    let attempt = 0;
    const stopped = longAfter(signal);
    for (;;) {
      const isDue = (table: TableName) => this.#retries.isDue(tableLabel(table));
      const tryAgain = (table: string) => this.#retries.forget(table);
      const incarnation = new Incarnation({
        ...this.#options,
        disk: this.#disk,
        adopt: adopt && !this.#hasRun,
        isDue,
        tryAgain,
      });
      this.#current = incarnation;
      try {
        return await Promise.race([incarnation.run(signal), stopped]);
      } catch (error) {
        if (signal.aborted) return NOTHING_LEFT;
        this.#hasRun ||= incarnation.started;
        if (incarnation.ranForMs > PAUSE_MAX_MS) {
          attempt = 0;
          this.#suspects.clear();
        }
        await this.#answer(error, incarnation);
        // What concerns one table is no reason for the others to wait: it is held the second time at the latest.
        const kind = kindOf(error);
        const atOnce = AT_ONCE.has(kind) || concernsTable(error);
        const pause = atOnce ? AT_ONCE_MS : pauseMs(attempt++, this.#options.pauses.longest, kind);
        if (!atOnce) await Promise.race([this.#noteTrouble((error as IbexError).message), stopped]);
        if (pause >= PAUSE_MIN_MS) log.info(`trying again in ${(pause / 1000).toFixed(1)} s`);
        await sleep(pause, undefined, { signal }).catch(() => undefined);
      } finally {
        this.#current = null;
      }
      if (signal.aborted) return NOTHING_LEFT;
    }
  }

  /** Decides what an error of an incarnation means; throws when it ends the sync. */
  async #answer(error: unknown, incarnation: Incarnation): Promise<void> {
    const { log, metrics } = this.#options;
    const kind = kindOf(error);
    metrics.restarts.inc({ sync: this.name, kind });
    if (!(error instanceof IbexError)) throw error;
    if (!this.#options.patient && !incarnation.started) throw error;
    log.debug({ err: error }, 'incarnation failed');
    if (error.kind === 'recopy' && error.table !== undefined) {
      log.warn({ table: error.table }, `${error.message} (${error.hint})`);
      const again = this.#onTarget((target) => requestCopyOf(target, this.name, error.table as string));
      await again.catch((failure) => log.warn({ err: failure }, 'could not ask for the copy'));
      return;
    }
    if (error.table !== undefined && incarnation.started) {
      // What it knew of the target's catalog may have been out of date: the second failure counts.
      const again = this.#suspects.has(error.table) || this.#retries.isSame(error.table);
      this.#suspects.add(error.table);
      log[again ? 'error' : 'warn']({ kind, table: error.table }, `${error.message} (${error.hint})`);
      if (again) await this.#hold(error.table, error);
      return;
    }
    if (isFinal(error, this.#hasRun)) throw error;
    log.warn({ kind }, `${error.message} (${error.hint})`);
  }

  /** The error, and what there is to do about it; the error alone where the source cannot be asked. */
  async #reasonOf(target: Session, label: string, error: IbexError): Promise<string> {
    const { sync } = this.#options;
    const sessions = new Sessions(sync);
    try {
      const source = await sessions.open('source', 'hold');
      const table = (await readRoster(source, target, sync)).find((one) => tableLabel(one) === label);
      return table === undefined ? error.message : await reasonToHold(source, target, table, error);
    } catch {
      return error.message;
    } finally {
      await sessions.close();
    }
  }

  /** Writes down that a table waits, so that the next incarnation goes on without it. */
  async #hold(table: string, error: IbexError): Promise<void> {
    const { sync, log } = this.#options;
    await this.#onTarget(async (target) => {
      const record = await readRecord(target, sync.name);
      const reason = await this.#reasonOf(target, table, error);
      await holdTable(target, sync.name, table, record?.started ?? null, reason);
      this.#retries.postpone(table);
      this.#suspects.delete(table);
    }).catch((failure) => log.warn({ err: failure, table }, 'could not hold the table'));
  }

  /** Where the target itself is the trouble, that may not be possible. */
  async #noteTrouble(message: string): Promise<void> {
    await this.#onTarget((target) => noteTrouble(target, this.name, message)).catch((failure) =>
      this.#options.log.debug({ err: failure }, 'could not note the trouble'),
    );
  }

  async #onTarget(work: (target: Session) => Promise<void>): Promise<void> {
    const sessions = new Sessions(this.#options.sync);
    try {
      await work(await sessions.open('target', 'hold'));
    } finally {
      await sessions.close();
    }
  }
}

/** Ends the waiting for what does not end by itself when it is told to, such as an attempt to connect. */
function longAfter(signal: AbortSignal): Promise<RunOutcome> {
  return new Promise((resolve) => {
    const end = () => setTimeout(() => resolve(NOTHING_LEFT), STOP_AT_LAST_MS).unref();
    signal.addEventListener('abort', end, { once: true });
  });
}

function concernsTable(error: unknown): boolean {
  return error instanceof IbexError && error.table !== undefined;
}

function kindOf(error: unknown): ErrorKind {
  return error instanceof IbexError ? error.kind : 'internal';
}
