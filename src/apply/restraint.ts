/** What holds a sync back for a while, in the target's record of it: a person's `ibex pause`, or a busy source. */
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { requireRecord } from './state.ts';

export interface Restraint {
  /** Since when it is paused; null while it is not. */
  readonly paused: Date | null;
}

export async function readRestraint(target: Session, sync: string): Promise<Restraint> {
  const [restraint] = await target.rows<Restraint>(
    'select paused_at as paused from ibex.restraint where sync = $1',
    [sync],
  );
  return restraint ?? { paused: null };
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

/** The moment as messages say it. */
export function pausedSince(since: Date): string {
  return `paused since ${since.toISOString().replace('T', ' ').replace(/\..*/, ' UTC')}`;
}
