/**
 * Keeps the source small: acknowledges what the target has, moves the triggers on to fresh delta tables, empties
 * those that nobody needs any more.
 */
import {
  acknowledge,
  type Floors,
  forget,
  type GenerationInfo,
  readGenerations,
  rotate,
} from '../capture/trigger/registry.ts';
import type { Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';

/**
 * A generation that is written moves on at this size: what is retained in it costs every batch a few
 * milliseconds of reading. While older ones cannot be emptied the next is allowed as much as all of them, so
 * that their number grows with the logarithm of the backlog.
 */
const ROTATE_BYTES = 4 * 1024 * 1024;

/** One round. `position` and `floors` are what the target has durably applied, and what tables still wait for. */
export async function keepSmall(
  control: Session,
  sync: string,
  position: Snapshot,
  floors: Floors,
): Promise<void> {
  const generations = await readGenerations(control, sync);
  if (generations.length === 0) return;
  await acknowledge(control, sync, position, floors);
  const left: GenerationInfo[] = [];
  for (const generation of generations) {
    const emptied = !generation.current && (await forget(control, generation.relid, generation.n));
    if (!emptied) left.push(generation);
  }
  for (const current of left.filter((generation) => generation.current)) {
    const others = left.filter(({ relid, n }) => relid === current.relid && n !== current.n);
    const retained = others.reduce((sum, { bytes }) => sum + bytes, 0);
    if (current.bytes >= Math.max(ROTATE_BYTES, retained)) await rotate(control, current.relid);
  }
}
