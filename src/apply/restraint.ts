/** What holds a sync back for a while, in the target's record of it: a person's `ibex pause`, or a busy source. */
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { requireRecord } from './state.ts';

export interface Restraint {
  /** Since when it is paused; null while it is not. */
  readonly paused: Date | null;
  /** Since when copying holds back, and why; null while it does not. Written by the daemon, and as old as that. */
  readonly slowed: { readonly since: Date; readonly why: string } | null;
}

export async function readRestraint(target: Session, sync: string): Promise<Restraint> {
  const [row] = await target.rows<{ paused: Date | null; since: Date | null; why: string | null }>(
    'select paused_at as paused, slowed_at as since, slowed_why as why from ibex.restraint where sync = $1',
    [sync],
  );
  const { paused = null, since = null, why = null } = row ?? {};
  return { paused, slowed: since === null || why === null ? null : { since, why } };
}

/** Pauses a sync; one that is paused stays so since then. Errors: `not_set_up` when there is no such sync. */
export async function pauseSync(target: Session, sync: string): Promise<Date> {
  await requireRecord(target, sync);
  await migrate(target, 'target');
  const { since } = await target.row<{ since: Date }>(
    `insert into ibex.restraint (sync, paused_at) values ($1, clock_timestamp())
     on conflict (sync) do update set paused_at = coalesce(ibex.restraint.paused_at, excluded.paused_at)
     returning paused_at as since`,
    [sync],
  );
  return since;
}

/** Lets a sync go on. False when it was not paused. Errors: `not_set_up` when there is no such sync. */
export async function resumeSync(target: Session, sync: string): Promise<boolean> {
  await requireRecord(target, sync);
  await migrate(target, 'target');
  const resumed = await target.run(
    'update ibex.restraint set paused_at = null where sync = $1 and paused_at is not null',
    [sync],
  );
  return resumed === 1;
}

/** Notes why copying holds back; null: it does not any more. */
export async function noteSlowed(target: Session, sync: string, why: string | null): Promise<void> {
  await target.run(
    `insert into ibex.restraint as r (sync, slowed_at, slowed_why)
     values ($1, case when $2::text is not null then clock_timestamp() end, $2)
     on conflict (sync) do update set slowed_at = excluded.slowed_at, slowed_why = excluded.slowed_why
       where r.slowed_why is distinct from excluded.slowed_why`,
    [sync, why],
  );
}

/** The moment as messages say it. */
export function pausedSince(since: Date): string {
  return `paused since ${since.toISOString().replace('T', ' ').replace(/\..*/, ' UTC')}`;
}
