/**
 * Notices what no trigger tells: DDL on captured tables, triggers that were disabled, new and gone partitions.
 * Decides per table what it means for its capture and does it; a table whose rows may have changed unseen is copied
 * again. Whether the target still fits is decided when the plans are made anew, see `fitting.ts`.
 */
import { dropTable, noteAhead } from '../apply/carried.ts';
import { requestCopy } from '../apply/state.ts';
import { briefly, tryDisarm } from '../capture/trigger/arming.ts';
import {
  acceptSignature,
  type Drift,
  readDrift,
  settleMissed,
  tellOthers,
} from '../capture/trigger/registry.ts';
import { isKind } from '../core/errors.ts';
import { tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { rearm } from '../setup/rearm.ts';
import { answerPartitions, postponed } from './partitions.ts';

export interface DriftContext {
  readonly source: Session;
  readonly target: Session;
  readonly sync: string;
  readonly lockTimeoutMs: number;
  /** What the plans in use were made from, by table, null where there is none; no table is known before a lane has started. */
  readonly outlines: ReadonlyMap<number, string | null>;
}

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
export async function answerDrift(context: DriftContext): Promise<DriftReport[]> {
  const reports: DriftReport[] = [];
  for (const drift of await readDrift(context.source, context.sync)) {
    const table = tableLabel(drift);
    const answered = await answer(context, drift);
    if (answered !== null) reports.push({ table, ...answered });
  }
  return reports;
}

async function answer(context: DriftContext, drift: Drift) {
  const { source, target, sync, lockTimeoutMs } = context;
  if (drift.dropped) return leaveDropped(context, drift);
  if (drift.missed !== null) return followOthers(context, drift);
  if (drift.partitions && !drift.shape) {
    const answered = await answerPartitions(source, target, sync, drift, lockTimeoutMs);
    if (answered !== null) return answered;
  }
  const why = reasonToCopy(drift) ?? ((await followShape(source, drift)) ? null : 'its key is another one');
  if (why !== null) {
    await recapture(context, drift.relid);
    return { what: `${why}: it is copied again`, replan: true };
  }
  if (drift.shape) await noteAhead(target, sync, drift.relid, drift.missing);
  await tellOthers(source, sync, drift.relid, 'plan');
  const accepted = await briefly(source, drift.relid, lockTimeoutMs, 'access share', () =>
    acceptSignature(source, drift.relid, drift.seen),
  );
  if ('waiting' in accepted) return postponed('its catalogs changed', [accepted.waiting]);
  return changedColumns(context, drift);
}

/** Null where the plan in use was made from what the catalogs say now. */
function changedColumns({ outlines }: DriftContext, { relid, outline }: Drift) {
  const known = outlines.get(relid);
  return known === undefined || known === outline ? null : { what: 'its columns changed', replan: true };
}

function reasonToCopy(drift: Drift): string | null {
  if (drift.armour) return 'its capture triggers were changed';
  if (drift.partitions) return 'its partitions changed';
  return drift.storage && drift.shape ? 'it was rewritten' : null;
}

/** Follows renamed columns of the key at once, since the triggers name them. False when the key is another one. */
async function followShape(source: Session, drift: Drift): Promise<boolean> {
  if (!drift.shape) return true;
  const { same } = await source.row<{ same: boolean }>('select ibex.follow_shape($1) as same', [drift.relid]);
  return same;
}

/** Starts the table's capture over, then its copy: writes in between are in the copy. */
async function recapture(context: DriftContext, relid: number): Promise<void> {
  const { source, target, sync, lockTimeoutMs } = context;
  await requestCopy(target, sync, relid, true, null);
  await tellOthers(source, sync, relid, 'rows');
  await source.run('update ibex.captured set armed_at = null where relid = $1', [relid]);
  try {
    await rearm(source, sync, relid, lockTimeoutMs);
  } catch (error) {
    if (!isKind(error, 'unsupported')) throw error;
    await requestCopy(target, sync, relid, true, error.message);
  }
}

/** Another sync that carries the table was faster to answer what happened to it; this one has rows of its own. */
async function followOthers(context: DriftContext, drift: Drift) {
  const { source, target, sync } = context;
  const { relid, missed, missing } = drift;
  if (missed === 'rows') await requestCopy(target, sync, relid, true, null);
  else await noteAhead(target, sync, relid, missing);
  await settleMissed(source, sync, relid);
  if (missed === 'rows') return { what: 'rows changed unseen: it is copied again', replan: true };
  return changedColumns(context, drift);
}

/** What was carried stays where it is, and nobody waits for more. */
async function leaveDropped(context: DriftContext, { relid }: Drift) {
  const { source, target, sync, lockTimeoutMs } = context;
  await dropTable(target, sync, relid);
  await source.run('delete from ibex.source_table where sync = $1 and relid = $2', [sync, relid]);
  const others = await source.rows('select from ibex.source_table where relid = $1 limit 1', [relid]);
  if (others.length === 0) await tryDisarm(source, relid, lockTimeoutMs);
  return { what: 'dropped on the source', replan: true };
}
