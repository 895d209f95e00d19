/** Whom Ibex is measured beside. One that is not installed is named in the report as left out. */
import { versionOf } from './programs.ts';

export interface Peer {
  readonly name: string;
  /** What has to be installed for it. */
  readonly programs: readonly string[];
}

export const NATIVE: Peer = { name: 'native', programs: [] };
export const PIPE: Peer = { name: 'pipe', programs: ['bash', 'psql'] };
export const PG_DUMP: Peer = { name: 'pg_dump', programs: ['bash', 'psql', 'pg_dump'] };
export const PGCOPYDB: Peer = { name: 'pgcopydb', programs: ['pgcopydb', 'psql', 'pg_dump'] };

export interface LeftOut {
  readonly peer: string;
  readonly why: string;
}

export interface Choice {
  readonly peers: ReadonlySet<string>;
  readonly leftOut: readonly LeftOut[];
}

/** Those of a scenario's peers that are asked for (`undefined`: all) and installed. */
export function choosePeers(all: readonly Peer[], asked: readonly string[] | undefined): Choice {
  const leftOut = all.flatMap((peer) => {
    const why = asked?.includes(peer.name) === false ? 'not asked for' : missing(peer);
    return why === undefined ? [] : [{ peer: peer.name, why }];
  });
  const out = new Set(leftOut.map(({ peer }) => peer));
  return { peers: new Set(all.map(({ name }) => name).filter((name) => !out.has(name))), leftOut };
}

function missing({ programs }: Peer): string | undefined {
  const lacking = programs.filter((program) => versionOf(program) === undefined);
  return lacking.length === 0 ? undefined : `not installed: ${lacking.join(', ')}`;
}
