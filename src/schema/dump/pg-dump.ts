/** Runs the pg_dump of this machine, if it is new enough for a server. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { IbexError } from '../../core/errors.ts';
import { libpqEnvironment } from '../../postgres/url.ts';

const execute = promisify(execFile);

const OPTIONS = [
  '--schema-only',
  '--no-owner',
  '--no-privileges',
  '--no-tablespaces',
  '--no-security-labels',
  '--no-publications',
  '--no-subscriptions',
  '--no-password',
  '--encoding=UTF8',
  // In milliseconds: what is locked by the application is not queued behind for long.
  '--lock-wait-timeout=10000',
];

/** The text may be long, and is read at once. */
const LARGEST = 512 * 1024 * 1024;

/** The version of the pg_dump on the PATH, such as `17.5`; null when there is none. */
export async function findPgDump(): Promise<string | null> {
  try {
    const { stdout } = await execute('pg_dump', ['--version']);
    return /(\d+(?:\.\d+)*)/.exec(stdout)?.[1] ?? null;
  } catch {
    return null;
  }
}

/**
 * The definition of a database as SQL, without the schemas named. The password travels in the environment.
 * Errors: `tool` when pg_dump fails, with what it said.
 */
export async function runPgDump(url: string, name: string, without: readonly string[]): Promise<string> {
  const exclude = without.map((schema) => `--exclude-schema="${schema.replaceAll('"', '""')}"`);
  const there = { ...libpqEnvironment(url), PGAPPNAME: name };
  const env = { PGHOST: 'localhost', ...process.env, ...there, LC_ALL: 'C' };
  try {
    const { stdout } = await execute('pg_dump', [...OPTIONS, ...exclude], { env, maxBuffer: LARGEST });
    return stdout;
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim().split('\n').at(0) ?? String(error);
    throw new IbexError('tool', `pg_dump failed: ${said}`, { cause: error });
  }
}
