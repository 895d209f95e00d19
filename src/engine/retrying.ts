/**
 * When what failed as a whole is tried again. For ever, with pauses that grow and are never the same twice, so that many
 * daemons do not come back to a server in one moment. What looks like a wrong setting ends a daemon at its start only: once
 * all was well, credentials are being changed, a database restored, a server about to take another one's place.
 */
import { IbexError } from '../core/errors.ts';

export const PAUSE_MIN_MS = 500;
export const PAUSE_MAX_MS = 30_000;

/** The pause after so many attempts without success; within a quarter of it, at random. */
export function pauseMs(attempt: number, longestMs = PAUSE_MAX_MS): number {
  return Math.min(longestMs, PAUSE_MIN_MS * 2 ** attempt) * (0.75 + Math.random() / 2);
}

/** Whether trying again is of no use. `hasRun`: all that it takes was there before. */
export function isFinal(error: unknown, hasRun: boolean): boolean {
  if (!(error instanceof IbexError)) return true;
  return error.retry === 'never' && !(hasRun && error.passes);
}
