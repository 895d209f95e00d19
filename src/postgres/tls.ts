/**
 * TLS as libpq means it: from sslmode and its companions to the options that node-postgres wants.
 *
 * node-postgres reads `require` as "verify against the public CAs" and so fails on most managed providers;
 * libpq reads it as "encrypt, whoever it is", unless a root certificate is at hand. `prefer` and `allow` may
 * need a second attempt: see `otherWay`. Neighbours: url.ts, which collects the settings; connecting.ts.
 */

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { IbexError } from '../core/errors.ts';

/** The accepted values of `sslmode`, from the weakest to the strictest. */
export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;

/**
 * What a connection can promise: `off` no TLS; `allowed` TLS if the server insists on it; `preferred` TLS if the
 * server speaks it; `unverified` always TLS, but whoever answers is believed; `verified` the certificate is checked.
 */
export type Tls = 'off' | 'allowed' | 'preferred' | 'unverified' | 'verified';

export interface TlsSettings {
  readonly sslmode?: string | undefined;
  /** A file of CA certificates, or `system`: the CAs that Node trusts (and NODE_EXTRA_CA_CERTS). */
  readonly sslrootcert?: string | undefined;
  readonly sslcert?: string | undefined;
  readonly sslkey?: string | undefined;
  /** A file of revoked certificates. It counts where certificates are verified. */
  readonly sslcrl?: string | undefined;
}

/**
 * The `ssl` option for node-postgres, and what it promises. As in libpq, root.crt, root.crl, postgresql.crt and
 * postgresql.key of `directory` (~/.postgresql) count when they exist and nothing else is given.
 * @throws IbexError `config` for an unknown mode, an unreadable file, or a mode that lacks its certificate.
 */
export function tlsOptions(
  settings: TlsSettings,
  directory: string,
): { tls: Tls; ssl: false | ConnectionOptions } {
  const system = settings.sslrootcert === 'system';
  const mode = SSL_MODES.find((known) => known === (settings.sslmode || (system ? 'verify-full' : 'prefer')));
  if (mode === undefined) throw wrong(`sslmode (or PGSSLMODE) must be one of ${SSL_MODES.join(', ')}`);
  if (system && mode !== 'verify-full') {
    throw wrong(`sslrootcert=system needs sslmode=verify-full, not ${mode}`);
  }
  if (mode === 'disable') return { tls: 'off', ssl: false };

  const optional = mode === 'allow' || mode === 'prefer';
  const rootFile = settings.sslrootcert || (optional ? undefined : existing(directory, 'root.crt'));
  const certFile = settings.sslcert || existing(directory, 'postgresql.crt');
  const keyFile = settings.sslkey || existing(directory, 'postgresql.key');
  if (mode.startsWith('verify') && rootFile === undefined) {
    throw wrong(
      `sslmode=${mode} needs sslrootcert=FILE with the certificate of the server's CA` +
        (mode === 'verify-full' ? ', or sslrootcert=system for a public CA' : ''),
    );
  }
  if (certFile !== undefined && keyFile === undefined) throw wrong('sslcert needs sslkey=FILE beside it');

  const ssl: ConnectionOptions = { rejectUnauthorized: rootFile !== undefined };
  if (rootFile !== undefined && !system) ssl.ca = read('sslrootcert', rootFile);
  const crlFile = settings.sslcrl || existing(directory, 'root.crl');
  if (rootFile !== undefined && crlFile !== undefined) ssl.crl = read('sslcrl', crlFile);
  if (mode !== 'verify-full') ssl.checkServerIdentity = () => undefined;
  if (certFile !== undefined && keyFile !== undefined) {
    ssl.cert = read('sslcert', certFile);
    ssl.key = readKey(keyFile);
  }
  const tls =
    mode === 'allow'
      ? 'allowed'
      : optional
        ? 'preferred'
        : rootFile === undefined
          ? 'unverified'
          : 'verified';
  return { tls, ssl };
}

/** What TLS makes sure of: nobody listens in; and that the other end is the one that is meant. */
export interface Peer {
  /** `verified`: by its certificate. `unverified`: encrypted, whoever answers is believed. `off`: in the clear. */
  readonly tls: 'verified' | 'unverified' | 'off';
  /** On this machine: a Unix socket or an address of loopback. */
  readonly local: boolean;
}

/** What a connection that was made with these settings makes sure of. */
export function peerOf({ host, ssl }: { host: string; ssl: false | ConnectionOptions }): Peer {
  const local = host.startsWith('/') || host === 'localhost' || host === '::1' || /^127\.[\d.]+$/.test(host);
  if (ssl === false) return { tls: 'off', local };
  return { tls: ssl.rejectUnauthorized === false ? 'unverified' : 'verified', local };
}

/** What a person should know about who is at the other end; null when there is nothing. */
export function remarkOn({ tls, local }: Peer): string | null {
  if (local || tls === 'verified') return null;
  return tls === 'off'
    ? 'the connection is not encrypted: all rows can be read and changed on the way (sslmode=verify-full)'
    : 'nobody checks who answers: the connection is encrypted, the certificate is not verified (sslmode=verify-full)';
}

/**
 * The other way to connect, once a first try ended with `error`; undefined when that was the only one. As in libpq,
 * `prefer` goes on without TLS where the server speaks none or admits none, and `allow` with TLS where the server
 * insists on it. Any other failure of TLS stays a failure: a wrong certificate, say, is no reason to send a password in
 * the clear.
 */
export function otherWay<T extends { tls: Tls; ssl: false | ConnectionOptions }>(
  config: T,
  error: unknown,
): T | undefined {
  if (config.tls === 'allowed') return isNotAdmitted(error) ? config : undefined;
  if (config.tls !== 'preferred') return undefined;
  return speaksNoTls(error) || isNotAdmitted(error) ? { ...config, ssl: false } : undefined;
}

/** The way that is tried first. */
export function firstWay<T extends { tls: Tls; ssl: false | ConnectionOptions }>(config: T): T {
  return config.tls === 'allowed' ? { ...config, ssl: false } : config;
}

/** Of the errors of both ways the one that says more. */
export function tellingError(first: unknown, second: unknown): unknown {
  if (speaksNoTls(first)) return second;
  return speaksNoTls(second) || isNotAdmitted(second) ? first : second;
}

/** What pg (lib/connection.js) says of a server that answered the question for TLS with no: this error has no code. */
export const NO_TLS = 'The server does not support SSL connections';

function speaksNoTls(error: unknown): boolean {
  return error instanceof Error && error.message === NO_TLS;
}

/** SQLSTATE where pg_hba.conf has no line for a connection; with or without TLS is part of such a line. */
function isNotAdmitted(error: unknown): boolean {
  return (error as { code?: unknown } | null)?.code === '28000';
}

function existing(directory: string, file: string): string | undefined {
  const path = join(directory, file);
  return existsSync(path) ? path : undefined;
}

function read(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new IbexError('config', `${parameter}: ${path} cannot be read`, { cause });
  }
}

/** As libpq does: a key that others can read is not used, but for one of root that its group may read. */
function readKey(path: string): string {
  const key = read('sslkey', path);
  const { mode, uid } = statSync(path);
  const others = uid === 0 ? 0o037 : 0o077;
  if (process.platform !== 'win32' && (mode & others) !== 0) {
    throw new IbexError('config', `sslkey: ${path} is open to others and therefore not used`, {
      hint: `chmod 600 ${path}`,
    });
  }
  return key;
}

function wrong(message: string): IbexError {
  return new IbexError('config', message);
}
