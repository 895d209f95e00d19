/**
 * One daemon at a time reads for a sync, whatever target it has: a restored copy of a target knows the same sync, and what
 * the one daemon acknowledges, the other one's target would never get. A session lock on the source, held by the session
 * that acknowledges, so that who loses the one loses the other. (Which daemon may write a target is `lease.ts`.)
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';
import { TAKEOVER_WAIT_MS } from './lease.ts';
import { endSilentHolder, tryLock } from './silent-holder.ts';

/** How often the holder's session does something, by which others see that its process is not frozen. */
const BEAT_MS = 2_000;
/** The sessions of a daemon on the source. */
const PARTS = ['control', 'read', 'flush', 'copy'];

/**
 * Takes the source for the session `source`. `own` are the processes of this daemon's sessions there. Sessions of a holder
 * that is silent are ended, with what they keep locked.
 * Errors: `taken` when a live holder keeps it for 30 s.
 */
export async function holdSource(
  source: Session,
  sync: string,
  own: readonly number[],
  signal: AbortSignal,
): Promise<void> {
  const deadline = Date.now() + TAKEOVER_WAIT_MS;
  for (;;) {
    if (await tryLock(source, 'reader', sync)) return;
    await endSilentHolder(source, { lock: 'reader', sync, parts: PARTS, own });
    if (Date.now() > deadline) {
      throw new IbexError(
        'taken',
        `${source.server} is being read for sync ${sync} by a daemon with another target`,
        {
          hint: 'Stop that daemon, or give one of the two syncs another name.',
        },
      );
    }
    await sleep(250, undefined, { signal });
  }
}

/** Shows that the holder lives, until the signal; rejects when its session is lost. Others have transactions on it. */
export async function keepSource(source: Session, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await source.rest();
    await source.run('select');
    await sleep(BEAT_MS, undefined, { signal }).catch(() => undefined);
  }
}
