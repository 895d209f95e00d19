/** Which provider runs a server, by marks that it leaves there, and what it is known not to allow. Pure. */

export interface ProviderMarks {
  /** `host:port/database`. */
  readonly host: string;
  readonly roles: readonly string[];
  /** Names of settings that have a prefix. */
  readonly settings: readonly string[];
  readonly schemas: readonly string[];
}

export interface Provider {
  readonly name: string;
  readonly limits: string;
}

interface Known extends Provider {
  readonly domain?: RegExp;
  readonly role?: RegExp;
  readonly setting?: RegExp;
  readonly schema?: RegExp;
}

/** The more telling marks first: some providers run on servers of others. */
const PROVIDERS: readonly Known[] = [
  {
    name: 'Supabase',
    limits:
      'port 6543 of its pooler cannot be used, 5432 can; the direct host has IPv6 only, unless an add-on gives IPv4; ' +
      'statements of the application end after two minutes by default',
    domain: /\.supabase\.(co|com)(:|$)/,
    role: /^supabase_admin$/,
  },
  {
    name: 'Neon',
    limits: 'use the host without -pooler; a server that rests is woken by the first connection',
    domain: /\.neon\.tech(:|$)/,
    role: /^neon_superuser$/,
    setting: /^neon\./,
  },
  {
    name: 'Heroku Postgres',
    limits:
      'no REPLICATION and no session_replication_role; certificates are self-signed unless Enhanced Certificates are on; ' +
      'host and password change at a failover: give the URL by IBEX_SOURCE_URL_COMMAND; small plans have 20 connections',
    schema: /^(_heroku|heroku_ext)$/,
  },
  {
    name: 'Amazon RDS or Aurora',
    limits:
      'session_replication_role needs rds_superuser or a grant; storage that grew does not shrink; verify-full needs the CA ' +
      'bundle of AWS',
    domain: /\.rds\.amazonaws\.com(\.cn)?(:|$)/,
    role: /^rds_superuser$/,
    setting: /^rds\./,
  },
  {
    name: 'DigitalOcean',
    limits:
      'no session_replication_role; 25 connections per GB of memory less 3; its pools need the mode session',
    domain: /\.db\.ondigitalocean\.com(:|$)/,
    role: /^doadmin$/,
  },
  {
    name: 'Render',
    limits:
      'no session_replication_role; 100 to 500 connections by memory; TLS and the IP allow list from outside',
    domain: /\.render\.com(:|$)/,
  },
  {
    name: 'Azure Database for PostgreSQL',
    limits: 'extensions have to be allowed in azure.extensions first; its pooler listens at port 6432',
    domain: /\.postgres\.database\.azure\.com(:|$)/,
    role: /^azure_pg_admin$/,
    setting: /^azure\./,
  },
  {
    name: 'Google Cloud SQL',
    limits:
      'session_replication_role is taken by SET and not at startup; certificates are of a CA per instance',
    domain: /\.sql\.goog(:|$)/,
    role: /^cloudsqlsuperuser$/,
    setting: /^cloudsql\./,
  },
  {
    name: 'Aiven',
    limits: 'no session_replication_role but by aiven_extras; its pools need the mode session',
    domain: /\.aivencloud\.com(:|$)/,
    role: /^avnadmin$/,
  },
];

/** The provider that a server's marks tell of; null for none that is known. */
export function recogniseProvider({ host, roles, settings, schemas }: ProviderMarks): Provider | null {
  const name = host.replace(/\/.*$/, '');
  const byHost = PROVIDERS.find(({ domain }) => domain?.test(name));
  const found =
    byHost ??
    PROVIDERS.find(
      ({ role, setting, schema }) =>
        (role !== undefined && roles.some((one) => role.test(one))) ||
        (setting !== undefined && settings.some((one) => setting.test(one))) ||
        (schema !== undefined && schemas.some((one) => schema.test(one))),
    );
  return found === undefined ? null : { name: found.name, limits: found.limits };
}
