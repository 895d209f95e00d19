/**
 * The two servers as a scenario has them, and the databases that it makes there: from templates, so that every run
 * starts from the same bytes. It leaves none of them behind.
 *
 * On servers of our own, Ibex connects as the owner of the database, a role without any special right. The superuser is
 * for what is no part of it: making databases, CHECKPOINT, and native logical replication, which cannot do without.
 * On the servers of somebody else all are one role, that of the URL.
 */
import pg from 'pg';
import type { Server } from './servers.ts';

export interface Login {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly database: string;
}

/** One database of a side: its URL for programs, and two connections. */
export interface Side {
  readonly url: string;
  readonly login: Login;
  /** As the owner of the tables. */
  readonly owner: pg.Client;
  /** The owner as well where there is no superuser. */
  readonly superuser: pg.Client;
  readonly hasSuperuser: boolean;
  /** With it the other server can connect to this one as superuser. */
  readonly superuserLogin: Login;
  readonly superuserUrl: string;
}

/** A database on each server. */
export interface Databases {
  readonly name: string;
  readonly source: Side;
  readonly target: Side;
  drop(): Promise<void>;
}

/** The names of databases that others are made from. */
export interface Templates {
  readonly source: string;
  readonly target: string;
}

/** The settings that a report names. */
const TOLD = [
  ...['fsync', 'synchronous_commit', 'wal_level', 'autovacuum', 'shared_buffers', 'max_wal_size'],
  ...['min_wal_size', 'checkpoint_timeout', 'max_connections'],
];

export class Pair {
  readonly source: Server;
  readonly target: Server;
  readonly #prefix: string;
  /** What is to be removed, by the name of the database. */
  readonly #made = new Map<string, Databases>();

  /** @param prefix of the names of all databases */
  constructor(source: Server, target: Server, prefix: string) {
    this.source = source;
    this.target = target;
    this.#prefix = prefix;
  }

  /** Makes a database on both servers, from a template where one is given. Its `name` is longer where others have databases. */
  async create(name: string, templates?: Templates): Promise<Databases> {
    const full = `${this.#prefix}${name}`;
    const source = await makeSide(this.source, this.#nameOn('source', full), templates?.source);
    const target = await makeSide(this.target, this.#nameOn('target', full), templates?.target).catch(
      async (error) => {
        await dropSide(this.source, source);
        throw error;
      },
    );
    const drop = async () => {
      await dropSide(this.source, source);
      await dropSide(this.target, target);
      this.#made.delete(full);
    };
    const databases = { name: full, source, target, drop };
    this.#made.set(full, databases);
    return databases;
  }

  /** Both may be one server where it is somebody else's. */
  #nameOn(side: 'source' | 'target', name: string): string {
    return this.#prefix === '' ? name : `${name}_${side}`;
  }

  /** What the report says about the servers. */
  async describe(): Promise<object> {
    return withClient(this.source.superuserUrl, async (superuser) => {
      const { rows } = await superuser.query(
        `select current_setting('server_version') as postgresql,
                (select json_object_agg(name, current_setting(name)) from pg_settings
                  where name = any ($1)) as settings`,
        [TOLD],
      );
      return rows[0];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const databases of [...this.#made.values()].reverse()) await databases.drop();
  }
}

async function makeSide(server: Server, database: string, template: string | undefined): Promise<Side> {
  await withClient(server.superuserUrl, async (superuser) => {
    const { rows } = await superuser.query(`select current_setting('server_version_num')::int4 as version`);
    // Copying files is the only way before PostgreSQL 15, and later the faster one for what is larger than a little.
    const how = rows[0].version >= 150_000 ? 'strategy file_copy' : '';
    const from = template === undefined ? '' : `template ${template} ${how}`;
    await superuser.query(
      `create database ${database} owner ${pg.escapeIdentifier(server.owner.user)} ${from}`,
    );
  });
  const superuserUrl = new URL(server.superuserUrl);
  superuserUrl.pathname = database;
  const url = new URL(superuserUrl);
  url.username = encodeURIComponent(server.owner.user);
  url.password = encodeURIComponent(server.owner.password);
  const superuser = await connect(superuserUrl.href);
  if (server.hasSuperuser) {
    await superuser.query(`grant all on schema public to ${pg.escapeIdentifier(server.owner.user)}`);
  }
  return {
    url: url.href,
    login: loginOf(url),
    owner: await connect(url.href),
    superuser,
    hasSuperuser: server.hasSuperuser,
    superuserLogin: loginOf(superuserUrl),
    superuserUrl: superuserUrl.href,
  };
}

async function dropSide(server: Server, { owner, superuser, login: { database } }: Side): Promise<void> {
  await Promise.all([owner.end(), superuser.end()]);
  await withClient(server.superuserUrl, async (client) => {
    await client.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
      database,
    ]);
    await client.query(`drop database ${database}`);
  });
}

function loginOf({ hostname, port, username, password, pathname }: URL): Login {
  return {
    host: hostname,
    port: Number(port || 5432),
    user: decodeURIComponent(username),
    password: decodeURIComponent(password),
    database: pathname.slice(1),
  };
}

export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  // Servers are removed under their connections when a benchmark fails; the failure itself says more.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(url);
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Writes down what a run left in memory, so that the next one does not pay for it. Without a superuser it may. */
export async function checkpoint({ source, target }: Databases): Promise<void> {
  for (const side of [source, target]) if (side.hasSuperuser) await side.superuser.query('checkpoint');
}

/** Rests both servers, so that a run does not pay for what came before it. */
export async function settle(databases: Databases): Promise<void> {
  for (const side of [databases.source, databases.target]) await side.superuser.query('vacuum analyze');
  await checkpoint(databases);
}
