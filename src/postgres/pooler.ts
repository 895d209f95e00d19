/**
 * Poolers between us and a server, such as PgBouncer. One that gives every transaction another backend takes away what
 * a session stands on: its settings, its temporary tables, its advisory locks; and it would leave our settings behind on
 * the application's connections. So it is recognised before anything is set, by what can be seen through any pooler:
 * which backend answers. Neighbour: connecting.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { IbexError } from '../core/errors.ts';

/** How many other connections are asked at once whether they were given the backend that is ours. */
const OTHERS = 3;
/** A pool that has no backend left does not answer; that says nothing about whose the others are. */
const PATIENCE_MS = 3_000;

/**
 * Whether somebody stands between `client` and the server. The key for cancelling that came with the connection names
 * the backend; a pooler makes up one of its own, as it does not know yet which backend that will be.
 */
export async function isPooled(client: pg.Client): Promise<boolean> {
  const { processID } = client as unknown as { processID: number | null };
  return processID !== (await backendOf(client));
}

/** What poolers that give out each statement by itself say to BEGIN. */
const NO_TRANSACTIONS = /transaction blocks not allowed|statement pooling/i;

/**
 * Refuses a pooler that does not keep one backend for one connection. Seen in one of two ways: a second connection is
 * given the backend of the first, which is still open; or the first is given another one while others are kept busy.
 * @param connect opens one more connection to the same place
 * @throws IbexError `unsupported`
 */
export async function requireOwnBackend(
  client: pg.Client,
  server: string,
  connect: () => Promise<pg.Client>,
): Promise<void> {
  const others: pg.Client[] = [];
  try {
    const mine = await backendOf(client);
    for (let n = 0; n < OTHERS; n++) {
      const other = await connect();
      others.push(other);
      const theirs = await within(occupied(other, server));
      if (theirs === undefined) break;
      if (theirs === mine) throw sharedBackends(server);
      const now = await within(backendOf(client));
      if (now === undefined) break;
      if (now !== mine) throw sharedBackends(server);
    }
    close(others);
    if ((await backendOf(client)) !== mine) throw sharedBackends(server);
  } finally {
    close(others);
  }
}

/** What is wrong with a pooler that shares backends, and what to do. */
export function sharedBackends(server: string): IbexError {
  return new IbexError(
    'unsupported',
    `${server}: a pooler stands before the server and gives each transaction another backend; ` +
      'settings, temporary tables and advisory locks of a session do not survive that',
    { hint: 'Connect to the server itself, or through a pool with pool_mode = session.' },
  );
}

/** The backend of a connection that is in a transaction from now on. */
async function occupied(client: pg.Client, server: string): Promise<number> {
  try {
    await client.query('begin');
  } catch (error) {
    throw NO_TRANSACTIONS.test((error as Error).message) ? sharedBackends(server) : error;
  }
  return backendOf(client);
}

async function backendOf(client: pg.Client): Promise<number> {
  const { rows } = await client.query('select pg_catalog.pg_backend_pid() as pid');
  return rows[0].pid;
}

/** Undefined when the answer does not come in time. */
async function within<T>(answer: Promise<T>): Promise<T | undefined> {
  const done = new AbortController();
  const late = sleep(PATIENCE_MS, undefined, { signal: done.signal }).catch(() => undefined);
  answer.catch(() => undefined);
  try {
    return await Promise.race([answer, late]);
  } finally {
    done.abort();
  }
}

/** At once: one that waits for a backend would wait with its goodbye, too. */
function close(clients: pg.Client[]): void {
  for (const client of clients.splice(0)) {
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  }
}
