/** Programs of the PATH that a benchmark uses and Ibex does not bring. */
import { execFileSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';

/** Where a program is; `undefined` where it is not on the PATH. */
export function findProgram(name: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .filter(isAbsolute)
    .map((directory) => join(directory, name))
    .find(isExecutable);
}

export function isExecutable(file: string): boolean {
  return isAllowed(file, constants.X_OK);
}

export function isReadable(file: string): boolean {
  return isAllowed(file, constants.R_OK);
}

function isAllowed(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}

/** The first line that a program says of its version; `undefined` where it is missing or does not work. */
export function versionOf(name: string): string | undefined {
  const file = findProgram(name);
  if (file === undefined) return undefined;
  try {
    const output = execFileSync(file, ['--version'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return output.trim().split('\n')[0];
  } catch {
    return undefined;
  }
}

/**
 * The directory of the distribution's servers of pg_dump's own major, as Debian and Ubuntu install them; `undefined`
 * where there are none. pg_dump refuses servers newer than itself, and pgcopydb runs it.
 */
export function distributionServers(): string | undefined {
  const major = /(\d+)(?:\.\d+)?/.exec(versionOf('pg_dump') ?? '')?.[1];
  const directory = join('/usr/lib/postgresql', major ?? '');
  return isExecutable(join(directory, 'bin', 'postgres')) ? directory : undefined;
}
