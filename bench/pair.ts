/**
 * The two servers of a benchmark, and the databases on them. Both servers have the same settings and sync to
 * disk. Databases are made from templates, so that every run starts from the same bytes.
 *
 * Ibex connects as the owner of the database, a role without any special right. The superuser is for what is no
 * part of it: making databases, CHECKPOINT, and native logical replication, which cannot do without.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { type Cluster, startCluster } from '../src/embedded/cluster.ts';

/** Beyond the defaults: room enough that no checkpoint is forced in the middle of a run. */
const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '8GB',
  min_wal_size: '2GB',
  checkpoint_timeout: '1h',
  max_connections: '100',
};
const OWNER = 'bench';

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
  readonly superuser: pg.Client;
  /** With it the other server can connect to this one as superuser. */
  readonly superuserLogin: Login;
  readonly superuserUrl: string;
}

/** A database of the same name on both servers. */
export interface Databases {
  readonly name: string;
  readonly source: Side;
  readonly target: Side;
  drop(): Promise<void>;
}

export interface Templates {
  readonly source: string;
  readonly target: string;
}

export class Pair {
  readonly source: Cluster;
  readonly target: Cluster;
  readonly #password: string;

  private constructor(source: Cluster, target: Cluster, password: string) {
    this.source = source;
    this.target = target;
    this.#password = password;
  }

  /** With servers of another installation than the embedded one where its directory is given. */
  static async start(installation?: string): Promise<Pair> {
    const started = await Promise.allSettled([
      startCluster({ name: 'bench-source', settings: SETTINGS, installation }),
      startCluster({ name: 'bench-target', settings: SETTINGS, installation }),
    ]);
    const clusters = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    try {
      const failure = started.find((one) => one.status === 'rejected');
      if (failure !== undefined) throw failure.reason;
      const [source, target] = clusters as [Cluster, Cluster];
      const pair = new Pair(source, target, randomBytes(12).toString('hex'));
      await pair.#makeOwner();
      return pair;
    } catch (error) {
      await Promise.all(clusters.map((cluster) => cluster.remove()));
      throw error;
    }
  }

  async #makeOwner(): Promise<void> {
    await this.#onBoth(async (superuser) => {
      await superuser.query(
        `create role ${OWNER} login nosuperuser noreplication nocreaterole nocreatedb nobypassrls
         password ${pg.escapeLiteral(this.#password)}`,
      );
    });
  }

  /** Makes the database `name` on both servers, from a template where one is given. */
  async create(name: string, templates?: Templates): Promise<Databases> {
    const sides: Side[] = [];
    for (const side of ['source', 'target'] as const) {
      const template = templates === undefined ? '' : `template ${templates[side]} strategy file_copy`;
      await withClient(this[side].superuserUrl, (superuser) =>
        superuser.query(`create database ${name} owner ${OWNER} ${template}`),
      );
      sides.push(await this.#open(this[side], name));
    }
    const [source, target] = sides as [Side, Side];
    return { name, source, target, drop: () => this.#drop(name, sides) };
  }

  async #open(cluster: Cluster, database: string): Promise<Side> {
    const superuserUrl = new URL(cluster.superuserUrl);
    superuserUrl.pathname = database;
    const login = { host: '127.0.0.1', port: cluster.port, user: OWNER, password: this.#password, database };
    const url = cluster.url(login);
    const superuser = await connect(superuserUrl.href);
    await superuser.query(`grant all on schema public to ${OWNER}`);
    return {
      url,
      login,
      superuser,
      superuserUrl: superuserUrl.href,
      superuserLogin: { ...login, user: superuserUrl.username, password: superuserUrl.password },
      owner: await connect(url),
    };
  }

  async #drop(name: string, sides: readonly Side[]): Promise<void> {
    await Promise.all(sides.flatMap((side) => [side.owner.end(), side.superuser.end()]));
    await this.#onBoth((superuser) => superuser.query(`drop database ${name} with (force)`));
  }

  async #onBoth(work: (superuser: pg.Client) => Promise<unknown>): Promise<void> {
    for (const { superuserUrl } of [this.source, this.target]) await withClient(superuserUrl, work);
  }

  /** What the report says about the servers. */
  async describe(): Promise<object> {
    return withClient(this.source.superuserUrl, async (superuser) => {
      const { rows } = await superuser.query(
        `select current_setting('server_version') as postgresql,
                (select json_object_agg(name, current_setting(name)) from pg_settings
                  where name = any ($1)) as settings`,
        [['fsync', 'synchronous_commit', 'wal_level', 'autovacuum', ...Object.keys(SETTINGS)]],
      );
      return rows[0];
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.source.remove(), this.target.remove()]);
  }
}

export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  // Servers are removed under their connections when a benchmark fails; the failure itself says more.
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(url);
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Writes down what a run left in memory, so that the next one does not pay for it. */
export async function checkpoint({ source, target }: Databases): Promise<void> {
  for (const side of [source, target]) await side.superuser.query('checkpoint');
}

/** Rests both servers, so that a run does not pay for what came before it. */
export async function settle(databases: Databases): Promise<void> {
  for (const side of [databases.source, databases.target]) {
    await side.superuser.query('vacuum analyze');
    await side.superuser.query('checkpoint');
  }
}
