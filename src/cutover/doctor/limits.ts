/** How many connections and how much time a role is given. */
import { ident } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { type Finding, info } from './finding.ts';

type Side = 'source' | 'target';

/** Sessions that a sync has on either side beside those that copy, and the one that always does. */
const LEAST = 4;

export interface Copying {
  readonly jobs: number;
  readonly maxSourceConnections: number;
}

interface Room {
  readonly role: string;
  readonly database: string;
  readonly roleLimit: number;
  readonly databaseLimit: number;
  readonly serverLimit: number;
  readonly ofRole: number;
  readonly ofDatabase: number;
  readonly ofServer: number;
}

/** Sessions of Ibex do not count: those of a daemon are the ones that it needs. */
const READ_ROOM = `
  select current_user::text as role, d.datname as database, r.rolconnlimit as "roleLimit",
         d.datconnlimit as "databaseLimit",
         current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0) as "serverLimit", a.*
    from pg_roles r, pg_database d,
         (select count(*) filter (where usename = current_user)::int as "ofRole",
                 count(*) filter (where datname = current_database())::int as "ofDatabase",
                 count(*)::int as "ofServer"
            from pg_stat_activity where datid is not null and coalesce(application_name, '') not like 'ibex:%') a
   where r.rolname = current_user and d.datname = current_database()`;

/** Whether there is room for the sessions of a sync. */
export async function probeConnections(session: Session, side: Side, copying: Copying): Promise<Finding[]> {
  const room = await session.row<Room>(READ_ROOM);
  const wanted = side === 'source' ? Math.max(LEAST, copying.maxSourceConnections) : LEAST + copying.jobs - 1;
  const bounds = boundsOf(room).sort((a, b) => a.free - b.free);
  const [{ free, what, remedy }] = bounds as [Bound];
  const finding = { check: 'connections', side } as const;
  if (free >= wanted)
    return [info('connections', side, `${free} connections are free (${what}), ${wanted} are wanted`)];
  if (free >= LEAST) {
    const fewer =
      side === 'source' ? `--max-source-connections ${free}` : `--jobs ${Math.max(1, free - LEAST + 1)}`;
    const tight = `${free} connections are free (${what}); ${wanted} are wanted, ${LEAST} are needed`;
    return [
      { ...finding, severity: 'warning', what: tight, remedy: `Run with ${fewer}, or: ${remedy(wanted)}` },
    ];
  }
  const few = `${Math.max(0, free)} connections are free (${what}), and ${LEAST} are needed`;
  return [{ ...finding, severity: 'error', what: few, remedy: remedy(wanted) }];
}

interface Bound {
  readonly free: number;
  readonly what: string;
  /** What makes room for so many more. */
  readonly remedy: (wanted: number) => string;
}

function boundsOf(room: Room): Bound[] {
  const [role, database] = [ident(room.role), ident(room.database)];
  const bounds: Bound[] = [
    {
      free: room.serverLimit - room.ofServer,
      what: `max_connections leaves ${room.serverLimit} to everybody`,
      remedy: () => 'End sessions that nobody needs, or raise max_connections.',
    },
  ];
  if (room.roleLimit >= 0)
    bounds.push({
      free: room.roleLimit - room.ofRole,
      what: `role ${role} may have ${room.roleLimit}`,
      remedy: (wanted) => `As an administrator: alter role ${role} connection limit ${room.ofRole + wanted};`,
    });
  if (room.databaseLimit >= 0)
    bounds.push({
      free: room.databaseLimit - room.ofDatabase,
      what: `database ${database} may have ${room.databaseLimit}`,
      remedy: (wanted) =>
        `As an administrator: alter database ${database} connection limit ${room.ofDatabase + wanted};`,
    });
  return bounds;
}

const TIME_OUTS = `
  select name || ' = ' || reset_val || coalesce(' ' || unit, '') as text from pg_settings
   where reset_val <> '0' and name in ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout',
                                       'idle_session_timeout', 'transaction_timeout')
   order by 1`;

/** What the server, the database or the role sets for a new session. */
export async function probeTimeOuts(session: Session, side: Side): Promise<Finding[]> {
  const rows = await session.rows<{ text: string }>(TIME_OUTS);
  if (rows.length === 0) return [];
  return [info('time-outs', side, `new sessions have ${rows.map(({ text }) => text).join(', ')}`)];
}
