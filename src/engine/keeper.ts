/**
 * Keeps the source small: moves the triggers on to fresh delta tables, acknowledges what the target has, empties
 * the delta tables that nobody needs any more.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readApplied } from '../apply/state.ts';
import {
  type Forgetting,
  forget,
  type GenerationInfo,
  readGenerations,
  rotate,
} from '../capture/trigger/generations.ts';
import { acknowledge, readFloors } from '../capture/trigger/registry.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Session } from '../postgres/session.ts';

/**
 * A generation that is written moves on at this size: what is retained in it costs every batch a few
 * milliseconds of reading. While older ones cannot be emptied the next is allowed as much as all of them, so
 * that their number grows with the logarithm of the backlog.
 */
const ROTATE_BYTES = 4 * 1024 * 1024;

/**
 * What is larger, such as the backlog of a night, takes long to read, and every batch reads it: it would be open all the
 * time. So the lane rests after its next look, if that does not take for ever, and it is tried between the looks of others:
 * about as long as one of them takes, which grows with the generation.
 */
const LARGE_BYTES = 16 * 1024 * 1024;
export const LOOK_MS = 30_000;
const REST_MS = { least: 1_000, perMegabyte: 10, most: 30_000 };
const TRY_EVERY_MS = 10;

/** And at this size, when the deltas come near to the end of their budget. */
const TIGHT_BYTES = 64 * 1024;

/**
 * One round. Does nothing on the source unless there is something to forget or to move on from.
 * @param tight move on early, so that everything can be forgotten that was applied
 * @param atRest does something while the lane reads nothing
 * Resolves to false when there is more to do as soon as others let go of it.
 */
export async function keepSmall(
  source: Session,
  target: Session,
  sync: string,
  tight: boolean,
  atRest: (work: () => Promise<void>) => Promise<void>,
): Promise<boolean> {
  const enough = tight ? TIGHT_BYTES : ROTATE_BYTES;
  const generations = await readGenerations(source, sync);
  const old = generations.filter((generation) => !generation.current);
  const left: GenerationInfo[] = [];
  let free = true;
  if (old.length > 0) await tellSource(source, target, sync);
  for (const generation of old) {
    let now = await forget(source, generation.relid, generation.n);
    if (now === 'open' && generation.bytes > LARGE_BYTES) {
      await atRest(async () => {
        now = await forgetInGaps(source, generation);
      });
    }
    if (now !== 'emptied') left.push(generation);
    free &&= now !== 'open';
    failpoint('during-forgetting');
  }
  for (const current of generations.filter((generation) => generation.current)) {
    const others = left.filter(({ relid }) => relid === current.relid);
    const retained = others.reduce((sum, { bytes }) => sum + bytes, 0);
    if (current.bytes < Math.max(enough, retained)) continue;
    await rotate(source, current.relid);
    failpoint('during-rotation');
  }
  return free;
}

async function forgetInGaps(source: Session, { relid, n, bytes }: GenerationInfo): Promise<Forgetting> {
  const rest = Math.max(REST_MS.least, (REST_MS.perMegabyte * bytes) / 2 ** 20);
  const until = Date.now() + Math.min(REST_MS.most, rest);
  for (;;) {
    const now = await forget(source, relid, n);
    if (now !== 'open' || Date.now() > until) return now;
    await sleep(TRY_EVERY_MS);
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
