/** The sessions of one incarnation of a sync: opened by name, closed together. */
import type { SyncConfig } from '../config/syncs.ts';
import { Session } from '../postgres/session.ts';

export class Sessions {
  readonly #sync: SyncConfig;
  readonly #open: Session[] = [];
  #closed = false;

  constructor(sync: SyncConfig) {
    this.#sync = sync;
  }

  /** Opens a session whose `application_name` is `ibex:<sync>:<part>`. */
  async open(side: 'source' | 'target', part: string): Promise<Session> {
    const url = await this.#sync[side].resolveUrl();
    const session = await Session.open({ url, name: `ibex:${this.#sync.name}:${part}` });
    // One that comes while the others are being closed is not wanted any more.
    if (this.#closed) session.abandon();
    this.#open.push(session);
    return session;
  }

  /** Ends them all, whatever they are doing: what they had not committed is undone. */
  abandon(): void {
    this.#closed = true;
    for (const session of this.#open) session.abandon();
  }

  async close(): Promise<void> {
    await Promise.all(this.#open.map((session) => session.close()));
  }
}
