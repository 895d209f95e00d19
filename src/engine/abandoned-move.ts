/**
 * A cutover or rollback whose process is gone has left the application without a side that takes its writes, perhaps in the
 * middle of the night. While one is under way it has a lock; when that is free and the journal knows no end of it, and
 * nobody has gone on with it for a while, the daemon brings it to its end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { syncOfLane } from '../apply/live.ts';
import { readLastRun } from '../cutover/move/journal.ts';
import type { Session } from '../postgres/session.ts';
import type { IncarnationOptions } from './options.ts';
import { isLocked } from './silent-holder.ts';

const LOOK_MS = 1_000;

type Options = Pick<IncarnationOptions, 'sync' | 'direction' | 'until' | 'pauses' | 'settleMove' | 'log'>;

/** The move that was found abandoned last, and since when. */
interface Seen {
  readonly run: number | undefined;
  readonly at: number;
}

/** Looks after it until the signal. */
export async function endAbandonedMoves(
  { sync, direction, until, pauses, settleMove, log }: Options,
  ends: { readonly source: Session; readonly target: Session },
  signal: AbortSignal,
): Promise<void> {
  if (direction === null || until.kind !== 'forever') return;
  const record = direction === 'source' ? ends.target : ends.source;
  let seen: Seen = { run: undefined, at: 0 };
  while (!signal.aborted) {
    const run = await findAbandoned(record, syncOfLane(sync.name));
    if (run !== seen.run) seen = { run, at: Date.now() };
    if (run !== undefined && Date.now() - seen.at >= pauses.abandonedMove) {
      await settleMove(signal).catch(({ message }: Error) =>
        log.warn(`a cutover whose process is gone could not be brought to its end: ${message}`),
      );
      seen = { run: undefined, at: 0 };
    }
    await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** The number of the last move, if it has not ended and nobody is at it. */
async function findAbandoned(record: Session, sync: string): Promise<number | undefined> {
  // Others use the session too.
  await record.rest();
  const last = await readLastRun(record, sync);
  if (last === undefined || last.ended) return undefined;
  await record.rest();
  return (await isLocked(record, 'move', sync)) ? undefined : last.run;
}
