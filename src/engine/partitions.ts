/**
 * Partitions that came or went: ATTACH, DETACH, DROP and CREATE TABLE .. PARTITION OF fire no trigger. What they
 * changed is copied by itself, beside the rows of all other partitions, wherever that is exact.
 */
import { requestParts } from '../backfill/progress.ts';
import { tryArmPartitions } from '../capture/trigger/arming.ts';
import { acceptPartitions, readPartitionChanges } from '../capture/trigger/registry.ts';
import type { Session } from '../postgres/session.ts';

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
  relid: number,
  lockTimeoutMs: number,
): Promise<PartitionAnswer | null> {
  const { refusal } = await source.row<{ refusal: string | null }>('select ibex.refusal($1) as refusal', [
    relid,
  ]);
  if (refusal !== null) return null;
  const waiting = await tryArmPartitions(source, relid, lockTimeoutMs);
  const changes = waiting.length === 0 ? await readPartitionChanges(source, relid) : undefined;
  if (changes === undefined) {
    const blocked = waiting.map(
      ({ relation, blockers }) => `${relation} (${blockers.join(', ') || 'others'})`,
    );
    return {
      what: `its partitions changed; waiting for a lock on ${blocked.join(', ')}`,
      replan: false,
      again: true,
    };
  }
  const { exact, parts, came, went } = changes;
  if (!exact) return null;
  if (parts !== null) await requestParts(target, sync, relid, parts);
  await acceptPartitions(source, relid, changes);
  return { what: `${came} partitions came, ${went} went: their rows are copied`, replan: parts !== null };
}
