/**
 * Reads connection URLs as libpq does, and shows them without their passwords.
 *
 * Nothing is left to node-postgres' own URL reader: it gives sslmode another meaning and breaks on some
 * escapes. What a URL leaves out comes from libpq's PG* variables, then from the defaults. A raw `@` is
 * allowed once, after user and password: any other place is a password that lacks its escapes, and guessing
 * would print half of it as a host name. Neighbours: tls.ts, passfile.ts.
 */

import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import type { ClientConfig } from 'pg';
import { IbexError } from '../core/errors.ts';
import { passwordFile, passwordFor } from './passfile.ts';
import { type Tls, tlsOptions } from './tls.ts';

/** What `pg.Client` needs to connect. No password stands in it, so it may be shown or logged. */
export interface ServerConfig extends ClientConfig {
  /** A name, an address, or the directory of a Unix socket. */
  host: string;
  port: number;
  user: string;
  database: string;
  /** Called by node-postgres when the server asks. Rejects with IbexError `authentication` if there is none. */
  password: () => Promise<string>;
  ssl: false | ConnectionOptions;
  /** What the connection promises; for `preferred` and `allowed` see `otherWay` in tls.ts. */
  tls: Tls;
}

/** Every parameter a URL may carry after `?`, and the variable that counts when it does not. */
export const URL_PARAMETERS = {
  host: 'PGHOST',
  port: 'PGPORT',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  dbname: 'PGDATABASE',
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslcrl: 'PGSSLCRL',
  sslnegotiation: 'PGSSLNEGOTIATION',
  channel_binding: 'PGCHANNELBINDING',
  connect_timeout: 'PGCONNECT_TIMEOUT',
  options: 'PGOPTIONS',
  application_name: 'PGAPPNAME',
} as const;

type Parameter = keyof typeof URL_PARAMETERS;

/**
 * Reads a `postgres://` or `postgresql://` URL. Defaults: host localhost, port 5432, the user of the
 * operating system, a database of the user's name, sslmode `prefer`. `application_name` is accepted and
 * ignored. `channel_binding=require` binds whenever the server offers SCRAM-SHA-256-PLUS and cannot insist.
 * @param env where PG* variables, HOME and APPDATA are looked up
 * @throws IbexError `config`; no message contains a password.
 */
export function parseUrl(url: string, env: NodeJS.ProcessEnv = process.env): ServerConfig {
  try {
    return serverConfig(parameters(url), env);
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    throw new IbexError('config', `${redactUrl(url)}: ${error.message}`, {
      hint: 'A URL looks like postgres://user@host:5432/database?sslmode=require.',
      cause: error.cause,
    });
  }
}

/** The variables by which a program that stands on libpq connects to where a URL leads, with its password. */
export function libpqEnvironment(url: string): Record<string, string> {
  // An empty part of a URL leaves it to the environment.
  const given = Object.entries(parameters(url)).filter(([, value]) => value);
  return Object.fromEntries(given.map(([name, value]) => [URL_PARAMETERS[name as Parameter], value]));
}

/** The URL without password and parameters, for messages; of a malformed one the scheme at most. */
export function redactUrl(url: string): string {
  const parts = splitUrl(url);
  const place = parts && splitHost(parts.place);
  if (!parts || !place) {
    const scheme = /^(postgres|postgresql|redis|rediss):\/\//.exec(url.trim())?.[0];
    return scheme === undefined ? '(not a URL)' : `${scheme}...`;
  }
  const user = parts.user ? `${parts.user}@` : '';
  const database = parts.database === undefined ? '' : `/${parts.database}`;
  return `${parts.scheme}://${user}${parts.place}${database}`;
}

/** True when a password can be read from the URL; in doubt, too. */
export function hasPassword(url: string): boolean {
  const parts = splitUrl(url);
  if (!parts) return /:.*@|password/is.test(url);
  return Boolean(parts.password) || /(^|&)password=[^&]/.test(parts.query);
}

/** `host:port/database`, for messages. */
export function describeServer(server: { host: string; port: number; database: string }): string {
  const host = server.host.includes(':') ? `[${server.host}]` : server.host;
  return `${host}:${server.port}/${server.database}`;
}

function serverConfig(given: Partial<Record<Parameter, string>>, env: NodeJS.ProcessEnv): ServerConfig {
  const value = (name: Parameter) => given[name] || env[URL_PARAMETERS[name]] || undefined;
  const home = env.HOME || homedir();
  const host = value('host') ?? 'localhost';
  if (host.includes(',')) throw wrong('several hosts are listed; name the primary server alone');
  const user = value('user') ?? systemUser();
  const owner = { host, port: port(value('port') ?? '5432'), user, database: value('dbname') ?? user };
  const socket = host.startsWith('/');
  // libpq ignores every TLS setting on a Unix socket; node-postgres would ask for TLS and be refused.
  const { tls, ssl } = tlsOptions(
    socket
      ? { sslmode: 'disable' }
      : {
          sslmode: value('sslmode'),
          sslrootcert: value('sslrootcert'),
          sslcert: value('sslcert'),
          sslkey: value('sslkey'),
          sslcrl: value('sslcrl'),
        },
    join(home, '.postgresql'),
  );
  const insists = tls === 'unverified' || tls === 'verified';
  const direct = oneOf('sslnegotiation', value('sslnegotiation'), ['postgres', 'direct']) === 'direct';
  if (direct && !insists && !socket) throw wrong('sslnegotiation=direct needs sslmode=require or stricter');
  const binding = oneOf('channel_binding', value('channel_binding'), ['disable', 'prefer', 'require']);
  if (binding === 'require' && !insists) {
    throw wrong('channel_binding=require needs sslmode=require or stricter');
  }

  const config: ServerConfig = {
    ...owner,
    password: async () => {
      const password = value('password') ?? (await passwordFor(owner, env));
      if (password !== undefined) return password;
      throw new IbexError(
        'authentication',
        `${describeServer(owner)}: the server asks for a password and none was given`,
        {
          hint: `Put it into the URL, PGPASSWORD or ${passwordFile(env)}.`,
        },
      );
    },
    tls,
    ssl,
    sslnegotiation: direct && insists ? 'direct' : 'postgres',
    enableChannelBinding: binding === 'prefer' || binding === 'require',
  };
  const options = value('options');
  if (options !== undefined) config.options = options;
  const timeout = value('connect_timeout');
  if (timeout !== undefined) {
    if (!/^\d{1,6}$/.test(timeout)) throw wrong('connect_timeout must be a number of seconds');
    config.connectionTimeoutMillis = Number(timeout) * 1000;
  }
  return config;
}

/** Everything the URL itself says, decoded. As in libpq a parameter after `?` beats the part before it. */
function parameters(url: string): Partial<Record<Parameter, string>> {
  const parts = splitUrl(url);
  if (!/^postgres(ql)?:\/\//.test(url.trim())) {
    throw wrong(
      /^\s*\w+\s*=/.test(url)
        ? 'keyword=value strings are not read; write postgres://user@host:port/database'
        : 'the URL must begin with postgres:// or postgresql://',
    );
  }
  if (!parts) throw wrong('user or password lack an escape: write @ as %40, / as %2F, ? as %3F');
  if (parts.place.includes(',')) throw wrong('several hosts are listed; name the primary server alone');
  const place = splitHost(parts.place);
  if (!place) {
    throw wrong('host and port cannot be told apart: write host:port, and an IPv6 address as [::1]');
  }
  const found: Partial<Record<Parameter, string>> = {
    user: decode('user', parts.user),
    password: decode('password', parts.password),
    host: decode('host', place.host),
    port: place.port,
    dbname: decode('database', parts.database ?? ''),
  };
  for (const pair of parts.query.split('&').filter((text) => text !== '')) {
    const [, name, text] = /^([a-z_]+)=(.*)$/is.exec(pair) ?? [];
    if (name === undefined || text === undefined) {
      throw wrong('after ? parameters are written name=value&name=value');
    }
    if (!isParameter(name)) {
      throw wrong(`unknown parameter ${name}; known are ${Object.keys(URL_PARAMETERS).join(', ')}`);
    }
    found[name] = decode(name, text);
  }
  return found;
}

interface UrlParts {
  scheme: string;
  user: string;
  password: string;
  place: string;
  database: string | undefined;
  query: string;
}

/** The raw parts of a URL of any scheme, or undefined when an `@` stands where none can be. */
function splitUrl(url: string): UrlParts | undefined {
  const match = /^([a-z]+):\/\/(?:([^@/:?]*)(?::([^@/]*))?@)?([^@/?]*)(?:\/([^@?]*))?(?:\?([^@]*))?$/.exec(
    url.trim(),
  );
  if (!match) return undefined;
  const [, scheme = '', user = '', password = '', place = '', database, query = ''] = match;
  return { scheme, user, password, place, database, query };
}

function splitHost(place: string): { host: string; port: string } | undefined {
  const match = /^(?:\[([^[\]]+)\]|([^:[\]]*))(?::(\d*))?$/.exec(place);
  return match ? { host: match[1] ?? match[2] ?? '', port: match[3] ?? '' } : undefined;
}

function decode(part: string, text: string): string {
  let decoded: string | undefined;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    // Reported below, without the text: it may be a password.
  }
  if (decoded === undefined || decoded.includes('\0')) {
    throw wrong(`the ${part} has a wrong % escape: write % itself as %25`);
  }
  return decoded;
}

function port(text: string): number {
  const number = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (number < 1 || number > 65535) throw wrong('the port must be a number from 1 to 65535');
  return number;
}

function oneOf(parameter: string, text: string | undefined, values: string[]): string | undefined {
  if (text !== undefined && !values.includes(text)) {
    throw wrong(`${parameter} must be one of ${values.join(', ')}`);
  }
  return text;
}

function isParameter(name: string): name is Parameter {
  return Object.hasOwn(URL_PARAMETERS, name);
}

function systemUser(): string {
  try {
    return userInfo().username;
  } catch (cause) {
    throw new IbexError('config', 'no user is given, and the operating system names none', { cause });
  }
}

function wrong(message: string): IbexError {
  return new IbexError('config', message);
}
