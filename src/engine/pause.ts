/** Whether the sync is paused, as this process knows it: read again and again from the target's record. */
import type { Logger } from 'pino';
import { pausedSince, readRestraint } from '../apply/restraint.ts';
import type { Session } from '../postgres/session.ts';

export class Pause {
  readonly #sync: string;
  readonly #log: Logger;
  #since: Date | null = null;

  constructor(sync: string, log: Logger) {
    this.#sync = sync;
    this.#log = log;
  }

  /** Null while it is not paused. */
  get since(): Date | null {
    return this.#since;
  }

  async look(target: Session): Promise<void> {
    const { paused } = await readRestraint(target, this.#sync);
    const before = this.#since;
    this.#since = paused;
    if (before === null && paused !== null) this.#log.info(`sync ${this.#sync} is ${pausedSince(paused)}`);
    if (before !== null && paused === null) this.#log.info(`sync ${this.#sync} goes on`);
  }
}
