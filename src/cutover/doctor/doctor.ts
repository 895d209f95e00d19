/**
 * `ibex doctor`: looks at both sides, tries out in rolled-back transactions what a sync does, and says what would fail
 * later. Nothing is left behind, and no table of the application is locked beyond what a query takes.
 */
import { readLive, type Side } from '../../apply/live.ts';
import { laneOf, type SyncConfig } from '../../config/syncs.ts';
import { IbexError } from '../../core/errors.ts';
import { tableLabel } from '../../core/plan.ts';
import type { TableInfo } from '../../core/table.ts';
import { Session } from '../../postgres/session.ts';
import { requirements, tablesOf } from '../../setup/setup.ts';
import { probeApp } from './app.ts';
import {
  probeExtensions,
  probeLeftBehind,
  probeLocale,
  probeSequences,
  probeSettings,
  probeSharedSequences,
} from './differences.ts';
import { bySeverity, endsAll, errorFinding, type Finding, notExamined, type Place } from './finding.ts';
import { probeGrants } from './grants.ts';
import { type Copying, probeConnections, probeTimeOuts } from './limits.ts';
import { probeReplica, rehearseSource, rehearseTarget } from './rehearsal.ts';
import { compareVersions, probeCapture, probeServer, probeTime } from './server.ts';
import { ChangeCounter, probeSizes } from './sizes.ts';
import {
  probeForeignKeys,
  probeGuard,
  probeObstacles,
  probeRowSecurity,
  probeSetAside,
  probeTruncate,
} from './tables.ts';

export interface DoctorOptions {
  readonly sync: SyncConfig;
  readonly copying: Copying;
  /** What the application connects with; undefined: that is not looked at. */
  readonly appUrl: string | undefined;
  /** How long changes are counted at least. */
  readonly lookMs: number;
}

export interface Diagnosis {
  /** The lane that was looked at: after a cutover it leads from the configured target to the source. */
  readonly sync: string;
  /** The configured side that is live; null when it could not be asked. */
  readonly live: Side | null;
  /** What findings call source and target: `host:port/database`; null where it could not be reached. */
  readonly source: string | null;
  readonly target: string | null;
  readonly tables: readonly string[];
  /** The worst first. */
  readonly findings: readonly Finding[];
}

/**
 * Errors: `connection`, `authentication`, `unknown_database` when a side cannot be reached; `unknown_table` and `config` for
 * tables that are not there.
 */
export async function diagnose(options: DoctorOptions): Promise<Diagnosis> {
  const opened = [await open(options.sync, 'source'), await open(options.sync, 'target')] as const;
  const [source, target] = opened;
  try {
    if (!(source instanceof Session) || !(target instanceof Session)) {
      const findings = opened.filter((one) => !(one instanceof Session)) as Finding[];
      const [here, there] = opened.map((one) => (one instanceof Session ? one.server : null));
      return {
        sync: options.sync.name,
        live: null,
        source: here ?? null,
        target: there ?? null,
        tables: [],
        findings,
      };
    }
    const { side: live } = await readLive(target, options.sync.name);
    const sync = laneOf(options.sync, live);
    return await (live === 'source'
      ? examine({ ...options, sync, live, source, target })
      : examine({ ...options, sync, live, source: target, target: source }));
  } finally {
    for (const one of opened) if (one instanceof Session) await one.close();
  }
}

/** A pooler that gives out another backend at every turn answers, and cannot be used. */
async function open(sync: SyncConfig, side: 'source' | 'target'): Promise<Session | Finding> {
  try {
    return await Session.open({ url: await sync[side].resolveUrl(), name: `ibex:${sync.name}:doctor` });
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind !== 'unsupported') throw error;
    return errorFinding('pooler', side, error);
  }
}

/** The sync and its sides as they are now: after a cutover the lane of the other direction. */
interface Both extends DoctorOptions {
  readonly live: Side;
  readonly source: Session;
  readonly target: Session;
}

async function examine(both: Both): Promise<Diagnosis> {
  const { sync, live, source, target, appUrl } = both;
  const unmet = await findUnmet(both);
  const tables = await chosenTables(both, unmet);
  const changes = await ChangeCounter.start(source, tables);
  const findings = [...unmet, ...(await examineServers(both))];
  if (appUrl !== undefined)
    findings.push(
      ...(await probe('app', 'the connection of the application', () => probeApp(appUrl, source, live))),
    );
  findings.push(...(await examineTables(both, tables, unmet)));
  findings.push(
    ...(await probe('target', 'the rights of roles', () => probeGrants(source, target))),
    ...(await probe('both', 'sequences', () =>
      sync.rivalry === null
        ? probeSequences(source, target, tables)
        : probeSharedSequences(source, target, tables),
    )),
    ...(await probe('both', 'extensions', () => probeExtensions(source, target))),
    ...(await probe('both', 'encoding and collation', () => probeLocale(source, target))),
    ...(await probe('both', 'settings', () => probeSettings(source, target))),
    ...(await probe('source', 'what no sync carries', () => probeLeftBehind(source))),
    ...(await probe('both', 'sizes and speed', () =>
      probeSizes(source, target, tables, isMet(unmet, 'target')),
    )),
    ...(await probe('source', 'the rate of changes', async () => [await changes.finding(both.lookMs)])),
  );
  return {
    sync: sync.name,
    live,
    source: source.server,
    target: target.server,
    tables: tables.map(tableLabel),
    findings: bySeverity(findings),
  };
}

/** What setup would refuse to begin with. */
async function findUnmet({ source, target, sync }: Both): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const { side, require } of requirements({ source, target, sync: sync.name })) {
    const error = await failure(require);
    if (error !== null) findings.push(errorFinding('requirement', side, error));
  }
  return findings;
}

async function failure(work: () => Promise<unknown>): Promise<IbexError | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof IbexError && (error.kind === 'config' || !endsAll(error))) return error;
    throw error;
  }
}

/** None where setup would not get as far: then it is not known which they are. */
async function chosenTables(
  { sync, live, source, target }: Both,
  unmet: readonly Finding[],
): Promise<TableInfo[]> {
  const { tables, exclude, carry, asked } = sync;
  if (unmet.some(({ side }) => side === 'both')) return [];
  // What a lane back carries was decided by the cutover.
  const adopt = live === 'source';
  return tablesOf({ sync: sync.name, source, target, adopt, tables, exclude, carry, asked });
}

async function examineServers({ source, target, copying }: Both): Promise<Finding[]> {
  return [
    ...(await probe('source', 'the server', () => probeServer(source, 'source'))),
    ...(await probe('target', 'the server', () => probeServer(target, 'target'))),
    ...compareVersions(source, target),
    ...(await probe('both', 'the clocks', () => probeTime(source, target))),
    ...(await probe('source', 'connections', () => probeConnections(source, 'source', copying))),
    ...(await probe('target', 'connections', () => probeConnections(target, 'target', copying))),
    ...(await probe('source', 'time-outs', () => probeTimeOuts(source, 'source'))),
    ...(await probe('target', 'time-outs', () => probeTimeOuts(target, 'target'))),
    ...(await probe('source', 'the WAL settings', () => probeCapture(source))),
  ];
}

/** Where setup would not begin on a side, nothing can be tried there. */
function isMet(unmet: readonly Finding[], side: Place): boolean {
  return unmet.every((finding) => finding.side !== side && finding.side !== 'both');
}

async function examineTables(
  { sync, source, target }: Both,
  tables: readonly TableInfo[],
  unmet: readonly Finding[],
): Promise<Finding[]> {
  const { replica, findings } = await probeReplica(target);
  const options = { source, target, sync: sync.name, replica, carry: sync.carry };
  const obstacles = await probeObstacles(options, tables);
  findings.push(...obstacles.findings);
  const rehearsing = { source, target, keyless: sync.keyless, carry: sync.carry, tables: obstacles.fit };
  if (isMet(unmet, 'source'))
    findings.push(...(await probe('source', 'capture', () => rehearseSource(rehearsing))));
  if (isMet(unmet, 'target')) {
    findings.push(
      ...(await probe('target', 'writing', () => rehearseTarget(target))),
      ...(await probe('target', 'foreign keys', () => probeForeignKeys(options, tables))),
    );
  }
  return [
    ...findings,
    ...(await probe('source', 'row level security', () => probeRowSecurity(source, 'source', tables))),
    ...(await probe('target', 'row level security', () => probeRowSecurity(target, 'target', tables))),
    ...(await probe('target', 'the right to truncate', () => probeTruncate(target, tables))),
    ...(await probe('target', 'triggers and rules', () => probeSetAside(options, tables))),
    ...(sync.guard === null
      ? []
      : await probe('target', 'the guard', () => probeGuard(target, sync.name, tables))),
  ];
}

/** What cannot be looked at is said, and the rest goes on. */
async function probe(side: Place, subject: string, look: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof IbexError) || endsAll(error)) throw error;
    return [notExamined(side, subject, error)];
  }
}
