/**
 * Keeps the source small: moves the triggers on to fresh delta tables, acknowledges what the target has, empties
 * the delta tables that nobody needs any more.
 */
import { readApplied } from '../apply/state.ts';
import { forget, type GenerationInfo, readGenerations, rotate } from '../capture/trigger/generations.ts';
import { acknowledge, readFloors } from '../capture/trigger/registry.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Session } from '../postgres/session.ts';

/**
 * A generation that is written moves on at this size: what is retained in it costs every batch a few
 * milliseconds of reading. While older ones cannot be emptied the next is allowed as much as all of them, so
 * that their number grows with the logarithm of the backlog.
 */
const ROTATE_BYTES = 4 * 1024 * 1024;

/** And at this size, when the deltas come near to the end of their budget. */
const TIGHT_BYTES = 64 * 1024;

/**
 * One round. Does nothing on the source unless there is something to forget or to move on from.
 * @param tight move on early, so that everything can be forgotten that was applied
 */
export async function keepSmall(
  source: Session,
  target: Session,
  sync: string,
  tight: boolean,
): Promise<void> {
  const enough = tight ? TIGHT_BYTES : ROTATE_BYTES;
  const generations = await readGenerations(source, sync);
  const old = generations.filter((generation) => !generation.current);
  const left: GenerationInfo[] = [];
  if (old.length > 0) await tellSource(source, target, sync);
  for (const generation of old) {
    if (!(await forget(source, generation.relid, generation.n))) left.push(generation);
    failpoint('during-forgetting');
  }
  for (const current of generations.filter((generation) => generation.current)) {
    const others = left.filter(({ relid }) => relid === current.relid);
    const retained = others.reduce((sum, { bytes }) => sum + bytes, 0);
    if (current.bytes < Math.max(enough, retained)) continue;
    await rotate(source, current.relid);
    failpoint('during-rotation');
  }
}

/** Acknowledges what the target has. The order of the two readings matters, see `acknowledge`. */
export async function tellSource(source: Session, target: Session, sync: string): Promise<void> {
  const floors = await readFloors(source, sync);
  const { record, tables } = await readApplied(target, sync);
  if (record?.started == null) return;
  failpoint('before-acknowledge');
  await acknowledge(source, sync, floors, {
    position: record.started,
    tables: tables.map(({ relid, state, floor }) => ({ relid, inStep: state === 'streaming', floor })),
  });
}
