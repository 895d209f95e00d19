/**
 * The sessions of one incarnation of a sync: opened by name, closed together. All of a side lead to the same primary
 * server: behind one name there may be several, and one that is about to take the other's place.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import { identityDifference, type SourceIdentity } from '../core/position.ts';
import { checkServer, readIdentity } from '../postgres/catalog.ts';
import { Session } from '../postgres/session.ts';
import { SilenceWatch } from '../postgres/silence.ts';

const CLOSE_MS = 2_000;

/**
 * What sets up takes locks for which the next daemon waits, and those of the application's tables. Where the network lost
 * the daemon in the middle of that, and did not tell the server, they go after so long.
 */
const DO_NOT_REST = `set idle_in_transaction_session_timeout = '10s'`;

export class Sessions {
  readonly #sync: SyncConfig;
  readonly #open = new Map<Session, 'source' | 'target'>();
  readonly #identities = new Map<string, SourceIdentity>();
  readonly #watches = new Map<string, SilenceWatch>();
  #closed = false;

  constructor(sync: SyncConfig) {
    this.#sync = sync;
  }

  /**
   * Opens a session whose `application_name` is `ibex:<sync>:<part>`. Errors: those of `Session.open`; `standby`; `connection`
   * when it leads to another server than the first one of this side.
   */
  async open(side: 'source' | 'target', part: string): Promise<Session> {
    const session = await this.#connect(side, part);
    // One that comes while the others are being closed is not wanted any more.
    if (this.#closed) session.abandon();
    this.#open.set(session, side);
    this.#watch(side).add(session);
    // Whatever a daemon writes there comes from the source: a fence lets it pass, and no lane carries it back.
    if (side === 'target')
      await session.run(`select set_config('ibex.origin', $1, false)`, [this.#sync.source.name]);
    if (part === 'control') await session.run(DO_NOT_REST);
    await this.#requireSame(side, session);
    return session;
  }

  async #connect(side: 'source' | 'target', part: string): Promise<Session> {
    const url = await this.#sync[side].resolveUrl();
    return Session.open({ url, name: `ibex:${this.#sync.name}:${part}` });
  }

  #watch(side: 'source' | 'target'): SilenceWatch {
    const watch = this.#watches.get(side) ?? new SilenceWatch(() => this.#connect(side, 'probe'));
    this.#watches.set(side, watch);
    if (this.#closed) watch.stop();
    return watch;
  }

  /** The server's processes for the sessions of a side. */
  pids(side: 'source' | 'target'): number[] {
    return [...this.#open].filter(([, of]) => of === side).map(([{ motion }]) => motion.pid);
  }

  async #requireSame(side: string, session: Session): Promise<void> {
    await checkServer(session);
    const identity = await readIdentity(session);
    const first = this.#identities.get(side) ?? identity;
    this.#identities.set(side, first);
    const difference = identityDifference(first, identity);
    if (difference === null) return;
    throw new IbexError(
      'connection',
      `${session.server}: two sessions reached different servers: ${difference}`,
      {
        hint: 'Give a URL that leads to one server, the primary.',
      },
    );
  }

  /** Ends them all, whatever they are doing: what they had not committed is undone. */
  abandon(): void {
    this.#closed = true;
    for (const watch of this.#watches.values()) watch.stop();
    for (const session of this.#open.keys()) session.abandon();
  }

  /** Lets what is under way end; a server that does not answer is not waited for. */
  async close(): Promise<void> {
    const closed = Promise.all([...this.#open.keys()].map((session) => session.close()));
    await Promise.race([closed, sleep(CLOSE_MS, undefined, { ref: false })]);
    this.abandon();
  }
}
