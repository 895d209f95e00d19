/**
 * Partitions that came or went: ATTACH, DETACH, DROP and CREATE TABLE .. PARTITION OF fire no trigger. What they
 * changed is copied by itself, beside the rows of all other partitions, wherever that is exact.
 */
import { requestCopy } from '../apply/state.ts';
import { requestParts } from '../backfill/progress.ts';
import {
  briefly,
  tryArmPartitions,
  tryDisarm,
  tryFreeStrays,
  type Waiting,
} from '../capture/trigger/arming.ts';
import { acceptPartitions, readPartitionChanges, tellOthers } from '../capture/trigger/registry.ts';
import type { TableName } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { refusedTable } from '../setup/refusal.ts';

export interface PartitionAnswer {
  readonly what: string;
  readonly replan: boolean;
  readonly again?: boolean;
}

/**
 * The order matters. New partitions are armed first, so that what is written from then on is in the deltas. Then the
 * target is asked to copy the parts; only once that is durable does the source record that they are answered: a
 * crash in between asks for them again.
 * Resolves to null when only a copy of the whole table is exact.
 */
export async function answerPartitions(
  source: Session,
  target: Session,
  sync: string,
  table: TableName & { readonly relid: number },
  lockTimeoutMs: number,
): Promise<PartitionAnswer | null> {
  const { relid } = table;
  const { refusal } = await source.row<{ refusal: string | null }>('select ibex.refusal($1) as refusal', [
    relid,
  ]);
  if (refusal !== null) return release(source, target, sync, table, lockTimeoutMs, refusal);
  const waiting = await tryArmPartitions(source, relid, lockTimeoutMs);
  if (waiting.length > 0) return postponed('its partitions changed', waiting);
  const read = await briefly(source, relid, lockTimeoutMs, 'access share', () =>
    readPartitionChanges(source, relid),
  );
  if ('waiting' in read) return postponed('its partitions changed', [read.waiting]);
  const changes = read.result;
  // One that came in between lacks its triggers still.
  if (changes === undefined) return postponed('its partitions changed', []);
  const { exact, parts, came, went } = changes;
  if (!exact) return null;
  // Where they still fire they note keys that the table does not have, which does no harm.
  await tryFreeStrays(source, relid, lockTimeoutMs);
  if (parts !== null) await requestParts(target, sync, relid, parts);
  if (parts !== null) await tellOthers(source, sync, relid, 'rows');
  await acceptPartitions(source, relid, changes);
  return { what: `${came} partitions came, ${went} went: their rows are copied`, replan: parts !== null };
}

/** What cannot be answered while others have a lock is looked at again. */
export function postponed(what: string, waiting: readonly Waiting[]): PartitionAnswer {
  const blocked = waiting.map(({ relation, blockers }) => `${relation} (${blockers.join(', ') || 'others'})`);
  const wait = blocked.length === 0 ? '' : `; waiting for a lock on ${blocked.join(', ')}`;
  return { what: `${what}${wait}`, replan: false, again: true };
}

/**
 * A foreign table that became a partition makes every statement fail that reaches it while our triggers collect rows:
 * they are taken off at once, and the table waits until it can be carried again.
 */
async function release(
  source: Session,
  target: Session,
  sync: string,
  table: TableName & { readonly relid: number },
  lockTimeoutMs: number,
  refusal: string,
): Promise<PartitionAnswer> {
  await requestCopy(target, sync, table.relid, true, refusedTable(table, refusal).message);
  const waiting = await tryDisarm(source, table.relid, lockTimeoutMs);
  const left = waiting.length > 0;
  return { what: `${refusal}: it is no longer captured`, replan: !left, again: left };
}

/** Tables that were refused and can be captured now; `relids` are those that are not captured. */
export async function readAdmissible(source: Session, relids: readonly number[]): Promise<number[]> {
  if (relids.length === 0) return [];
  const rows = await source.rows<{ relid: string }>(
    `select c.oid::int8::text as relid from pg_class c
      where c.oid = any ($1::oid[]) and ibex.refusal(c.oid) is null
        and not exists (select from ibex.captured k where k.relid = c.oid)`,
    [relids],
  );
  return rows.map((row) => Number(row.relid));
}
