/**
 * How a connection comes about: with TLS or without where the mode allows either, with the startup parameters that the
 * other end takes, and never through a pooler that gives out another backend at every turn.
 * Neighbours: url.ts (where to), tls.ts, pooler.ts, session.ts (what is done over it).
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { IbexError } from '../core/errors.ts';
import { driver } from './driver.ts';
import { toIbexError } from './errors.ts';
import { isPooled, requireOwnBackend } from './pooler.ts';
import { createSocket } from './socket.ts';
import { parseStartupOptions, type StartupSetting } from './startup-options.ts';
import { firstWay, otherWay, type Peer, peerOf, tellingError } from './tls.ts';
import { describeServer, parseUrl, type ServerConfig } from './url.ts';

/** How many milliseconds a connection attempt may take when the URL does not say. */
const CONNECT_TIMEOUT = 10_000;
/** How long the first statement may take: a pooler takes connections also when it has no backend for them. */
const ANSWER_TIMEOUT = 60_000;
/** And how long the other end may take to close. */
const END_MS = 2_000;

export interface Connected {
  readonly client: pg.Client;
  /** `host:port/database`, for messages. */
  readonly server: string;
  readonly peer: Peer;
  /** A pooler stands before the server; the connection has a backend of its own all the same. */
  readonly pooled: boolean;
}

/**
 * Connects. `shared`: also by way of a pooler that gives out another backend at every turn, for who sets nothing and
 * asks in single statements.
 * Errors: kinds `connection`, `authentication`, `unknown_database`, `unsupported`, `config`.
 */
export async function connect(url: string, name: string, shared = false): Promise<Connected> {
  const config = parseUrl(url);
  const server = describeServer(config);
  try {
    return await connectAs(config, server, name, shared);
  } catch (error) {
    throw toIbexError(error, server);
  }
}

async function connectAs(
  config: ServerConfig,
  server: string,
  name: string,
  shared: boolean,
): Promise<Connected> {
  const { client, used, left } = await tryInTurn(config, name);
  try {
    const pooled = await answered(isPooled(client), server);
    if (pooled && shared) return { client, server, peer: peerOf(used), pooled };
    if (pooled) await keepsBackend(client, used, server, name);
    for (const setting of left)
      await client.query('select pg_catalog.set_config($1, $2, false)', [...setting]);
    return { client, server, peer: peerOf(used), pooled };
  } catch (error) {
    await end(client);
    throw error;
  }
}

interface Opened {
  readonly client: pg.Client;
  /** What it was opened with. */
  readonly used: ServerConfig;
  /** The settings of `options` that were not taken at startup. */
  readonly left: readonly StartupSetting[];
}

/** With TLS and without, as far as the mode goes, until one is taken. */
async function tryInTurn(config: ServerConfig, name: string): Promise<Opened> {
  const first = firstWay(config);
  try {
    return await open(first, name);
  } catch (error) {
    const second = otherWay(config, error);
    if (second === undefined) throw error;
    return open(second, name).catch((another) => {
      throw tellingError(error, another);
    });
  }
}

/** Opens one connection, without options where a pooler does not take them at startup. */
async function open(used: ServerConfig, name: string): Promise<Opened> {
  const { options, ...rest } = used;
  try {
    return { client: await start(used, name), used, left: [] };
  } catch (error) {
    if (options === undefined || !/unsupported startup parameter/i.test((error as Error).message))
      throw error;
  }
  const left = parseStartupOptions(options);
  return { client: await start(rest, name), used, left };
}

async function start(config: pg.ClientConfig, name: string): Promise<pg.Client> {
  const client = new driver.Client({
    connectionTimeoutMillis: CONNECT_TIMEOUT,
    ...config,
    application_name: name,
    stream: createSocket,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  });
  // What happens between two statements comes out at the next one.
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (error) {
    await end(client);
    throw error;
  }
}

/** Ends it as the protocol wants it; the other end, which may never answer, is not waited for long. */
export async function end(client: pg.Client): Promise<void> {
  const ended = client.end().catch(() => undefined);
  const left = await Promise.race([ended, sleep(END_MS, true, { ref: false })]);
  if (left) (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
}

/** Errors: `connection` when the answer does not come in time. */
export async function answered<T>(answer: Promise<T>, server: string, withinMs = ANSWER_TIMEOUT): Promise<T> {
  const done = new AbortController();
  const late = sleep(withinMs, undefined, { signal: done.signal, ref: false }).then(
    () => {
      throw new IbexError('connection', `${server}: the connection was taken, but no statement is answered`, {
        hint: 'If a pooler stands before the server, its pool is used up: raise pool_size, or connect to the server.',
      });
    },
    () => new Promise<never>(() => {}),
  );
  try {
    return await Promise.race([answer, late]);
  } finally {
    done.abort();
  }
}

/** Places that are known to keep one backend for one connection; asked once for all sessions of a process. */
const proven = new Map<string, Promise<void>>();

async function keepsBackend(
  client: pg.Client,
  config: ServerConfig,
  server: string,
  name: string,
): Promise<void> {
  const place = JSON.stringify([server, config.user]);
  let proof = proven.get(place);
  if (proof === undefined) {
    proof = requireOwnBackend(client, server, async () => (await open(config, name)).client);
    proven.set(place, proof);
    proof.catch(() => proven.delete(place));
  }
  await proof;
  // A pool that does not clean up after others has left their settings and temporary tables.
  await client.query('discard all');
}
