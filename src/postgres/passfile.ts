/**
 * Looks a password up in libpq's password file (~/.pgpass, PGPASSFILE).
 *
 * node-postgres does this too, but prints a deprecation warning on stderr when it finds one, never tries
 * `localhost` for a Unix socket, and sends an empty password when it finds none. Neighbour: url.ts.
 */

import { readFile, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { IbexError } from '../core/errors.ts';

export interface PasswordOwner {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/** The path of the password file, whether it exists or not. */
export function passwordFile(env: NodeJS.ProcessEnv): string {
  if (env.PGPASSFILE) return env.PGPASSFILE;
  if (process.platform === 'win32') return join(env.APPDATA ?? '.', 'postgresql', 'pgpass.conf');
  return join(env.HOME || homedir(), '.pgpass');
}

/**
 * The password of the first line that fits, or undefined when there is none (or no file).
 * @throws IbexError `config` when others than the owner can read the file; libpq ignores it then.
 */
export async function passwordFor(owner: PasswordOwner, env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const path = passwordFile(env);
  const info = await stat(path).catch(() => undefined);
  if (!info?.isFile()) return undefined;
  if (process.platform !== 'win32' && (info.mode & 0o077) !== 0) {
    throw new IbexError('config', `the password file ${path} is open to others and therefore not used`, {
      hint: `chmod 600 ${path}`,
    });
  }
  const hosts = owner.host.startsWith('/') ? [owner.host, 'localhost'] : [owner.host];
  const wanted = [hosts, [String(owner.port)], [owner.database], [owner.user]];
  for (const line of (await readFile(path, 'utf8')).split(/\r?\n/)) {
    const entry = line.startsWith('#') ? [] : fields(line);
    const fits = wanted.every((values, index) => entry[index] === '*' || values.includes(entry[index] ?? ''));
    if (fits && entry[4]) return entry[4];
  }
  return undefined;
}

/** Fields of a line: separated by colons, with a backslash before a colon or backslash that is meant as such. */
function fields(line: string): string[] {
  const parts = line.match(/(?:\\.|[^:\\])+/g) ?? [];
  return parts.map((part) => part.replace(/\\(.)/g, '$1'));
}
