/**
 * What tests stand on: a pair of real servers for each file, fresh databases owned by roles without any
 * special right, a comparison of all rows that shares no code with the engine, and waiting.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { type Cluster, startCluster } from '../../src/embedded/cluster.ts';
import { type RedisServer, startRedis } from '../../src/embedded/redis.ts';
import { ofMajor } from './majors.ts';
import { OutOfPatience } from './patience.ts';

export interface Servers {
  source: Cluster;
  target: Cluster;
}

/** The majors of source and target; undefined stands for the default one. */
export type Majors = readonly [source: number | undefined, target: number | undefined];

/** `TEST_MAJORS=12-18 npx vitest run FILE` runs a file between other majors than its own. */
const chosen = process.env.TEST_MAJORS?.split('-').map(Number) ?? [];

/**
 * The two clusters of a test file or suite, there from its first hook or test on and removed after its last.
 * They do not sync to disk unless `settings` asks for it: `{ fsync: 'on' }`.
 */
export async function useServers(
  settings: Record<string, string> = {},
  majors: Majors = [chosen[0], chosen[1]],
): Promise<Servers> {
  const servers = {} as Servers;
  beforeAll(async () => {
    const start = (name: string, major: number | undefined) =>
      startCluster({ name, settings: { fsync: 'off', ...settings }, ...ofMajor(major) });
    [servers.source, servers.target] = await Promise.all([
      start('source', majors[0]),
      start('target', majors[1]),
    ]);
  });
  afterAll(async () => {
    await Promise.all([servers.source?.remove(), servers.target?.remove()]);
  });
  return servers;
}

/** A database of the same name on both sides, with connections as its owner and as superuser. */
export interface Databases {
  readonly sourceUrl: string;
  readonly targetUrl: string;
  readonly source: pg.Client;
  readonly target: pg.Client;
  /** For assertions only: what is tested must get by without a superuser. */
  readonly sourceAdmin: pg.Client;
  readonly targetAdmin: pg.Client;
  /** Closes the four connections, ends all others and drops both databases with their roles. */
  dropAll(): Promise<void>;
}

export interface DatabaseOptions {
  /** The target's role may set session_replication_role, which is a privilege from PostgreSQL 15 on. */
  readonly replica?: boolean;
  /** More of CREATE DATABASE on one side, such as `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`. */
  readonly sourceIs?: string;
  readonly targetIs?: string;
}

export async function freshDatabases(servers: Servers, options: DatabaseOptions = {}): Promise<Databases> {
  const name = `app_${randomBytes(5).toString('hex')}`;
  const [source, target] = await Promise.all([
    createDatabase(servers.source, name, options.sourceIs),
    createDatabase(servers.target, name, options.targetIs),
  ]);
  if (options.replica) {
    await target.admin.query(`GRANT SET ON PARAMETER session_replication_role TO ${name}`);
  }
  return {
    sourceUrl: source.url,
    targetUrl: target.url,
    source: source.owner,
    target: target.owner,
    sourceAdmin: source.admin,
    targetAdmin: target.admin,
    dropAll: async () => {
      await Promise.all([source.drop(), target.drop()]);
    },
  };
}

async function createDatabase(cluster: Cluster, name: string, more?: string) {
  // Each of these characters breaks a URL that was put together without escaping.
  const password = `${randomBytes(6).toString('hex')}@:/?#[]%41&=+ '"\\`;
  await withSuperuser(cluster, async (superuser) => {
    await superuser.query(
      `CREATE ROLE ${name} LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS NOCREATEROLE NOCREATEDB
       PASSWORD ${pg.escapeLiteral(password)}`,
    );
    await superuser.query(
      `CREATE DATABASE ${name} OWNER ${name} ${await copiesFiles(superuser)} ${more === undefined ? '' : `TEMPLATE template0 ${more}`}`,
    );
  });
  const adminUrl = new URL(cluster.superuserUrl);
  adminUrl.pathname = name;
  const url = cluster.url({ user: name, password, database: name });
  const admin = await connect(adminUrl.href);
  // Since PostgreSQL 15 not everybody may create there.
  await admin.query(`GRANT ALL ON SCHEMA public TO ${name}`);
  const owner = await connect(url);
  const drop = async () => {
    await Promise.all([admin.end(), owner.end()]);
    await withSuperuser(cluster, (superuser) => dropDatabase(superuser, name));
  };
  return { url, owner, admin, drop };
}

/** A quarter of the work of the default, which writes the template into the log; before PostgreSQL 15 there is no other way. */
async function copiesFiles(superuser: pg.Client): Promise<string> {
  const { rows } = await superuser.query(
    `select current_setting('server_version_num')::int >= 150000 as "canChoose"`,
  );
  return rows[0].canChoose ? 'STRATEGY FILE_COPY' : '';
}

/** Without DROP DATABASE .. WITH (FORCE), which PostgreSQL 12 does not have. */
async function dropDatabase(superuser: pg.Client, name: string): Promise<void> {
  await superuser.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await superuser.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  await superuser.query(`DROP DATABASE ${name}`);
  // What the role was granted outside of the database; such a privilege exists from PostgreSQL 15 on.
  await superuser.query(`DROP OWNED BY ${name}`);
  await superuser.query(`DROP ROLE ${name}`);
}

async function withSuperuser(cluster: Cluster, work: (superuser: pg.Client) => Promise<void>): Promise<void> {
  const superuser = await connect(cluster.superuserUrl);
  try {
    await work(superuser);
  } finally {
    await superuser.end();
  }
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  // Tests stop servers under their connections; the next query on such a connection fails anyway.
  client.on('error', () => {});
  await client.connect();
  return client;
}

/**
 * Compares all rows of all columns and returns what differs, one line a table; empty when equal.
 *
 * Compared are the named tables (`schema.name`), or all ordinary and partitioned ones outside system schemas
 * and `ibex`; a partitioned table as a whole, so its partitions may differ. Each side is read in one snapshot,
 * with everything pinned that changes how a value prints. The clients must not be inside a transaction.
 */
export async function compareTables(
  source: pg.Client,
  target: pg.Client,
  tables?: string[],
): Promise<string[]> {
  return inSnapshot(source, () =>
    inSnapshot(target, async () => {
      const [left, right] = await Promise.all([listTables(source), listTables(target)]);
      const names = tables ?? [...new Set([...left.keys(), ...right.keys()])].sort();
      const differences: string[] = [];
      for (const name of names) {
        const difference = await compareTable(name, [source, left.get(name)], [target, right.get(name)]);
        if (difference !== undefined) differences.push(`${name}: ${difference}`);
      }
      return differences;
    }),
  );
}

async function inSnapshot<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query(`
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = pg_catalog;
    SET LOCAL row_security = off;
    SET LOCAL DateStyle = 'ISO, YMD';
    SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL extra_float_digits = 3;
    SET LOCAL lc_monetary = 'C';
    SET LOCAL bytea_output = 'hex'`);
  try {
    return await work();
  } finally {
    await client.query('ROLLBACK');
  }
}

interface Table {
  /** What to select from: quoted, and without the children of plain inheritance, which are listed themselves. */
  readonly from: string;
  /** Quoted and sorted, so that their physical order does not matter. */
  readonly columns: string;
}

async function listTables(client: pg.Client): Promise<Map<string, Table>> {
  const { rows } = await client.query<Table & { name: string }>(`
    SELECT n.nspname || '.' || c.relname AS name,
           format(CASE c.relkind WHEN 'r' THEN 'ONLY %I.%I' ELSE '%I.%I' END, n.nspname, c.relname) AS "from",
           coalesce(string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C"), '') AS columns
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
       AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'ibex')
     GROUP BY n.nspname, c.relname, c.relkind`);
  return new Map(rows.map(({ name, ...table }) => [name, table]));
}

type Side = [client: pg.Client, table: Table | undefined];

async function compareTable(name: string, source: Side, target: Side): Promise<string | undefined> {
  const [left, right] = [source[1], target[1]];
  if (!left || !right) return left ? 'not in target' : right ? 'not in source' : `no such table: ${name}`;
  if (left.columns !== right.columns)
    return `columns (${left.columns}) in source, (${right.columns}) in target`;
  const digests = await Promise.all([digest(source[0], left), digest(target[0], right)]);
  if (digests[0] === digests[1]) return undefined;
  // Of text in another encoding the hash is another one, too: then only the rows tell.
  const [here, there] = await Promise.all([countRows(source[0], left), countRows(target[0], right)]);
  const [more, less] = [describeExcess(here, there), describeExcess(there, here)];
  return more === NONE && less === NONE ? undefined : `only in source ${more}; only in target ${less}`;
}

/** Number of rows and sum of their hashes: the order of rows does not matter, their number does. */
async function digest(client: pg.Client, { from, columns }: Table): Promise<string> {
  const { rows } = await client.query<{ digest: string }>(
    `SELECT count(*) || ' ' || coalesce(sum(hashtextextended(ROW(${columns})::text COLLATE "C", 0)::numeric), 0)
         AS digest
       FROM ${from}`,
  );
  return rows[0]?.digest ?? '';
}

/** Each different row as text, with how often it occurs. */
async function countRows(client: pg.Client, { from, columns }: Table): Promise<Map<string, number>> {
  const { rows } = await client.query<{ r: string; n: string }>(
    `SELECT ROW(${columns})::text COLLATE "C" AS r, count(*) AS n FROM ${from} GROUP BY 1 ORDER BY 1`,
  );
  return new Map(rows.map(({ r, n }) => [r, Number(n)]));
}

const NONE = '0 rows';

/** The number of rows that `other` lacks, and the first five of them. */
function describeExcess(rows: Map<string, number>, other: Map<string, number>): string {
  const excess = [...rows]
    .map(([row, count]) => ({ row, count: count - (other.get(row) ?? 0) }))
    .filter(({ count }) => count > 0);
  const total = excess.reduce((sum, { count }) => sum + count, 0);
  const examples = excess.slice(0, 5).map(({ row }) => (row.length > 200 ? `${row.slice(0, 200)}…` : row));
  return total === 0 ? NONE : `${total} rows, such as ${examples.join(' ')}`;
}

/** A Redis of one's own, or `undefined` (skip the test) where none is installed; under CI one has to be. */
export async function redisForTests(): Promise<RedisServer | undefined> {
  const redis = await startRedis();
  if (redis === undefined && process.env.CI)
    throw new Error('CI needs redis-server or valkey-server on the PATH');
  return redis;
}

/**
 * Tries until `probe` gives something truthy and returns it; an error counts as "not yet". The time-out is there to
 * tell what does not come, not to measure how fast it comes: machines that are busy with other tests are slow.
 */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  { timeout = 90_000, what }: { timeout?: number; what: string },
): Promise<T> {
  const began = Date.now();
  const deadline = began + timeout;
  let cause: unknown;
  for (;;) {
    try {
      const result = await probe();
      if (result) return result;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (Date.now() > deadline) throw new OutOfPatience(timeout, what, { cause });
    // Less and less often: some probes compare whole tables.
    await sleep(Math.min(250, 25 + (Date.now() - began) / 16));
  }
}
