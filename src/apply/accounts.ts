/** What a batch did with a table, for its account: captured = applied + coalesced + resolved + held. */
import type { Outcome } from '../conflict/settling.ts';
import type { BatchTable } from '../core/batch.ts';
import type { Counts } from './slices.ts';
import type { TableAccount } from './state.ts';

/** `all` is what the batch brought of the table; `outcome` what became of keys that were in conflict, if any were. */
export function account(
  { captured, truncated, plan }: BatchTable,
  all: Counts,
  outcome: Outcome | undefined,
): TableAccount {
  const { present, gone, deltas } = all;
  const carried = present + gone;
  // A table without key that was truncated is sent whole; its deltas are then what the batch counted.
  const counted = plan.mode === 'row' && truncated.length > 0 ? captured : deltas;
  const truncates = captured - counted;
  const keys = Math.min(captured, carried + truncates);
  const { types = {} } = outcome ?? {};
  // Rows that an incoming TRUNCATE would have taken are keys of their own to conflicts, and one change all together here.
  const held = Math.min(keys, outcome?.held ?? 0);
  const resolved = Math.min(keys - held, outcome?.resolved ?? 0);
  const counts = { captured, applied: keys - resolved - held, coalesced: captured - keys, resolved, held };
  return { relid: plan.relid, ...counts, conflicts: types };
}
