/**
 * The places of the demo: two PostgreSQL clusters of its own, a Redis if this machine has one, and a role that
 * may nothing but own its database. The superuser makes role and database and is not heard of again.
 */
import { randomBytes } from 'node:crypto';
import { basename } from 'node:path';
import pg from 'pg';
import { type Cluster, startCluster } from '../embedded/cluster.ts';
import { ServerHome } from '../embedded/process.ts';
import { findRedisServer, startRedis } from '../embedded/redis.ts';
import type { Belongings } from './belongings.ts';

/** Name of the role and of its database on both sides. */
export const NAME = 'shop';

export interface Places {
  /** URLs of the role, password included. */
  readonly source: string;
  readonly target: string;
  readonly redis: string | undefined;
  /** What carries the queue, and how to see the other way. */
  readonly queue: { readonly kind: 'redis' | 'in-process'; readonly text: string };
  /** The server's own, such as `18.4`. */
  readonly version: string;
  /** A directory that goes with the demo, for logs and as home of the programs it starts. */
  readonly directory: string;
}

export async function startServers(belongings: Belongings, wantsRedis: boolean): Promise<Places> {
  const home = await ServerHome.make('ibex-demo-', { quit: 'SIGKILL' });
  belongings.add(() => home.remove());
  const [source, target, queue] = await Promise.all([
    startSide('source', belongings),
    startSide('target', belongings),
    startQueue(belongings, wantsRedis),
  ]);
  return {
    source: source.url,
    target: target.url,
    version: source.version,
    directory: home.directory,
    ...queue,
  };
}

async function startSide(name: string, belongings: Belongings): Promise<{ url: string; version: string }> {
  const cluster = await startCluster({ name });
  belongings.add(() => cluster.remove());
  return createDatabase(cluster);
}

async function createDatabase(cluster: Cluster): Promise<{ url: string; version: string }> {
  const password = randomBytes(12).toString('hex');
  const superuser = await connect(cluster.superuserUrl, 'demo:create');
  try {
    await superuser.query(
      `CREATE ROLE ${NAME} LOGIN NOSUPERUSER NOREPLICATION NOBYPASSRLS NOCREATEDB NOCREATEROLE
       PASSWORD ${pg.escapeLiteral(password)}`,
    );
    await superuser.query(`CREATE DATABASE ${NAME} OWNER ${NAME}`);
    const { rows } = await superuser.query<{ server_version: string }>('SHOW server_version');
    const version = rows[0]?.server_version.split(' ')[0] ?? '';
    return { url: cluster.url({ user: NAME, password, database: NAME }), version };
  } finally {
    await superuser.end();
  }
}

async function startQueue(belongings: Belongings, wanted: boolean): Promise<Pick<Places, 'redis' | 'queue'>> {
  const executable = wanted ? findRedisServer() : undefined;
  if (executable === undefined) {
    const how = wanted
      ? 'put redis-server or valkey-server on the PATH to see it in Redis'
      : 'without --no-redis it is in Redis, if there is one';
    return { redis: undefined, queue: { kind: 'in-process', text: `inside the process (${how})` } };
  }
  const redis = await startRedis().catch((error: Error) => error);
  if (redis === undefined || redis instanceof Error) {
    return {
      redis: undefined,
      queue: { kind: 'in-process', text: `inside the process (${redis?.message ?? 'there is no Redis'})` },
    };
  }
  belongings.add(() => redis.stop());
  const text = `a ${basename(executable)} of its own (with --no-redis: inside the process)`;
  return { redis: redis.url, queue: { kind: 'redis', text } };
}

/** A connection of the demo's. Servers go away under idle ones at the end; whoever uses one is told by its query. */
export async function connect(url: string, name: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: name });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
