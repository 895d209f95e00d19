/**
 * Whether a source still is the history that a sync has carried. Clusters are restored from backups, promoted, upgraded
 * or exchanged under the same name; a position means nothing, or something else, on what they became. Four marks tell,
 * each where the others cannot: the system identifier (another cluster), the timeline (a promotion, a restore to a point in
 * time), the transaction counter (a copy of its files from before), and the witness, a number in the source that grows
 * while a daemon runs (such a copy whose counter has overtaken the checkpoint). Nothing is guessed: the sync stops.
 */
import { IbexError } from './errors.ts';
import { identityDifference, parseSnapshot, type Snapshot, type SourceIdentity } from './position.ts';

/** What the target knows of the source. */
export interface KnownHistory {
  readonly source: SourceIdentity;
  /** Null until the first lane starts. */
  readonly started: Snapshot | null;
  /** The witness as the last batch saw it. */
  readonly witness: number;
}

/** What the source shows of itself now. */
export interface FoundHistory {
  readonly identity: SourceIdentity;
  readonly now: Snapshot;
  /** Null where the source does not know the sync: then its tables are copied anew anyway. */
  readonly witness: number | null;
}

const START_ANEW = 'start anew from it: `ibex teardown --yes`, then `ibex run --existing replace`';

/** Null when a position of the one means the same on the other. `server` and `sync` are for the message. */
export function historyFault(
  { server, sync }: { readonly server: string; readonly sync: string },
  known: KnownHistory,
  found: FoundHistory,
): IbexError | null {
  const fault = (what: string, whatNow: string) =>
    new IbexError('identity', `${server} ${what}`, { hint: `${whatNow} ${START_ANEW}.` });
  const difference = identityDifference(known.source, found.identity);
  if (difference?.startsWith('timeline')) {
    return fault(
      `was promoted, or restored to a point in time, since sync ${sync} has carried from it (${difference}): what was written last may be on the target only`,
      'Give the URL of the server on the former timeline, if there is one; or',
    );
  }
  if (difference !== null) {
    return fault(
      `is not the source that sync ${sync} has carried: ${difference}`,
      'Give the URL of its own source; or, if this server has taken its place,',
    );
  }
  const behind =
    known.started !== null && parseSnapshot(known.started).xmax > parseSnapshot(found.now).xmax
      ? 'its transaction counter is behind the checkpoint'
      : found.witness !== null && found.witness < known.witness
        ? 'it has forgotten what was written to its schema ibex'
        : null;
  if (behind === null) return null;
  return fault(
    `is older than what sync ${sync} has carried from it (${behind}): it was restored from a backup`,
    'Give the URL of the server that was not, if there is one; or',
  );
}
