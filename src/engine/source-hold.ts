/**
 * One daemon at a time reads for a sync, whatever target it has: a restored copy of a target knows the same sync, and what
 * the one daemon acknowledges, the other one's target would never get. A session lock on the source, held by the session
 * that acknowledges, so that who loses the one loses the other. (Which daemon may write a target is `lease.ts`.)
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SILENT_MS } from '../apply/state.ts';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';
import { TAKEOVER_WAIT_MS } from './lease.ts';

/** How often the holder's session does something, by which others see that its process is not frozen. */
const BEAT_MS = 2_000;

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
    const { locked } = await source.row<{ locked: boolean }>(
      `select pg_try_advisory_lock(hashtext('ibex'), hashtext('reader ' || $1)) as locked`,
      [sync],
    );
    if (locked) return;
    await source.rows(END_SILENT, [sync, own, SILENT_MS / 1000]);
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

/** Shows that the holder lives, until the signal; rejects when its session is lost. */
export async function keepSource(source: Session, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await source.run('select');
    await sleep(BEAT_MS, undefined, { signal }).catch(() => undefined);
  }
}

const END_SILENT = `
  select pg_terminate_backend(a.pid)
    from pg_stat_activity a
   where a.usename = current_user and a.datname = current_database() and a.pid <> all ($2::int4[])
     and a.application_name in ('ibex:' || $1 || ':control', 'ibex:' || $1 || ':read',
                                'ibex:' || $1 || ':flush', 'ibex:' || $1 || ':copy')
     and exists (select from pg_locks l join pg_stat_activity h on h.pid = l.pid
                  where l.locktype = 'advisory' and l.granted
                    and l.database = (select oid from pg_database where datname = current_database())
                    and l.classid::int8::bit(32) = hashtext('ibex')::bit(32)
                    and l.objid::int8::bit(32) = hashtext('reader ' || $1)::bit(32)
                    and (h.state <> 'active' or h.wait_event in ('ClientRead', 'ClientWrite'))
                    and h.state_change < clock_timestamp() - make_interval(secs => $3))`;
