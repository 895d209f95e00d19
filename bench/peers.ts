/** Whom Ibex is measured beside. One that is not installed is named in the report as left out. */
import { join } from 'node:path';
import { distributionServers, isReadable, versionOf } from './programs.ts';

export interface Peer {
  readonly name: string;
  /** What has to be installed for it. */
  readonly programs: readonly string[];
  /** Sets itself up by superusers. */
  readonly superuser?: true;
  /** What else it lacks, if anything. */
  readonly lacks?: () => string | undefined;
  /** Without being named in `--peers`: always, only where nobody is named, or never. */
  readonly unasked: 'always' | 'by default' | 'never';
}

export const NATIVE: Peer = { name: 'native', programs: [], superuser: true, unasked: 'always' };
export const PIPE: Peer = { name: 'pipe', programs: ['bash', 'psql'], unasked: 'always' };
export const PG_DUMP: Peer = {
  name: 'pg_dump',
  programs: ['bash', 'psql', 'pg_dump'],
  unasked: 'by default',
};
export const PGCOPYDB: Peer = {
  name: 'pgcopydb',
  programs: ['pgcopydb', 'psql', 'pg_dump'],
  superuser: true,
  unasked: 'by default',
};
export const BUCARDO: Peer = {
  name: 'bucardo',
  programs: ['bucardo', 'psql'],
  superuser: true,
  lacks: () => {
    const servers = distributionServers();
    if (servers === undefined) return 'servers of the version of pg_dump below /usr/lib/postgresql';
    return isReadable(join(servers, 'lib', 'plperl.so')) ? undefined : `PL/Perl in ${servers}`;
  },
  unasked: 'never',
};

export interface LeftOut {
  readonly peer: string;
  readonly why: string;
}

export interface Choice {
  readonly peers: ReadonlySet<string>;
  readonly leftOut: readonly LeftOut[];
}

/**
 * Those of a scenario's peers that are wanted (`asked` is what `--peers` names, nobody's name for `none`), installed,
 * and can be set up on these servers.
 */
export function choosePeers(
  all: readonly Peer[],
  asked: readonly string[] | undefined,
  hasSuperusers = true,
): Choice {
  const leftOut = all.flatMap((peer) => {
    const refused = peer.superuser && !hasSuperusers ? 'needs superusers on both servers' : missing(peer);
    const why = isWanted(peer, asked) ? refused : 'not asked for';
    return why === undefined ? [] : [{ peer: peer.name, why }];
  });
  const out = new Set(leftOut.map(({ peer }) => peer));
  return { peers: new Set(all.map(({ name }) => name).filter((name) => !out.has(name))), leftOut };
}

function isWanted({ name, unasked }: Peer, asked: readonly string[] | undefined): boolean {
  if (asked === undefined) return unasked !== 'never';
  return asked.includes(name) || (unasked === 'always' && asked.length > 0);
}

function missing({ programs, lacks }: Peer): string | undefined {
  const lacking = programs.filter((program) => versionOf(program) === undefined);
  const more = lacking.length === 0 ? lacks?.() : undefined;
  const all = more === undefined ? lacking : [more];
  return all.length === 0 ? undefined : `not installed: ${all.join(', ')}`;
}
