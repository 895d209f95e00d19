/** Keeps on the target what comparisons of a lane came to: a cutover asks for one that found all of it equal. */
import { isInstalled, migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import type { VerifyReport } from './report.ts';

/** Of a comparison of all tables. */
export async function recordVerdict(target: Session, report: VerifyReport): Promise<void> {
  await migrate(target, 'target');
  await target.run(
    `insert into ibex.verified (sync, started_at, ended_at, sample, verdict) values ($1, $2, $3, $4, $5)
     on conflict do nothing`,
    [report.sync, report.started, report.ended, report.sample, report.verdict],
  );
}

/**
 * When the last full comparison of these hours began that found everything equal; null if there is none, or another one has
 * come to something else since: one that took several calls may end late and have looked early.
 */
export async function readLastEqual(target: Session, sync: string, hours: number): Promise<Date | null> {
  if (!(await isInstalled(target, 'target'))) return null;
  const [last] = await target.rows<{ started: Date }>(
    `select v.started_at as started from ibex.verified v
      where v.sync = $1 and v.sample = 1 and v.verdict = 'equal'
        and v.started_at > clock_timestamp() - $2 * interval '1 hour'
        and not exists (select from ibex.verified o
                         where o.sync = v.sync and o.verdict <> 'equal' and o.ended_at > v.started_at)
      order by v.started_at desc limit 1`,
    [sync, hours],
  );
  return last?.started ?? null;
}
