/** What each server is, and how it is reached: version, TLS, pooler, clock and round trip, which capture there would be. */
import { ident } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { remarkOn } from '../../postgres/tls.ts';
import { type Finding, info, warning } from './finding.ts';
import { type ProviderMarks, recogniseProvider } from './provider.ts';

type Side = 'source' | 'target';

export async function probeServer(session: Session, side: Side): Promise<Finding[]> {
  const { version } = await session.row<{ version: string }>(
    `select current_setting('server_version') as version`,
  );
  return [
    info('version', side, `PostgreSQL ${version}`),
    await probeTls(session, side),
    ...probePooler(session, side),
    ...(await probeProvider(session, side)),
  ];
}

/** An older target lacks what the newer source may use. */
export function compareVersions(source: Session, target: Session): Finding[] {
  const [here, there] = [source.version, target.version].map((version) => Math.floor(version / 10_000));
  if (here === undefined || there === undefined || there >= here) return [];
  return [
    warning(
      'version',
      'target',
      `PostgreSQL ${there} is older than the source's ${here}`,
      'Run `ibex schema diff`, and the tests of the application against the target.',
    ),
  ];
}

async function probeTls(session: Session, side: Side): Promise<Finding> {
  const [tls] = await session.rows<{ version: string; cipher: string }>(
    'select version, cipher from pg_stat_ssl where pid = pg_backend_pid() and ssl',
  );
  const remark = remarkOn(session.peer);
  if (remark !== null)
    return warning(
      'tls',
      side,
      remark,
      'Add sslmode=verify-full&sslrootcert=FILE to the URL, FILE of the CA.',
    );
  const { local } = session.peer;
  const way = tls === undefined ? 'no TLS' : `${tls.version}, ${tls.cipher}`;
  const who = session.peer.tls === 'verified' ? 'the certificate is verified' : 'no certificate is verified';
  return info('tls', side, local ? `${way}, on this machine` : `${way}; ${who}`);
}

function probePooler(session: Session, side: Side): Finding[] {
  if (!session.pooled) return [];
  return [
    warning(
      'pooler',
      side,
      'a pooler stands before the server; it keeps one backend for one connection',
      'Better give the host and port of the server itself: a pooler has limits and time-outs of its own.',
    ),
  ];
}

const MARKS = `
  select (select coalesce(json_agg(r.rolname), '[]') from pg_roles r) as roles,
         (select coalesce(json_agg(s.name), '[]') from pg_settings s where s.name like '%.%') as settings,
         (select coalesce(json_agg(n.nspname), '[]') from pg_namespace n) as schemas`;

async function probeProvider(session: Session, side: Side): Promise<Finding[]> {
  const marks = await session.row<Omit<ProviderMarks, 'host'>>(MARKS);
  const provider = recogniseProvider({ ...marks, host: session.server });
  return provider === null ? [] : [info('provider', side, `${provider.name}: ${provider.limits}`)];
}

const ROUND_TRIPS = 5;
/** Clocks that are further apart than that mislead whoever reads ages. */
const APART_MS = 5_000;

/** How far each server is from here, and their clocks from each other. */
export async function probeTime(source: Session, target: Session): Promise<Finding[]> {
  const [here, there] = [await readTime(source), await readTime(target)];
  const apartMs = Math.abs(here.offsetMs - there.offsetMs);
  const text = `round trip ${here.tripMs.toFixed(1)} ms to the source, ${there.tripMs.toFixed(1)} ms to the target; `;
  const clocks = `their clocks are ${(apartMs / 1000).toFixed(1)} s apart`;
  return [
    apartMs < APART_MS
      ? info('time', 'both', text + clocks)
      : warning('time', 'both', text + clocks, 'Have both servers set their clocks by NTP.'),
  ];
}

/** The fastest of some round trips, and what the server's clock is ahead of ours. */
async function readTime(session: Session) {
  let best = { tripMs: Number.POSITIVE_INFINITY, offsetMs: 0 };
  for (let n = 0; n < ROUND_TRIPS; n++) {
    const [began, clock] = [performance.now(), Date.now()];
    const { now } = await session.row<{ now: number }>(
      'select extract(epoch from clock_timestamp())::float8 * 1000 as now',
    );
    const tripMs = performance.now() - began;
    if (tripMs < best.tripMs) best = { tripMs, offsetMs: now - (clock + tripMs / 2) };
  }
  return best;
}

/** Which capture there would be, and what speaks for it. */
export async function probeCapture(source: Session): Promise<Finding[]> {
  const { level, replication, role } = await source.row<{
    level: string;
    replication: boolean;
    role: string;
  }>(
    `select current_setting('wal_level') as level, r.rolreplication as replication, current_user::text as role
       from pg_roles r where r.rolname = current_user`,
  );
  const right = `role ${ident(role)} has ${replication ? 'the' : 'no'} attribute REPLICATION`;
  return [
    info(
      'capture',
      'source',
      `trigger (wal_level is ${level}, ${right}; capture from the WAL is not there yet, triggers need neither)`,
    ),
  ];
}
