/**
 * TLS as libpq means it: from sslmode and its companions to the options that node-postgres wants.
 *
 * node-postgres reads `require` as "verify against the public CAs" and so fails on most managed providers;
 * libpq reads it as "encrypt, whoever it is", unless a root certificate is at hand. `allow` counts as
 * `prefer`: TLS comes first. `prefer` takes a plain connection only from a server that speaks no TLS, which
 * needs a second attempt: see `plainFallback`. Neighbour: url.ts, which collects the settings.
 */

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { IbexError } from '../core/errors.ts';

/** The accepted values of `sslmode`, from the weakest to the strictest. */
export const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;

/**
 * What a connection can promise: `off` no TLS; `preferred` TLS without verification, if the server speaks
 * it; `unverified` always TLS, but whoever answers is believed; `verified` the certificate is checked.
 */
export type Tls = 'off' | 'preferred' | 'unverified' | 'verified';

export interface TlsSettings {
  readonly sslmode?: string | undefined;
  /** A file of CA certificates, or `system`: the CAs that Node trusts (and NODE_EXTRA_CA_CERTS). */
  readonly sslrootcert?: string | undefined;
  readonly sslcert?: string | undefined;
  readonly sslkey?: string | undefined;
}

/**
 * The `ssl` option for node-postgres, and what it promises. As in libpq, root.crt, postgresql.crt and
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
  if (mode !== 'verify-full') ssl.checkServerIdentity = () => undefined;
  if (certFile !== undefined && keyFile !== undefined) {
    ssl.cert = read('sslcert', certFile);
    ssl.key = read('sslkey', keyFile);
  }
  const tls = optional ? 'preferred' : rootFile === undefined ? 'unverified' : 'verified';
  return { tls, ssl };
}

/**
 * The settings for a second attempt without TLS, when `error` says that the server speaks none and the mode
 * puts up with that; otherwise undefined. Any other failure of TLS stays a failure.
 */
export function plainFallback<T extends { tls: Tls }>(
  config: T,
  error: unknown,
): (T & { tls: Tls; ssl: false }) | undefined {
  // The text of pg/lib/connection.js: this error carries no code.
  const speaksNone =
    error instanceof Error && error.message === 'The server does not support SSL connections';
  return speaksNone && config.tls === 'preferred' ? { ...config, tls: 'off', ssl: false } : undefined;
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

function wrong(message: string): IbexError {
  return new IbexError('config', message);
}
