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
 * A generation that is written moves on at this size. Every batch reads all that is retained, twice; to move on takes some
 * milliseconds here, and almost one of each session that writes the table, which compiles the function anew. While older ones
 * cannot be emptied the next is allowed as much as all of them, so that their number grows with the logarithm of the
 * backlog.
 */
const ROTATE_BYTES = 512 * 1024;

/**
 * Under load a batch has the generations open nearly all the time, so the lane rests after its next look, if that does
 * not take for ever. What is larger than this, such as the backlog of a night, is open to other syncs too: it is tried
 * between their looks, about as long as one of them takes, which grows with the generation.
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
  if (old.length > 0) await tellSource(source, target, sync);
  let tried = await forgetAll(source, old, forgetOnce);
  if (tried.open.length > 0) {
    const { open, needed } = tried;
    await atRest(async () => {
      const again = await forgetAll(source, open, forgetInGaps);
      tried = { open: again.open, needed: [...needed, ...again.needed] };
    });
  }
  const left = [...tried.open, ...tried.needed];
  for (const current of generations.filter((generation) => generation.current)) {
    const others = left.filter(({ relid }) => relid === current.relid);
    const retained = others.reduce((sum, { bytes }) => sum + bytes, 0);
    if (current.bytes < Math.max(enough, retained)) continue;
    await rotate(source, current.relid);
    failpoint('during-rotation');
  }
  return tried.open.length === 0;
}

type Forget = (source: Session, generation: GenerationInfo) => Promise<Forgetting>;

/** Resolves to what it could not empty. */
async function forgetAll(
  source: Session,
  generations: readonly GenerationInfo[],
  forgetOne: Forget,
): Promise<Record<Exclude<Forgetting, 'emptied'>, GenerationInfo[]>> {
  const left: Record<Forgetting, GenerationInfo[]> = { emptied: [], needed: [], open: [] };
  for (const generation of generations) {
    left[await forgetOne(source, generation)].push(generation);
    failpoint('during-forgetting');
  }
  return left;
}

function forgetOnce(source: Session, { relid, n }: GenerationInfo): Promise<Forgetting> {
  return forget(source, relid, n);
}

async function forgetInGaps(source: Session, generation: GenerationInfo): Promise<Forgetting> {
  const { relid, n, bytes } = generation;
  if (bytes <= LARGE_BYTES) return forgetOnce(source, generation);
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
