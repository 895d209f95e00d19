/**
 * The pairs of sessions that copy: one on the source, one on the target. The first is there from the start; others are
 * opened as there is work for them, as long as there is room on the source, and closed when there is none for a while.
 */
import { becomeReplica } from '../apply/parking.ts';
import { IbexError } from '../core/errors.ts';
import type { Logger } from '../observe/log.ts';
import { serverError } from '../postgres/errors.ts';
import type { Session } from '../postgres/session.ts';
import type { Sessions } from './sessions.ts';

export interface CopyPair {
  readonly source: Session;
  readonly target: Session;
}

export interface CopySessionsOptions {
  readonly sync: string;
  readonly sessions: Sessions;
  /** The one that is always there; null where even the first has to find room on the source. */
  readonly first: CopyPair | null;
  /** A session on the source that others use, to ask what is open; null where there is none. */
  readonly control: Session | null;
  /** What the sessions are called, all of them the same. */
  readonly part: string;
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

/** A pair that was not needed for so long, or up to twice as long, is closed: a source has few connections to give. */
const IDLE_MS = 15_000;

interface Waiting {
  readonly take: (pair: CopyPair) => void;
  readonly fail: (error: unknown) => void;
}

export class CopySessions {
  readonly #options: CopySessionsOptions;
  readonly #waiting: Waiting[] = [];
  readonly #idle: CopyPair[];
  /** Pairs that are open, or just being opened. */
  #open = 0;
  #opening = false;
  #growAt = 0;
  #told = false;
  #closed = false;
  /** Pairs that were idle at the last look, and since then. */
  #rested = new Set<CopyPair>();
  readonly #looking = setInterval(() => void this.#closeRested(), IDLE_MS).unref();

  constructor(options: CopySessionsOptions) {
    this.#options = options;
    this.#idle = options.first === null ? [] : [options.first];
    this.#open = this.#idle.length;
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
    clearInterval(this.#looking);
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

  async #closeRested(): Promise<void> {
    const always = this.#options.first === null ? 0 : 1;
    for (const pair of this.#rested) {
      if (this.#open <= always) break;
      this.#idle.splice(this.#idle.indexOf(pair), 1);
      this.#open--;
      await Promise.all([pair.source.close(), pair.target.close()]);
    }
    this.#rested = new Set(this.#idle);
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const pair = this.#idle.pop();
      if (pair === undefined) break;
      this.#rested.delete(pair);
      this.#waiting.shift()?.take(pair);
    }
    const { jobs } = this.#options;
    if (this.#waiting.length === 0 || this.#opening || this.#open >= jobs) return;
    if (this.#open === 0 || Date.now() >= this.#growAt) void this.#add();
  }

  /** Opens one more pair. Without any nothing goes on; otherwise what is there does. */
  async #add(): Promise<void> {
    const { first, control } = this.#options;
    const isOnly = this.#open === 0;
    const mustFit = !isOnly || first === null;
    this.#opening = true;
    this.#open++;
    try {
      if (mustFit && control !== null) {
        await control.rest();
        await this.#requireRoom(control, 1);
      }
      this.#takeBack(await this.#openPair(mustFit));
    } catch (error) {
      this.#open--;
      this.#growAt = Date.now() + NO_ROOM_MS;
      if (isOnly) for (const { fail } of this.#waiting.splice(0)) fail(error);
      else this.#tell(error as Error);
    }
    this.#opening = false;
    this.#serve();
  }

  /** Counted are the sessions that were there before this one, this one, and those that are to come. */
  async #requireRoom(asked: Session, more: number): Promise<void> {
    const { sync, maxSourceConnections } = this.#options;
    const { count } = await asked.row<{ count: number }>(COUNT_CONNECTIONS, [sync, more]);
    if (count + more <= maxSourceConnections) return;
    const message = `it has ${count} sessions on the source, and ${maxSourceConnections} are allowed`;
    throw new IbexError('resources', message);
  }

  async #openPair(ifThereIsRoom: boolean): Promise<CopyPair> {
    const { sessions, part, replica } = this.#options;
    const source = await sessions.open('source', part);
    try {
      // Several processes may have found room for one.
      if (ifThereIsRoom) await this.#requireRoom(source, 0);
      const target = await sessions.open('target', part);
      if (replica) await becomeReplica(target);
      return { source, target };
    } catch (error) {
      source.abandon();
      throw error;
    }
  }

  /** Said once. That the sync's own limit is reached is as was wished; that a server refuses is not. */
  #tell(error: Error): void {
    const { jobs, log } = this.#options;
    const level = serverError(error) === undefined ? 'info' : 'warn';
    if (!this.#told) log[level](`copying with ${this.#open} of ${jobs} jobs for now: ${error.message}`);
    this.#told = true;
  }
}

function closedError(): IbexError {
  return new IbexError('connection', 'the sessions of the backfill are closed');
}

/** The sessions of a sync, of all its processes; unless more are to come, those that began before the asking one, and it. */
const COUNT_CONNECTIONS = `
  select count(*)::float8 as count
    from pg_stat_activity a join pg_stat_activity me on me.pid = pg_backend_pid()
   where a.usename = current_user and a.datname = current_database()
     and starts_with(a.application_name, 'ibex:' || $1 || ':')
     and ($2::int4 > 0 or (a.backend_start, a.pid) <= (me.backend_start, me.pid))`;
