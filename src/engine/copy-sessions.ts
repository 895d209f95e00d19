/**
 * The pairs of sessions that copy: one on the source, one on the target. The first is there from the start; others are
 * opened as there is work for them, as long as there is room on the source, and kept until the end.
 */
import { becomeReplica } from '../apply/parking.ts';
import { IbexError } from '../core/errors.ts';
import type { Logger } from '../observe/log.ts';
import type { Session } from '../postgres/session.ts';
import type { Sessions } from './sessions.ts';

export interface CopyPair {
  readonly source: Session;
  readonly target: Session;
}

export interface CopySessionsOptions {
  readonly sync: string;
  readonly sessions: Sessions;
  readonly first: CopyPair;
  /** How many pairs there may be. */
  readonly jobs: number;
  /** How many sessions the sync may have on the source, over all processes; one that copies may always be. */
  readonly maxSourceConnections: number;
  /** The target's sessions are to be replicas. */
  readonly replica: boolean;
  readonly log: Logger;
}

/** Pause before another pair is tried after there was no room for it. */
const NO_ROOM_MS = 15_000;

interface Waiting {
  readonly take: (pair: CopyPair) => void;
  readonly fail: (error: unknown) => void;
}

export class CopySessions {
  readonly #options: CopySessionsOptions;
  readonly #waiting: Waiting[] = [];
  readonly #idle: CopyPair[];
  /** Pairs that are open, or just being opened. */
  #open = 1;
  #growing = false;
  #growAt = 0;
  #told = false;
  #closed = false;

  constructor(options: CopySessionsOptions) {
    this.#options = options;
    this.#idle = [options.first];
  }

  /** Lends a pair to the work as soon as there is one: to what is `urgent` before all other work that waits. */
  async use<T>(work: (pair: CopyPair) => Promise<T>, order: 'urgent' | 'in turn' = 'in turn'): Promise<T> {
    const pair = await new Promise<CopyPair>((take, fail) => {
      if (this.#closed) return fail(closedError());
      this.#waiting[order === 'urgent' ? 'unshift' : 'push']({ take, fail });
      this.#serve();
    });
    try {
      return await work(pair);
    } finally {
      this.#takeBack(pair);
      this.#serve();
    }
  }

  /** Lends no more; the sessions themselves are closed with all others. */
  close(): void {
    this.#closed = true;
    for (const { fail } of this.#waiting.splice(0)) fail(closedError());
  }

  #takeBack(pair: CopyPair): void {
    if (pair.source.broken === null && pair.target.broken === null) {
      this.#idle.push(pair);
      return;
    }
    this.#open--;
    pair.source.abandon();
    pair.target.abandon();
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const pair = this.#idle.pop();
      if (pair === undefined) {
        if (this.#open === 0) void this.#openFirst();
        return;
      }
      if (this.#isShort()) void this.#grow(pair);
      else this.#waiting.shift()?.take(pair);
    }
  }

  /** There is more to do than pairs to do it, and one more may be tried. */
  #isShort(): boolean {
    const more = this.#waiting.length > this.#idle.length + 1 && this.#open < this.#options.jobs;
    return more && !this.#growing && Date.now() >= this.#growAt;
  }

  async #openFirst(): Promise<void> {
    this.#open = 1;
    try {
      this.#takeBack(await this.#openPair());
    } catch (error) {
      this.#open = 0;
      for (const { fail } of this.#waiting.splice(0)) fail(error);
    }
    this.#serve();
  }

  /** Opens one more pair. The one in hand counts what is open, while nobody else opens any. */
  async #grow(inHand: CopyPair): Promise<void> {
    this.#growing = true;
    this.#open++;
    try {
      this.#takeBack(await this.#openBeside(inHand.source));
    } catch (error) {
      this.#open--;
      this.#growAt = Date.now() + NO_ROOM_MS;
      this.#tell(error as Error);
    }
    this.#growing = false;
    this.#takeBack(inHand);
    this.#serve();
  }

  async #openBeside(source: Session): Promise<CopyPair> {
    const { sync, maxSourceConnections } = this.#options;
    const { locked } = await source.row<{ locked: boolean }>(LOCK_CONNECTIONS, [sync]);
    if (!locked) throw new IbexError('lock', 'another process of the sync opens sessions');
    try {
      const { count } = await source.row<{ count: number }>(COUNT_CONNECTIONS, [sync]);
      if (count < maxSourceConnections) return await this.#openPair();
      throw new IbexError('resources', `it has ${count} sessions on the source, and no more are allowed`);
    } finally {
      await source.run(UNLOCK_CONNECTIONS, [sync]);
    }
  }

  async #openPair(): Promise<CopyPair> {
    const { sessions, replica } = this.#options;
    const source = await sessions.open('source', 'copy');
    try {
      const target = await sessions.open('target', 'copy');
      if (replica) await becomeReplica(target);
      return { source, target };
    } catch (error) {
      source.abandon();
      throw error;
    }
  }

  #tell({ message }: Error): void {
    const { jobs, log } = this.#options;
    if (!this.#told) log.warn(`copying with ${this.#open} of ${jobs} jobs for now: ${message}`);
    this.#told = true;
  }
}

function closedError(): IbexError {
  return new IbexError('connection', 'the sessions of the backfill are closed');
}

const LOCK_CONNECTIONS = `select pg_try_advisory_lock(hashtext('ibex'), hashtext('connections ' || $1)) as locked`;
const UNLOCK_CONNECTIONS = `select pg_advisory_unlock(hashtext('ibex'), hashtext('connections ' || $1))`;

/** The sessions of a sync, of all its processes. */
const COUNT_CONNECTIONS = `
  select count(*)::float8 as count from pg_stat_activity a
   where a.usename = current_user and a.datname = current_database()
     and starts_with(a.application_name, 'ibex:' || $1 || ':')`;
