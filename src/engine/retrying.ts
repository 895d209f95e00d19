/**
 * When what failed as a whole is tried again. For ever, with pauses that grow and are never the same twice, so that many
 * daemons do not come back to a server in one moment. What looks like a wrong setting ends a daemon at its start only: once
 * all was well, credentials are being changed, a database restored, a server about to take another one's place.
 */
import { type ErrorKind, IbexError } from '../core/errors.ts';

export const PAUSE_MIN_MS = 500;
export const PAUSE_MAX_MS = 30_000;
/** The longest where others are in the way who may be gone any moment: a busy server is no reason to fall far behind. */
const LONGEST_MS: Partial<Record<ErrorKind, number>> = { lock: 5_000, transient: 5_000 };

/** The pause after so many attempts without success, the last of which ended with `kind`; within a quarter of it, at random. */
export function pauseMs(attempt: number, longestMs = PAUSE_MAX_MS, kind?: ErrorKind): number {
  const longest = Math.min(longestMs, (kind && LONGEST_MS[kind]) ?? longestMs);
  return Math.min(longest, PAUSE_MIN_MS * 2 ** attempt) * (0.75 + Math.random() / 2);
}

/** Whether trying again is of no use. `hasRun`: all that it takes was there before. */
export function isFinal(error: unknown, hasRun: boolean): boolean {
  if (!(error instanceof IbexError)) return true;
  return error.retry === 'never' && !(hasRun && error.passes);
}

/** When tables that are held are tried again: each time after a pause twice as long as before. */
export class TableRetries {
  readonly #first: number;
  readonly #longest: number;
  readonly #tables = new Map<string, { readonly at: number; readonly pauseMs: number }>();

  /** In milliseconds: the pause after the first failure, and the longest one. */
  constructor(first: number, longest: number) {
    this.#first = first;
    this.#longest = longest;
  }

  /** Whether its last try is so short a while ago that another failure is the same trouble. */
  isSame(table: string): boolean {
    return this.#recent(table) !== undefined;
  }

  /** Whether it may be tried. */
  isDue(table: string): boolean {
    return (this.#tables.get(table)?.at ?? 0) <= Date.now();
  }

  /** It failed: the next try is due after a pause. */
  postpone(table: string): void {
    const before = this.#recent(table)?.pauseMs;
    const pauseMs = before === undefined ? this.#first : Math.min(this.#longest, 2 * before);
    this.#tables.set(table, { at: Date.now() + pauseMs, pauseMs });
  }

  /** It is to be tried at once. */
  forget(table: string): void {
    this.#tables.delete(table);
  }

  /** One that has been well for longer than any pause has another trouble, if it gets into one. */
  #recent(table: string) {
    const known = this.#tables.get(table);
    return known === undefined || known.at + this.#longest < Date.now() ? undefined : known;
  }
}
