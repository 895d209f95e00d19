/**
 * The Redis server as the queue uses it: how connections behave when it is away, whether it can be used at all, and
 * what may be said about it in messages.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { ConnectionOptions } from 'node:tls';
import type { Redis, RedisOptions } from 'ioredis';
import type { Logger } from 'pino';
import { IbexError } from '../core/errors.ts';

/** Where Redis is, and how it is reached. */
export interface RedisPlace {
  readonly url: string;
  /** For rediss:// only; undefined: verified by the public CAs. */
  readonly tls?: ConnectionOptions | undefined;
}

/** For the driver, beside the URL. */
export function tlsOf({ tls }: RedisPlace): Pick<RedisOptions, 'tls'> {
  return tls === undefined ? {} : { tls };
}

/** A server that stands still is given up after this; BullMQ's own waits last half as long. */
const SILENCE_MS = 10_000;

/** Of the queue and of its worker. What BullMQ would check, and print to the console, is checked here. */
export const BULLMQ = { prefix: '{ibex}', skipVersionCheck: true };

export const CONNECTION = {
  retryStrategy: (times: number) => Math.min(50 * times, 1000),
  socketTimeout: SILENCE_MS,
  keepAlive: SILENCE_MS,
};

/** A command that Redis did not take or not answer fails at once; the reader starts again anyway. */
export const FAIL_FAST = {
  ...CONNECTION,
  lazyConnect: true,
  enableOfflineQueue: false,
  // Not `autoResendUnfulfilledCommands: false`: that leaves unanswered commands pending for ever.
  maxRetriesPerRequest: 0,
} satisfies RedisOptions;

/** What the driver says of commands that it could not send, or that were not answered. */
const NO_CONNECTION = /isn't writeable|max retries per request|Connection is closed|Command aborted/;

/** The name of a sync as it can stand in keys, job ids and patterns of SCAN. */
export function keyName(sync: string): string {
  return encodeURIComponent(sync).replaceAll('*', '%2A');
}

/** The server for messages: without user and password. */
export function describeServer(url: string): string {
  const { protocol, host, pathname } = URL.canParse(url) ? new URL(url) : { protocol: '' };
  if (protocol !== 'redis:' && protocol !== 'rediss:') {
    throw new IbexError('config', 'the URL of Redis must begin with redis:// or rediss://');
  }
  return `${protocol}//${host}${pathname}`;
}

/** Says aloud what somebody between here and Redis could do. */
export function warnOfPeer(place: RedisPlace, sealed: boolean, log: Logger): void {
  const { protocol, hostname } = new URL(place.url);
  if (hostname === 'localhost' || hostname === '[::1]' || /^127\.[\d.]+$/.test(hostname)) return;
  const at = `Redis at ${describeServer(place.url)}`;
  if (protocol === 'redis:' && !sealed)
    log.warn(`${at}: the connection is not encrypted, rows can be read on the way; use rediss://`);
  if (place.tls?.rejectUnauthorized === false)
    log.warn(`${at}: nobody checks who answers; give the CA's certificate with redis_ca`);
}

/** Rejects with the cause where the driver's own promise only says that the connection is closed. */
export async function connect(client: Redis, log: Logger): Promise<void> {
  let cause: Error | undefined;
  client.on('error', (error) => {
    cause = error;
    log.debug(`redis: ${error.message}`);
    // The driver listens once only, and a refused certificate makes a TLS socket fail twice.
    client.stream?.on('error', () => {});
  });
  await client.connect().catch((error) => {
    throw cause ?? error;
  });
}

export function connectError(error: unknown, server: string): IbexError {
  if (error instanceof IbexError) return error;
  const { message, code } = error as NodeJS.ErrnoException;
  const refused = /^(WRONGPASS|NOAUTH|NOPERM)/.test(message);
  // Never as `cause`: the driver's errors carry the command, and with it the password.
  return new IbexError(
    refused ? 'authentication' : 'queue',
    `cannot use Redis at ${server}: ${message || code}`,
  );
}

/** What became of a command. */
export function commandError(error: unknown, server: string): IbexError {
  if (error instanceof IbexError) return error;
  // Never as `cause`: the driver's errors carry the command, and with it rows.
  const { message } = error as Error;
  const what = NO_CONNECTION.test(message) ? 'the connection is lost' : message;
  return new IbexError('queue', `Redis at ${server}: ${what}`);
}

/** How long closing gives Redis to take in what the last job came to. */
export const CLOSE_MS = 2000;

/** Waits for `work`, but not for ever, and whatever it comes to. */
export async function within(ms: number, work: Promise<unknown>): Promise<void> {
  const done = new AbortController();
  const timeout = delay(ms, undefined, { signal: done.signal }).catch(() => {});
  await Promise.race([work.catch(() => {}), timeout]);
  done.abort();
}

/** `INFO` tells the policy too, and is allowed where managed services forbid `CONFIG GET`. */
export function checkServer(info: string, server: string, log: Logger): void {
  const field = (name: string) => new RegExp(`^${name}:(.*?)\r?$`, 'm').exec(info)?.[1];
  const version = field('redis_version') ?? '0';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 6 || (major === 6 && minor < 2)) {
    throw new IbexError('unsupported', `Redis at ${server} is version ${version}, too old`, {
      hint: 'Use Redis 6.2 or later, or Valkey.',
    });
  }
  const policy = field('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction') {
    log.warn(`Redis at ${server} may drop data (maxmemory-policy ${policy}); set it to noeviction`);
  }
}
