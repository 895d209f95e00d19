/**
 * What programs started by the demo see of the environment: the way to other programs, and what is said here.
 * The user's IBEX_*, PG* and NODE_* variables, ~/.pgpass and ibex.yaml are meant for something else.
 */
import type { Places } from './servers.ts';

export function environment(places: Places, more: Record<string, string>): Record<string, string> {
  const { directory } = places;
  return {
    PATH: process.env.PATH ?? '',
    HOME: directory,
    TMPDIR: directory,
    TZ: 'UTC',
    LC_ALL: 'C',
    ...more,
  };
}

/** Passwords stay out of the list of processes. */
export function ibexEnvironment(places: Places): Record<string, string> {
  return environment(places, {
    IBEX_SOURCE_URL: places.source,
    IBEX_TARGET_URL: places.target,
    ...(places.redis === undefined ? {} : { IBEX_REDIS_URL: places.redis }),
  });
}

export function pgEnvironment(places: Places, side: 'source' | 'target'): Record<string, string> {
  const url = new URL(places[side]);
  return environment(places, {
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: url.username,
    PGPASSWORD: url.password,
    PGDATABASE: url.pathname.slice(1),
    // The schema of the role's own name would come first once the shop has made it.
    PGOPTIONS: '-c search_path=public',
    PGCONNECT_TIMEOUT: '10',
  });
}

/** The driver takes defaults from PG* variables, and this process is the demo's alone. */
export function forgetPgVariables(): void {
  for (const name of Object.keys(process.env)) {
    if (name.startsWith('PG')) delete process.env[name];
  }
}
