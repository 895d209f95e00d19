/**
 * What throws a sync back again and again, such as a target that is out of space: noted by its daemon between two tries,
 * for whoever looks on meanwhile.
 */
import type { Session } from '../postgres/session.ts';

/** Trouble that was not noted again for so long is over, or nobody tries any more: longer than any pause between tries. */
const RECENT_SECONDS = 90;

/** Notes the trouble of a sync; null: it goes on. */
export async function noteTrouble(target: Session, sync: string, message: string | null): Promise<void> {
  await target.run(
    `update ibex.holder
        set trouble = $2, trouble_at = case when $2::text is not null then clock_timestamp() end
      where sync = $1 and (trouble is not null or $2::text is not null)`,
    [sync, message],
  );
}

/** The trouble that a sync has now; null when it has none. */
export async function readTrouble(target: Session, sync: string): Promise<string | null> {
  const [row] = await target.rows<{ trouble: string }>(
    `select trouble from ibex.holder
      where sync = $1 and trouble is not null and trouble_at > clock_timestamp() - make_interval(secs => $2)`,
    [sync, RECENT_SECONDS],
  );
  return row?.trouble ?? null;
}
