/** Raises the fence of the side that is left, and waits until nobody is left who might have missed it. */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  endWriters,
  raiseFence,
  readFence,
  readWriters,
  tryPlaceFence,
  type Writer,
} from '../../capture/trigger/fence.ts';
import { IbexError } from '../../core/errors.ts';
import type { Session } from '../../postgres/session.ts';
import { type Move, nodesOf } from './move.ts';

const LOOK_MS = 20;
/** How long sessions that were ended may take to be gone. */
const ENDING_MS = 5_000;
/** Nobody was there for so many looks: the locks of a transaction that is being prepared change hands between two. */
const CLEAR_LOOKS = 2;

/** Resolves to the fence's mark. Errors: `refused`, with the sessions that are still writing. */
export async function fenceOff(move: Move): Promise<string> {
  const { old, lane } = move;
  const mark = await raiseFence(old, lane.name, nodesOf(move));
  // A partition that came since it was placed. Whoever wrote to it meanwhile is waited for below.
  await tryPlaceFence(old, lane.name, move.lockTimeoutMs);
  await requireFence(old, lane.name, mark);
  await waitOutWriters(move, old, lane.name);
  return mark;
}

/** Errors: `refused` unless the fence is up since it was raised with this mark, on every table. */
export async function requireFence(side: Session, lane: string, mark: string | null): Promise<void> {
  const fence = await readFence(side, lane);
  const where = `${side.server}: the fence`;
  if (!fence.up || (mark !== null && fence.mark !== mark))
    throw new IbexError('refused', `${where} was lifted by somebody else`);
  const [missing] = fence.unfenced;
  if (missing !== undefined) throw new IbexError('refused', `${where} does not stand on ${missing}`);
}

/**
 * Waits for the transactions that had a lock on one of the tables when the fence had gone up. Who gets a lock later meets
 * the fence, so these are all who can have written, or still can. A transaction that is prepared meanwhile counts too.
 */
export async function waitOutWriters(move: Move, side: Session, lane: string): Promise<void> {
  const { graceMs, terminate, signal } = move;
  const stillThere = await writersOfNow(side, lane);
  const left = await untilGone(stillThere, Date.now() + graceMs, signal);
  if (left.length === 0) return;
  const prepared = left.filter(({ pid }) => pid === null);
  if (!terminate || prepared.length > 0) throw stillWriting(side, left, graceMs);
  const refused = await endWriters(side, left);
  const stubborn = await untilGone(stillThere, Date.now() + ENDING_MS, signal);
  if (stubborn.length === 0) return;
  throw new IbexError('refused', `${side.server}: not all writers could be ended: ${refused.join('; ')}`, {
    hint: 'To end sessions of other roles, ours has to be granted them, or pg_signal_backend.',
  });
}

/** Waits for the same for the grace time, whether or not there is a fence; resolves to those that are left then. */
export async function waitForWriters(move: Move, side: Session, lane: string): Promise<Writer[]> {
  return untilGone(await writersOfNow(side, lane), Date.now() + move.graceMs, move.signal);
}

/** Looks which of those that are writing now still are. */
async function writersOfNow(side: Session, lane: string): Promise<() => Promise<Writer[]>> {
  const known = new Set((await readWriters(side, lane)).map(({ transaction }) => transaction));
  return async () =>
    (await readWriters(side, lane)).filter(({ pid, transaction }) => pid === null || known.has(transaction));
}

async function untilGone(
  look: () => Promise<Writer[]>,
  deadline: number,
  signal: AbortSignal,
): Promise<Writer[]> {
  let clear = 0;
  for (;;) {
    const left = await look();
    clear = left.length === 0 ? clear + 1 : 0;
    if (clear === CLEAR_LOOKS) return [];
    if (left.length > 0 && Date.now() > deadline) return left;
    await sleep(LOOK_MS, undefined, { signal });
  }
}

export function stillWriting(side: Session, writers: readonly Writer[], graceMs: number): IbexError {
  const who = writers.map((writer) => writer.who).join(', ');
  const prepared = writers.some(({ pid }) => pid === null);
  return new IbexError('refused', `${side.server}: after ${graceMs / 1000} s still writing: ${who}`, {
    hint: prepared
      ? 'A prepared transaction is ended by COMMIT PREPARED or ROLLBACK PREPARED only.'
      : 'Wait for them, give them longer with --grace, or have them ended with --terminate.',
  });
}
