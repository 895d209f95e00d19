/**
 * Notices connections that are dead and do not say so: the other end still takes what is sent, or drops it, and nothing
 * comes back (a proxy that stands still, a firewall that forgot the connection while something was under way, which
 * keep-alives do not find). A statement that takes long looks the same from here. So the server is asked, over a fresh
 * connection, what it thinks of the one that is silent: one that it works for is left alone.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { IbexError } from '../core/errors.ts';
import type { Session } from './session.ts';

export interface Patience {
  /** How often is looked whether anything moved. */
  readonly lookMs: number;
  /** How long nothing may, before the server is asked. */
  readonly silentMs: number;
  /** How long the server may take to answer that, the connecting included. */
  readonly answerMs: number;
}

const PATIENCE: Patience = { lookMs: 2_500, silentMs: 10_000, answerMs: 15_000 };

/** A process of the server, as pg_stat_activity has it. */
interface Backend {
  readonly pid: number;
  readonly state: string | null;
  readonly wait: string | null;
}

const READ_BACKENDS = `
  select pid, state, wait_event as wait from pg_stat_activity where pid = any ($1) and usename = current_user`;

/** Watches sessions to one server. */
export class SilenceWatch {
  readonly #open: () => Promise<Session>;
  readonly #sessions = new Map<Session, { mark: string; since: number }>();
  readonly #patience: Patience;
  readonly #timer: NodeJS.Timeout;
  #asking = false;

  /** @param open a fresh session to the same server */
  constructor(open: () => Promise<Session>, patience: Patience = PATIENCE) {
    this.#open = open;
    this.#patience = patience;
    this.#timer = setInterval(() => void this.#look(), patience.lookMs).unref();
  }

  add(session: Session): void {
    this.#sessions.set(session, { mark: '', since: Date.now() });
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#asking) return;
    const silent = [...this.#sessions.keys()].filter((session) => this.#isSilent(session));
    if (silent.length === 0) return;
    this.#asking = true;
    try {
      await this.#ask(silent);
    } finally {
      this.#asking = false;
    }
  }

  #isSilent(session: Session): boolean {
    if (session.broken !== null) this.#sessions.delete(session);
    const known = this.#sessions.get(session);
    if (known === undefined) return false;
    const { awaits, mark } = session.motion;
    if (awaits && mark === known.mark) return Date.now() - known.since > this.#patience.silentMs;
    this.#sessions.set(session, { mark, since: Date.now() });
    return false;
  }

  async #ask(silent: readonly Session[]): Promise<void> {
    const marks = new Map(silent.map((session) => [session, session.motion.mark]));
    const backends = await this.#readBackends(silent.map(({ motion }) => motion.pid));
    for (const session of silent) {
      const { pid, awaits, mark } = session.motion;
      // The answer came while we asked.
      if (!awaits || mark !== marks.get(session)) continue;
      const works = backends?.some((backend) => backend.pid === pid && isAtWork(backend)) ?? false;
      // A long statement is asked after once in a while.
      if (works) this.#sessions.set(session, { mark, since: Date.now() });
      else session.abandon(this.#dead(session, backends === null));
    }
  }

  #dead({ server }: Session, unreachable: boolean): IbexError {
    const seconds = this.#patience.silentMs / 1000;
    const why = unreachable ? 'and no new connection comes about' : 'although the server waits for it';
    return new IbexError('connection', `${server}: no answer over a connection for ${seconds} s, ${why}`);
  }

  /** Null when the server cannot be reached; of any other refusal nothing follows. */
  async #readBackends(pids: readonly number[]): Promise<readonly Backend[] | null> {
    const opening = this.#open();
    const read = async () => (await opening).rows<Backend>(READ_BACKENDS, [pids]);
    try {
      return await Promise.race([read(), sleep(this.#patience.answerMs, null, { ref: false })]);
    } catch (error) {
      if (error instanceof IbexError && error.kind === 'connection') return null;
      return pids.map((pid) => ({ pid, state: 'active', wait: null }));
    } finally {
      void opening.then((probe) => probe.abandon()).catch(() => undefined);
    }
  }
}

/** It does not wait for us, who wait for it. */
function isAtWork({ state, wait }: Backend): boolean {
  return state === 'active' && wait !== 'ClientWrite' && wait !== 'ClientRead';
}
