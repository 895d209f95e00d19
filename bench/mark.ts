/**
 * The end of a backlog, made visible: one more transaction, committed after all others, changes one row, and a
 * connection to the target looks for it. Both ways of replicating apply in an order in which it comes last (or
 * together with the last), and looking for one row by its key costs next to nothing, unlike counting.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Databases } from './pair.ts';

/** What the times are exact to. */
const POLL_MS = 3;

export async function setMark({ source }: Databases, mark: string): Promise<void> {
  await source.owner.query('update pgbench_branches set filler = $1 where bid = 1', [mark]);
}

/**
 * Resolves to when the mark was seen on the target, on the clock of `performance.now()`; to `undefined` when
 * `goingOn` said no before.
 */
export async function whenMarked(
  { target }: Databases,
  mark: string,
  goingOn: () => boolean,
): Promise<number | undefined> {
  for (;;) {
    // Asked before looking: what arrived just before the end still counts.
    const last = !goingOn();
    const { rows } = await target.owner.query<{ seen: boolean }>({
      name: 'look-for-mark',
      text: 'select filler = $1 as seen from pgbench_branches where bid = 1',
      values: [mark],
    });
    if (rows[0]?.seen) return performance.now();
    if (last) return undefined;
    await sleep(POLL_MS);
  }
}
