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

/** Runs the statements that a finding says to run on the side that it names or lies on: as the owner, or as an administrator. */
export async function remedy(finding: Finding, databases: Databases): Promise<void> {
  const text = finding.remedy ?? '';
  const [, statements] = /: ((?:alter|create|grant) .*;)/.exec(text) ?? [];
  if (statements === undefined) throw new Error(`there is no statement in: ${text}`);
  const side = /the (source|target)\b/.exec(text)?.[1] ?? finding.side;
  const { source, sourceAdmin, target, targetAdmin } = databases;
  const [owner, admin] = side === 'source' ? [source, sourceAdmin] : [target, targetAdmin];
  // Whoever may not grant a right is warned, and nothing happens.
  const first: pg.Client = /^As /.test(text) ? admin : owner;
  await first.query(statements).catch(() => admin.query(statements));
}
