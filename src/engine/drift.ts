/**
 * Notices what no trigger tells: DDL on captured tables, triggers that were disabled, new and gone partitions.
 * Decides per table what it means and does it; a table whose rows may have changed unseen is copied again.
 */
import { holdTable, requestCopy } from '../apply/state.ts';
import { prepareCapture, tryArm, tryDisarm } from '../capture/trigger/arming.ts';
import { acceptSignature, type Drift, readDrift, registerTable } from '../capture/trigger/registry.ts';
import { tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { answerPartitions } from './partitions.ts';

/** What was found and done about one table, for the log. */
export interface DriftReport {
  readonly table: string;
  readonly what: string;
  /** The plans changed: the lane must start anew with the table's present columns. */
  readonly replan: boolean;
  /** It could not be answered yet, such as for a lock that others hold: to be looked at again. */
  readonly again?: boolean;
}

/** Compares catalogs with what was armed, and answers. Resolves to what it found. */
export async function answerDrift(
  source: Session,
  target: Session,
  sync: string,
  lockTimeoutMs: number,
): Promise<DriftReport[]> {
  const reports: DriftReport[] = [];
  for (const drift of await readDrift(source, sync)) {
    const table = tableLabel(drift);
    const what = await answer(source, target, sync, drift, lockTimeoutMs);
    if (what !== null) reports.push({ table, ...what });
  }
  return reports;
}

async function answer(source: Session, target: Session, sync: string, drift: Drift, lockTimeoutMs: number) {
  const { relid } = drift;
  if (drift.dropped) {
    const dropped = 'dropped on the source';
    await holdTable(target, sync, tableLabel(drift), null, `table ${tableLabel(drift)} was ${dropped}`);
    await source.run('delete from ibex.source_table where sync = $1 and relid = $2', [sync, relid]);
    return { what: dropped, replan: true };
  }
  if (drift.partitions && !drift.shape) {
    const answered = await answerPartitions(source, target, sync, relid, lockTimeoutMs);
    if (answered !== null) return answered;
  }
  const rewritten = drift.shape && drift.storage;
  if (drift.armour || drift.partitions || rewritten || !(await followShape(source, drift))) {
    const why = reasonOf(drift);
    await recapture(source, target, sync, relid, lockTimeoutMs, why);
    return { what: `${why}: it is copied again`, replan: true };
  }
  await acceptSignature(source, relid, drift.seen);
  return drift.shape ? { what: 'its columns changed', replan: true } : null;
}

function reasonOf(drift: Drift): string {
  if (drift.armour) return 'its capture triggers were changed';
  if (drift.partitions) return 'its partitions changed';
  return drift.storage ? 'it was rewritten' : 'its key is another one';
}

/** Follows renamed columns of the key at once, since the triggers name them. False when the key is another one. */
async function followShape(source: Session, drift: Drift): Promise<boolean> {
  if (!drift.shape) return true;
  const { same } = await source.row<{ same: boolean }>('select ibex.follow_shape($1) as same', [drift.relid]);
  return same;
}

/** Starts the table's capture over, then its copy: writes in between are in the copy. */
async function recapture(
  source: Session,
  target: Session,
  sync: string,
  relid: number,
  lockTimeoutMs: number,
  why: string,
): Promise<void> {
  await requestCopy(target, sync, relid, true, null);
  const { same } = await source.row<{ same: boolean }>('select ibex.follow_shape($1) as same', [relid]);
  if (!same) {
    if ((await tryDisarm(source, relid, lockTimeoutMs)).length > 0) return;
    const refusal = await prepareCapture(source, relid);
    if (refusal !== null) {
      await requestCopy(target, sync, relid, true, `${why}; ${refusal}`);
      return;
    }
    await registerTable(source, sync, relid);
  }
  await source.run('update ibex.captured set armed_at = null where relid = $1', [relid]);
  await tryArm(source, relid, lockTimeoutMs);
}
