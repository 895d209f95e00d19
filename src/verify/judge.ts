/**
 * Whether a row is the same on both sides while both are written to. Pure.
 *
 * The target's rows stand at its checkpoint, which is a snapshot of the source; the source's rows are read at snapshots
 * of its own. A row of the one and a row of the other are comparable when no change of that key lies between the two
 * snapshots: then they have to be equal, and nothing else excuses a difference. Of one server's snapshots each sees all
 * that an earlier one sees, so two of them lie on the same side of every change of a key if they see equally many.
 */
import { type SnapshotParts, sees } from '../core/position.ts';

/** What one look found: the hash of each row that is there, by the number of its key. */
export interface Sample {
  readonly at: SnapshotParts;
  readonly hashes: ReadonlyMap<number, string>;
}

/**
 * - `different`: both sides have the row, and not the same one
 * - `missing`: only the source has it
 * - `extra`: only the target has it
 * - `open`: no two looks were comparable
 */
export type Verdict = 'equal' | 'different' | 'missing' | 'extra' | 'open';

/**
 * Judges one key by the last two looks that are comparable.
 * @param changes the transactions that changed it, of all that not every look sees
 */
export function judge(
  key: number,
  changes: readonly bigint[],
  looks: { readonly source: readonly Sample[]; readonly target: readonly Sample[] },
): Verdict {
  const seen = (sample: Sample) => changes.filter((xid) => sees(sample.at, xid)).length;
  const there = new Map(looks.target.map((sample) => [seen(sample), sample]));
  const pairs = looks.source.flatMap((sample) => {
    const changed = seen(sample);
    const other = there.get(changed);
    return other === undefined ? [] : [{ changed, sample, other }];
  });
  const last = pairs.reduce<(typeof pairs)[number] | undefined>(
    (best, pair) => (best === undefined || pair.changed >= best.changed ? pair : best),
    undefined,
  );
  return last === undefined ? 'open' : compare(last.sample.hashes.get(key), last.other.hashes.get(key));
}

function compare(source: string | undefined, target: string | undefined): Verdict {
  if (source === target) return 'equal';
  if (source === undefined) return 'extra';
  return target === undefined ? 'missing' : 'different';
}
