/**
 * Watches what the deltas of a sync take of the source's disk: says so when they come near to the end of their budget, and
 * gives up what is over it, so that the application lives. While the lane runs it is asked to look; when it was not for a
 * while, since the target is away or does not answer, it looks by itself.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import {
  beat,
  type DeltaUsage,
  type GivenUp,
  isNear,
  needsBackfill,
  readGivenUp,
  readUsage,
  relieve,
  usedPart,
} from '../capture/trigger/budget.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { tableLabel } from '../core/plan.ts';
import type { Metrics } from '../observe/metrics.ts';
import { bytesText, shareText, timeText } from '../observe/units.ts';
import type { Session } from '../postgres/session.ts';
import { Sessions } from './sessions.ts';

/** Pause between looks: while all is well, and near the end of the budget. */
const LOOK_MS = 5_000;
const NEAR_MS = 2_000;
/**
 * While all is well the oldest delta is looked for no more often than this, since that reads deltas; and so often the
 * source is told that we live, and other syncs are looked at that nobody looks after.
 */
const AGE_MS = 60_000;
/** Not asked to look for so long, it looks by itself. */
const ALONE_MS = 6_000;

export interface DiskWatchOptions {
  readonly sync: SyncConfig;
  readonly lockTimeoutMs: number;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export class DiskWatch {
  readonly #options: DiskWatchOptions;
  #askedAt = 0;
  #lookedAt = 0;
  #agedAt = 0;
  #near = false;
  #givenUp: readonly GivenUp[] = [];

  constructor(options: DiskWatchOptions) {
    this.#options = options;
  }

  /** The deltas come near to the end of their budget. */
  get near(): boolean {
    return this.#near;
  }

  /** The tables whose deltas were given up, when it looked last. */
  get givenUp(): readonly GivenUp[] {
    return this.#givenUp;
  }

  /** It is time to look again. */
  get isDue(): boolean {
    return Date.now() - this.#lookedAt >= this.#pauseMs;
  }

  get #pauseMs(): number {
    return this.#near ? NEAR_MS : LOOK_MS;
  }

  /** The next look will be for the oldest delta too. */
  get isAgeDue(): boolean {
    return Date.now() - this.#agedAt >= AGE_MS;
  }

  /** A look that the running lane asks for. */
  async lookFor(source: Session): Promise<void> {
    await this.#look(source);
    this.#askedAt = Date.now();
  }

  /**
   * Looks once. What is over its budget for the second time is given up: in between, what was applied already could be
   * acknowledged and forgotten.
   */
  async #look(source: Session): Promise<void> {
    const { sync, lockTimeoutMs, metrics } = this.#options;
    this.#lookedAt = Date.now();
    const due = this.isAgeDue;
    const aged = due || this.#near;
    const usage = await readUsage(source, sync.name, aged);
    if (aged) metrics.deltaAge.set({ sync: sync.name }, usage.oldestSeconds ?? 0);
    if (due) {
      this.#agedAt = Date.now();
      await beat(source, sync.name);
    }
    if (this.#near && usedPart(usage) > 1) await relieve(source, sync.name, lockTimeoutMs);
    if (due || this.#givenUp.length > 0) await relieve(source, null, lockTimeoutMs);
    this.#warn(usage);
    this.#note(await readGivenUp(source, sync.name));
    metrics.showDisk(sync.name, usage, this.#givenUp.length);
  }

  /** Until the signal: looks by itself whenever nobody asked it to. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { sync, log } = this.#options;
    const since = Date.now();
    while (!signal.aborted) {
      await sleep(this.#pauseMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted || Date.now() - Math.max(since, this.#askedAt) < ALONE_MS) continue;
      const sessions = new Sessions(sync);
      const abandon = () => sessions.abandon();
      signal.addEventListener('abort', abandon);
      try {
        const source = await sessions.open('source', 'disk');
        if (await isKnown(source, sync.name)) await this.#look(source);
      } catch (error) {
        log.debug({ err: error }, "could not look at the source's disk");
      } finally {
        signal.removeEventListener('abort', abandon);
        await sessions.close().catch(() => undefined);
      }
    }
  }

  #warn(usage: DeltaUsage): void {
    const near = isNear(usage);
    const { log } = this.#options;
    const { bytes, maxBytes, oldestSeconds, maxSeconds } = usage;
    if (near && !this.#near) {
      const age =
        maxSeconds === null ? '' : `, the oldest ${timeText(oldestSeconds ?? 0)} of ${timeText(maxSeconds)}`;
      log.warn(
        `the deltas on the source take ${shareText(bytes, maxBytes)}${age}: past that their capture ends (see what keeps the target from applying them, or raise --max-delta-bytes, --max-delta-age)`,
      );
    }
    if (!near && this.#near)
      log.info(`the deltas on the source take ${bytesText(bytes)} now, within their budget`);
    this.#near = near;
  }

  #note(givenUp: readonly GivenUp[]): void {
    const known = new Set(this.#givenUp.map(({ relid }) => relid));
    for (const table of givenUp) {
      if (known.has(table.relid)) continue;
      this.#options.log.error({ table: tableLabel(table) }, `${tableLabel(table)} ${needsBackfill(table)}`);
    }
    this.#givenUp = givenUp;
  }
}

/** Whether the source has the sync, in a schema that knows of budgets. */
async function isKnown(source: Session, sync: string): Promise<boolean> {
  const { ready } = await source.row<{ ready: boolean }>(
    `select to_regprocedure('ibex.relieve(text, boolean, integer)') is not null as ready`,
  );
  if (!ready) return false;
  return (await source.rows('select from ibex.source_sync where name = $1', [sync])).length > 0;
}
