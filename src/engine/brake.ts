/**
 * What holds this process back: the sync is paused, or the source is busy with others while rows are copied. Looks again
 * and again, tells the log when it changes, and the target's record that it copies slowly.
 */
import type { Logger } from 'pino';
import { noteSlowed, pausedSince, readRestraint } from '../apply/restraint.ts';
import { Pace } from '../backfill/pace.ts';
import { LoadWatch } from '../backfill/source-load.ts';
import type { Session } from '../postgres/session.ts';

export interface BrakeOptions {
  readonly sync: string;
  readonly busySessions: number;
  readonly log: Logger;
}

export class Brake {
  /** When chunks may begin. */
  readonly pace: Pace;
  readonly #options: BrakeOptions;
  #load: LoadWatch;
  #paused: Date | null = null;
  /** What the target's record says; undefined: what somebody left there. */
  #noted: string | null | undefined;

  constructor(options: BrakeOptions) {
    this.#options = options;
    this.#load = new LoadWatch(options.busySessions);
    this.pace = new Pace({
      isPaused: () => this.#paused !== null,
      isBusy: () => this.#load.busy !== null,
    });
  }

  /** Since when it is paused; null while it is not. */
  get paused(): Date | null {
    return this.#paused;
  }

  /** Why the source counts as busy; null while it does not. */
  get busy(): string | null {
    return this.#load.busy;
  }

  async lookAtRecord(target: Session): Promise<void> {
    const { sync, log } = this.#options;
    const { paused } = await readRestraint(target, sync);
    const before = this.#paused;
    this.#paused = paused;
    if (before === null && paused !== null) log.info(`sync ${sync} is ${pausedSince(paused)}`);
    if (before !== null && paused === null) log.info(`sync ${sync} goes on`);
  }

  /** @param copies there is something to copy; without that nothing is asked of the source */
  async lookAtSource(source: Session, target: Session, copies: boolean): Promise<void> {
    const { sync, busySessions, log } = this.#options;
    if (copies) await this.#load.look(source);
    else this.#load = new LoadWatch(busySessions);
    const { busy } = this.#load;
    if (busy === this.#noted) return;
    if (busy !== null) log.info(`the source is busy, ${busy}: one chunk at a time is copied, with pauses`);
    else if (this.#noted != null) log.info('the source is calm again');
    await noteSlowed(target, sync, busy);
    this.#noted = busy;
  }
}
