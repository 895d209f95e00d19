/** The doctor in the test's own process, and what its findings say to do. */
import { tmpdir } from 'node:os';
import type pg from 'pg';
import { loadConfig } from '../../src/config/load.ts';
import { type Diagnosis, diagnose } from '../../src/cutover/doctor/doctor.ts';
import type { Check, Finding } from '../../src/cutover/doctor/finding.ts';
import type { Databases } from '../support/servers.ts';

type Urls = Pick<Databases, 'sourceUrl' | 'targetUrl'>;

/** `flags`: more settings, by name as commander has them. */
export async function examine(urls: Urls, flags: Record<string, unknown> = {}): Promise<Diagnosis> {
  const given = { source: urls.sourceUrl, target: urls.targetUrl, ...flags };
  const config = loadConfig({ flags: given, env: {}, cwd: tmpdir() });
  const [sync] = config.syncs;
  if (sync === undefined) throw new Error('there is one sync');
  return diagnose({ sync, copying: config.copying, appUrl: config.appUrl, lookMs: 0 });
}

export function errorsOf({ findings }: Diagnosis): string[] {
  return findings.filter(({ severity }) => severity === 'error').map(({ what }) => what);
}

export function findingsOf({ findings }: Diagnosis, check: Check): Finding[] {
  return findings.filter((finding) => finding.check === check);
}

/** Runs what a finding says to run: the statements after the colon, as superuser on the side that it names. */
export async function remedy({ remedy }: Finding, { sourceAdmin, targetAdmin }: Databases): Promise<void> {
  const said = /(On the|of the|on the) (source|target)[^:]*: (.*;)/.exec(remedy ?? '');
  if (said === null) throw new Error(`there is no statement in: ${remedy}`);
  const admin: pg.Client = said[2] === 'source' ? sourceAdmin : targetAdmin;
  await admin.query(said[3] as string);
}
