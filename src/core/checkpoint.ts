/**
 * The exactly-once rule. The checkpoint is kept in the target and moves in the transaction that writes the
 * rows; this decides, under a lock on its row, what a batch that arrives may do. Queues re-run jobs, workers
 * wake up late: neither can apply a batch twice or out of order past this rule. (PgQ's `is_batch_done`.)
 */
import { covers, type Snapshot } from './position.ts';

export interface Checkpoint {
  readonly epoch: number;
  readonly position: Snapshot;
}

/**
 * - `apply`: the batch starts where the checkpoint stands.
 * - `skip`: everything in it is already applied.
 * - `gap`: something before it is missing; the reader must rewind to the checkpoint.
 * - `fenced`: a later holder has taken the lane; this worker must stop.
 */
export type Verdict = 'apply' | 'skip' | 'gap' | 'fenced';

export function judge(
  checkpoint: Checkpoint,
  batch: { readonly epoch: number; readonly from: Snapshot; readonly to: Snapshot },
): Verdict {
  if (checkpoint.epoch !== batch.epoch) return 'fenced';
  if (checkpoint.position === batch.from) return 'apply';
  if (covers(checkpoint.position, batch.to)) return 'skip';
  return 'gap';
}
