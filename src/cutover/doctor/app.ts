/**
 * The application's own connection: where it leads, as whom, and through what. By way of a pooler it may be somebody
 * else's the next moment: only single statements, and nothing is set.
 */
import { randomInt } from 'node:crypto';
import type pg from 'pg';
import type { Side } from '../../apply/live.ts';
import { IbexError } from '../../core/errors.ts';
import { connect } from '../../postgres/connecting.ts';
import { toIbexError } from '../../postgres/errors.ts';
import { ident } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { remarkOn } from '../../postgres/tls.ts';
import { type Finding, info, warning } from './finding.ts';
import { tryOut } from './patient.ts';

interface Who {
  readonly role: string;
  readonly database: string;
  readonly super: boolean;
  readonly standby: boolean;
  readonly readOnly: boolean;
  readonly replica: boolean;
}

const WHO = `
  select current_user::text as role, current_database()::text as database, r.rolsuper as super,
         pg_catalog.pg_is_in_recovery() as standby,
         pg_catalog.current_setting('default_transaction_read_only')::bool as "readOnly",
         pg_catalog.current_setting('session_replication_role') = 'replica' as replica
    from pg_catalog.pg_roles r where r.rolname = current_user`;

/** `live`: the configured side that `source` is. Errors: `connection`, `authentication`, `unknown_database`, when nobody can connect with it. */
export async function probeApp(url: string, source: Session, live: Side): Promise<Finding[]> {
  const { client, server, peer, pooled } = await connect(url, 'ibex:doctor:app', true);
  try {
    const who = (await client.query<Who>(WHO)).rows[0] as Who;
    const remark = remarkOn(peer);
    return [
      (await isSource(client, source)) ? leadsThere(server, who) : leadsElsewhere(server, who, source, live),
      ...roleFindings(who),
      ...(pooled
        ? [info('app-pooler', 'app', `a pooler stands between the application and its server (${server})`)]
        : []),
      ...(remark === null
        ? []
        : [warning('tls', 'app', remark, 'Add sslmode=verify-full to the URL of the application.')]),
    ];
  } catch (error) {
    throw error instanceof IbexError ? error : toIbexError(error, server);
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** A lock that one session holds, another one of the same database cannot have. */
async function isSource(client: pg.Client, source: Session): Promise<boolean> {
  const key = randomInt(2 ** 31);
  return tryOut(source, async () => {
    await source.run(`select pg_advisory_xact_lock(hashtext('ibex'), $1)`, [key]);
    const { rows } = await client.query<{ free: boolean }>(
      `select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('ibex'), $1) as free`,
      [key],
    );
    return rows[0]?.free === false;
  });
}

function leadsThere(server: string, { role }: Who): Finding {
  return info('app-database', 'app', `${server} is the source; the application is role ${role} there`);
}

function leadsElsewhere(server: string, { standby }: Who, source: Session, live: Side): Finding {
  const finding = { check: 'app-database', side: 'app' } as const;
  if (standby) {
    const what = `${server} is a standby: the application can only read there`;
    return {
      ...finding,
      severity: 'warning',
      what,
      remedy: 'Give the URL with which the application writes.',
    };
  }
  const what = `${server} is not the source: what the application writes there is not captured`;
  const remedy =
    live === 'source'
      ? 'Give --source the database of the application, by any of its hosts.'
      : `Give the application the side that is live since the cutover: ${source.server}.`;
  return { ...finding, severity: 'error', what, remedy };
}

function roleFindings({ role, database, super: isSuper, readOnly, replica }: Who): Finding[] {
  const findings: Finding[] = [];
  const reset = (setting: string) =>
    `On the source: alter role ${ident(role)} in database ${ident(database)} set ${setting};`;
  if (replica)
    findings.push(
      warning(
        'app-role',
        'app',
        `role ${role} writes with session_replication_role = replica: capture sees that all the same, but no foreign key ` +
          'and no trigger of the application fires',
        reset('session_replication_role to origin'),
      ),
    );
  if (readOnly)
    findings.push(
      warning(
        'app-role',
        'app',
        `transactions of role ${role} are read-only by default`,
        reset('default_transaction_read_only to off'),
      ),
    );
  if (isSuper)
    findings.push(
      warning(
        'app-role',
        'app',
        `role ${role} is a superuser: nothing keeps it from disabling the capture triggers, which copies the table again`,
        'Give the application a role of its own that owns nothing.',
      ),
    );
  return findings;
}
