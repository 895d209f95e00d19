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

/** When the last full comparison of these hours began, if it found everything equal; else null. */
export async function readLastEqual(target: Session, sync: string, hours: number): Promise<Date | null> {
  if (!(await isInstalled(target, 'target'))) return null;
  const [last] = await target.rows<{ started: Date; verdict: string }>(
    `select started_at as started, verdict from ibex.verified
      where sync = $1 and sample = 1 and started_at > clock_timestamp() - $2 * interval '1 hour'
      order by started_at desc limit 1`,
    [sync, hours],
  );
  return last?.verdict === 'equal' ? last.started : null;
}
