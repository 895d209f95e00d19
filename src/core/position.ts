/**
 * Positions: how far a lane has come, as a snapshot of the source's transactions.
 *
 * A snapshot `xmin:xmax:xip,..` says which transactions it sees. Positions are never compared as times or as
 * numbers (a transaction with a lower id may commit later): a change belongs to the batch (from, to] when it
 * is visible in `to` and not in `from`. That is PgQ's rule; the database itself evaluates it.
 */

/** Text of a PostgreSQL `txid_snapshot` / `pg_snapshot`: `xmin:xmax:xip_list`. */
export type Snapshot = string;

/** Which history of which database a position belongs to. A restored, promoted or exchanged server differs. */
export interface SourceIdentity {
  /** `system_identifier` of the cluster, or `hidden` where the provider does not show it. */
  readonly system: string;
  /** The oid of the database, as text. */
  readonly database: string;
  /** The timeline, which grows with every promotion; 0 where the provider does not show it. */
  readonly timeline: number;
}

/** Parsed form of a snapshot. */
export interface SnapshotParts {
  /** Every transaction below is finished and seen. */
  readonly xmin: bigint;
  /** No transaction from here on is seen. */
  readonly xmax: bigint;
  /** Transactions between the two that were still running. */
  readonly running: readonly bigint[];
}

/** Takes a snapshot's text apart. Throws a TypeError when it is none. */
export function parseSnapshot(text: Snapshot): SnapshotParts {
  const match = /^(\d+):(\d+):((?:\d+(?:,\d+)*)?)$/.exec(text);
  if (match === null) throw new TypeError(`not a snapshot: ${text}`);
  const running = match[3] === '' ? [] : (match[3] as string).split(',').map(BigInt);
  return { xmin: BigInt(match[1] as string), xmax: BigInt(match[2] as string), running };
}

/** Whether a snapshot sees what a transaction did, once that has committed. */
export function sees({ xmin, xmax, running }: SnapshotParts, xid: bigint): boolean {
  return xid < xmin || (xid < xmax && !running.includes(xid));
}

/** True when `later` sees every transaction that `earlier` sees, both taken on the same source. */
export function covers(later: Snapshot, earlier: Snapshot): boolean {
  if (later === earlier) return true;
  const a = parseSnapshot(later);
  const b = parseSnapshot(earlier);
  const runningBefore = new Set(b.running);
  // What `later` does not see below b.xmax must be something `earlier` did not see either.
  const unseen = a.running.filter((xid) => xid < b.xmax && !runningBefore.has(xid));
  return a.xmax >= b.xmax && unseen.length === 0;
}

/** What stands for a part that the provider does not show. It may be any: other marks have to tell. */
const HIDDEN: readonly unknown[] = ['hidden', 0];

/** Null when both name the same history, otherwise what differs, for a message. */
export function identityDifference(expected: SourceIdentity, found: SourceIdentity): string | null {
  const differs = (part: 'system' | 'timeline') =>
    expected[part] !== found[part] && !HIDDEN.includes(expected[part]) && !HIDDEN.includes(found[part]);
  if (differs('system')) {
    return `system identifier ${found.system} instead of ${expected.system}`;
  }
  if (expected.database !== found.database) {
    return `database oid ${found.database} instead of ${expected.database}`;
  }
  if (differs('timeline')) {
    return `timeline ${found.timeline} instead of ${expected.timeline}`;
  }
  return null;
}
