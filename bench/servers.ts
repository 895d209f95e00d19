/**
 * The servers of a call: two of our own with equal settings, which sync to disk, started when a scenario first asks for
 * them and gone with the call; or, with `--against`, two of somebody else, on which nothing is touched but the
 * databases that the benchmark makes, with names that begin with `ibex_bench_`.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { IbexError } from '../src/core/errors.ts';
import { type Cluster, startCluster } from '../src/embedded/cluster.ts';
import { Pair, withClient } from './pair.ts';
import { distributionServers } from './programs.ts';

/** Beyond the defaults: room enough that no checkpoint is forced in the middle of a run. */
const SETTINGS = {
  shared_buffers: '512MB',
  max_wal_size: '8GB',
  min_wal_size: '2GB',
  checkpoint_timeout: '1h',
  max_connections: '100',
};
const OWNER = 'bench';

export interface Server {
  /** Of a role that may create databases; of a superuser if `hasSuperuser`. */
  readonly superuserUrl: string;
  readonly hasSuperuser: boolean;
  /** Whom the databases belong to. */
  readonly owner: { readonly user: string; readonly password: string };
  /** Only where its processes can be looked at. */
  readonly cluster: Cluster | undefined;
}

/** Which servers of our own: the embedded ones, or those of the distribution where it has any. */
export type Which = 'embedded' | 'distribution';

type Both = readonly [source: Server, target: Server];

export class Servers {
  readonly #against: Both | undefined;
  readonly #own = new Map<string, Promise<Both>>();
  readonly #prefix: string;
  #lent: Pair | undefined;

  private constructor(against: Both | undefined) {
    this.#against = against;
    this.#prefix = against === undefined ? '' : `ibex_bench_${randomBytes(4).toString('hex')}_`;
  }

  /** Looks at the servers of `--against`: throws where they cannot be reached or do not let databases be made. */
  static async of(against: readonly [string, string] | undefined): Promise<Servers> {
    if (against === undefined) return new Servers(undefined);
    return new Servers([await lookAt(against[0]), await lookAt(against[1])]);
  }

  /** Whether both let a superuser in, without whom native logical replication cannot be set up. */
  get hasSuperusers(): boolean {
    return this.#against?.every(({ hasSuperuser }) => hasSuperuser) ?? true;
  }

  /** For one scenario at a time, which disposes of it. */
  async lend(which: Which): Promise<Pair> {
    const installation = which === 'distribution' ? distributionServers() : undefined;
    const [source, target] = this.#against ?? (await this.#start(installation));
    this.#lent = new Pair(source, target, this.#prefix);
    return this.#lent;
  }

  #start(installation: string | undefined): Promise<Both> {
    const key = installation ?? '';
    const started = this.#own.get(key) ?? startBoth(installation);
    this.#own.set(key, started);
    return started;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cleanUp();
    await this.discard();
  }

  /** Removes what was made on the servers of others by a scenario that did not come to its end. */
  async cleanUp(): Promise<void> {
    if (this.#against === undefined) return;
    await this.#lent?.[Symbol.asyncDispose]().catch((error: Error) => {
      process.stderr.write(`error: databases ${this.#prefix}* were left behind: ${error.message}\n`);
    });
  }

  /** After a failure the next scenario gets new ones. */
  async discard(): Promise<void> {
    const all = [...this.#own.values()];
    this.#own.clear();
    for (const both of await Promise.allSettled(all)) {
      if (both.status === 'fulfilled') await Promise.all(both.value.map(({ cluster }) => cluster?.remove()));
    }
  }
}

async function startBoth(installation: string | undefined): Promise<Both> {
  const started = await Promise.allSettled(
    ['bench-source', 'bench-target'].map((name) => startCluster({ name, settings: SETTINGS, installation })),
  );
  const clusters = started.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  try {
    const failure = started.find((one) => one.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
    const servers = await Promise.all(clusters.map((cluster) => serverOf(cluster)));
    return servers as [Server, Server];
  } catch (error) {
    await Promise.all(clusters.map((cluster) => cluster.remove()));
    throw error;
  }
}

async function serverOf(cluster: Cluster): Promise<Server> {
  const owner = { user: OWNER, password: randomBytes(12).toString('hex') };
  await withClient(cluster.superuserUrl, (superuser) =>
    superuser.query(
      `create role ${OWNER} login nosuperuser noreplication nocreaterole nocreatedb nobypassrls
       password ${pg.escapeLiteral(owner.password)}`,
    ),
  );
  return { superuserUrl: cluster.superuserUrl, hasSuperuser: true, owner, cluster };
}

async function lookAt(address: string): Promise<Server> {
  const url = new URL(address);
  const role = await withClient(url.href, async (client) => {
    const { rows } = await client.query<{ name: string; superuser: boolean; creates: boolean }>(
      `select rolname as name, rolsuper as superuser, rolsuper or rolcreatedb as creates
         from pg_roles where rolname = current_user`,
    );
    return rows[0];
  });
  if (role?.creates !== true) {
    throw new IbexError('privilege', `${role?.name} may not create databases on ${url.host}`, {
      hint: `The benchmark works in databases of its own. Have an administrator run: alter role ${role?.name} createdb`,
    });
  }
  return {
    superuserUrl: url.href,
    hasSuperuser: role.superuser,
    owner: { user: decodeURIComponent(url.username), password: decodeURIComponent(url.password) },
    cluster: undefined,
  };
}
