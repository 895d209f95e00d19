/**
 * From what a server or a socket says to the kinds of `core/errors.ts`. The only file that reads SQLSTATEs.
 */
import { type ErrorKind, IbexError } from '../core/errors.ts';
import { driver } from './driver.ts';
import { NO_TLS } from './tls.ts';

/** SQLSTATEs, whole or by class (two characters), most specific first. */
const BY_STATE: readonly (readonly [state: string, kind: ErrorKind])[] = [
  ['28000', 'authentication'],
  ['28P01', 'authentication'],
  ['3D000', 'unknown_database'],
  ['42501', 'privilege'],
  ['55P03', 'lock'],
  ['57P04', 'unknown_database'],
  ['40', 'transient'],
  ['57014', 'transient'],
  ['57', 'connection'],
  ['08', 'connection'],
  ['53', 'resources'],
  ['58', 'resources'],
  ['23', 'constraint'],
  ['21', 'constraint'],
  ['42P01', 'schema_mismatch'],
  ['42703', 'schema_mismatch'],
  ['42', 'schema_mismatch'],
  ['22', 'schema_mismatch'],
  ['2BP01', 'schema_mismatch'],
  ['0A', 'schema_mismatch'],
  ['54', 'schema_mismatch'],
  ['P0', 'constraint'],
  ['25006', 'unsupported'],
  ['XX', 'server_fault'],
];

/** Codes that Node's sockets and resolver give. */
const SOCKET_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'ENOENT',
  'EACCES',
]);

/** What OpenSSL and Node say about certificates. */
const CERTIFICATE = /^(ERR_TLS|CERT_|UNABLE_|SELF_SIGNED|DEPTH_ZERO)/;
/** What PgBouncer says when it has no connection to give. */
const POOL_USED_UP = /^(query_wait_timeout|no more connections allowed)/;

/** A constraint, lock or column in trouble, as the server names it. */
export interface ServerError {
  readonly state: string;
  readonly constraint: string | undefined;
  readonly table: string | undefined;
  /** DETAIL, which quotes values: for violations of unique and foreign keys those of the key. */
  readonly detail: string | undefined;
}

/** What the server says about an error that came from it; undefined for any other error. */
export function serverError(error: unknown): ServerError | undefined {
  const cause = error instanceof IbexError ? error.cause : error;
  if (!(cause instanceof driver.DatabaseError) || cause.code === undefined) return undefined;
  const table = cause.schema && cause.table ? `${cause.schema}.${cause.table}` : undefined;
  return { state: cause.code, constraint: cause.constraint, table, detail: cause.detail };
}

function kindOf(error: unknown): ErrorKind {
  if (error instanceof driver.DatabaseError && error.code !== undefined) {
    const state = error.code;
    // What the server says and nobody here has thought of may pass; a daemon goes on trying.
    return BY_STATE.find(([prefix]) => state.startsWith(prefix))?.[1] ?? 'transient';
  }
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === 'string' && (SOCKET_CODES.has(code) || CERTIFICATE.test(code))) return 'connection';
  const message = error instanceof Error ? error.message : String(error);
  // Not a matter of waiting: the server's administrator or the URL has to change.
  if (message === NO_TLS) return 'unsupported';
  if (
    /Connection terminated|Client has encountered a connection error|timeout expired|not queryable|SSL/i.test(
      message,
    )
  ) {
    return 'connection';
  }
  if (/password must be a string|SASL/.test(message)) return 'authentication';
  return 'internal';
}

/**
 * Wraps what `pg` threw. `server` is `host:port/database`. The server's message is kept, its DETAIL is not: it
 * may quote values of the row.
 */
export function toIbexError(error: unknown, server: string): IbexError {
  if (error instanceof IbexError) return error;
  const kind = kindOf(error);
  const { code } = error as { code?: string };
  // Several addresses of a host that all failed come as an error without text.
  const message = (error instanceof Error ? error.message : String(error)) || code || 'unknown error';
  if (kind === 'authentication' && /password must be a string/.test(message)) {
    return new IbexError(kind, `${server}: the server asks for a password and none was given`, {
      hint: 'Put it into the URL, PGPASSWORD or ~/.pgpass.',
      cause: error,
    });
  }
  const hint = missesPartition(error) ? MISSING_PARTITION : hintOn(message, code);
  return new IbexError(kind, `${server}: ${message}`, { cause: error, ...(hint && { hint }) });
}

const MISSING_PARTITION =
  'Create the partition on the target, for the values that it has on the source; the table goes on by itself.';

/** A row that no partition takes violates a check that has no name. */
function missesPartition(error: unknown): boolean {
  return error instanceof driver.DatabaseError && error.code === '23514' && error.constraint === undefined;
}

/** What to do, where the kind alone would point to the wrong place. */
function hintOn(message: string, code: string | undefined): string | undefined {
  if (POOL_USED_UP.test(message))
    return 'Raise pool_size and max_client_conn of the pooler, or connect to the server itself.';
  if (message === NO_TLS) return 'Turn TLS on at the server, or connect with sslmode=prefer or disable.';
  if (code !== undefined && CERTIFICATE.test(code)) return 'Check sslmode and sslrootcert of the URL.';
  return undefined;
}
