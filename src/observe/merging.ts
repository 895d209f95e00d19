/** How far the merge of a large backlog is: the record of it on the target, and how a person reads it. */
import type { MergeStatus } from '../core/backlog.ts';
import type { Session } from '../postgres/session.ts';
import { countText, timeText } from './units.ts';

/** Null: there is none. */
export async function writeMerging(target: Session, sync: string, merge: MergeStatus | null): Promise<void> {
  const text = merge === null ? null : JSON.stringify(merge);
  await target.run('update ibex.holder set merging = $2 where sync = $1', [sync, text]);
}

export async function readMerging(target: Session, sync: string): Promise<MergeStatus | null> {
  const [holder] = await target.rows<{ merging: MergeStatus | null }>(
    'select merging from ibex.holder where sync = $1',
    [sync],
  );
  return holder?.merging ?? null;
}

/** Such as `public.t: a large backlog is merged: 200,000 of 1,000,000 rows, 0 of 1 tables, for 12 s, about 48 s left`. */
export function mergeText({ step, table, tables, rows, seconds, secondsLeft }: MergeStatus): string {
  const left = secondsLeft === null ? 'time left unknown' : `about ${timeText(secondsLeft)} left`;
  const done = `${tables.done} of ${tables.all} tables, for ${timeText(seconds)}`;
  if (rows === null) return `${table}: the newest rows of a large backlog are looked for: ${done}, ${left}`;
  const written = `${countText(rows.done)} of ${countText(rows.all)} rows, ${done}`;
  if (step === 'commit') return `a large backlog is merged and about to be committed: ${written}`;
  return `${table}: a large backlog is merged: ${written}, ${left}`;
}
