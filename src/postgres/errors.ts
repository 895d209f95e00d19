/**
 * From what a server or a socket says to the kinds of `core/errors.ts`. The only file that reads SQLSTATEs.
 */
import pg from 'pg';
import { type ErrorKind, IbexError } from '../core/errors.ts';

/** SQLSTATEs, whole or by class (two characters), most specific first. */
const BY_STATE: readonly (readonly [state: string, kind: ErrorKind])[] = [
  ['28000', 'authentication'],
  ['28P01', 'authentication'],
  ['3D000', 'unknown_database'],
  ['42501', 'privilege'],
  ['55P03', 'lock'],
  ['40', 'transient'],
  ['57014', 'transient'],
  ['57', 'connection'],
  ['08', 'connection'],
  ['53', 'resources'],
  ['23', 'constraint'],
  ['21', 'constraint'],
  ['42P01', 'schema_mismatch'],
  ['42703', 'schema_mismatch'],
  ['42', 'schema_mismatch'],
  ['22', 'schema_mismatch'],
  ['2BP01', 'schema_mismatch'],
  ['25006', 'unsupported'],
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

/** A constraint, lock or column in trouble, as the server names it. */
export interface ServerError {
  readonly state: string;
  readonly constraint: string | undefined;
  readonly table: string | undefined;
}

/** What the server says about an error that came from it; undefined for any other error. */
export function serverError(error: unknown): ServerError | undefined {
  const cause = error instanceof IbexError ? error.cause : error;
  if (!(cause instanceof pg.DatabaseError) || cause.code === undefined) return undefined;
  const table = cause.schema && cause.table ? `${cause.schema}.${cause.table}` : undefined;
  return { state: cause.code, constraint: cause.constraint, table };
}

function kindOf(error: unknown): ErrorKind {
  if (error instanceof pg.DatabaseError && error.code !== undefined) {
    const state = error.code;
    return BY_STATE.find(([prefix]) => state.startsWith(prefix))?.[1] ?? 'internal';
  }
  const code = (error as { code?: unknown } | null)?.code;
  if (
    typeof code === 'string' &&
    (SOCKET_CODES.has(code) || /^(ERR_TLS|CERT_|UNABLE_|SELF_SIGNED|DEPTH_ZERO)/.test(code))
  ) {
    return 'connection';
  }
  const message = error instanceof Error ? error.message : String(error);
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
  const message = error instanceof Error ? error.message || error.name : String(error);
  if (kind === 'authentication' && /password must be a string/.test(message)) {
    return new IbexError(kind, `${server}: the server asks for a password and none was given`, {
      hint: 'Put it into the URL, PGPASSWORD or ~/.pgpass.',
      cause: error,
    });
  }
  const code = (error as { code?: string }).code;
  const what = message || code || 'unknown error';
  return new IbexError(kind, `${server}: ${what}`, { cause: error });
}
