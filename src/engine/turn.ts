/** Whose turn it is: a lane runs while the right side of its sync is live. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Live, readKnownLive, readLive, type Side, syncOfLane } from '../apply/live.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';

/** How often it is looked whose turn it is, and how often while somebody waits. */
const LOOK_MS = 1_000;
const HURRIED_MS = 50;

/** The side that has to be live for a lane to run; null: it runs beside its counterpart. */
export type Direction = Side | null;

/** Sessions of a lane, which has its own source and target. */
interface Ends {
  readonly source: Session;
  readonly target: Session;
}

/** Errors: `turned` when the lane is not to run, as the other side is live. Works whatever version of the schema there is. */
export function requireTurn(lane: SyncConfig, direction: Direction, ends: Ends): Promise<boolean> {
  return judge(lane, direction, ends, readLive);
}

/**
 * Sees that it stays the lane's turn, until the signal. While somebody waits, `hurry` is called each time: the checkpoint
 * is to move even when there is nothing to carry. Errors: `turned`.
 */
export async function keepTurn(
  lane: SyncConfig,
  direction: Direction,
  ends: Ends,
  hurry: () => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const hurried = await judge(lane, direction, ends, readKnownLive);
    if (hurried) hurry();
    await sleep(hurried ? HURRIED_MS : LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
}

async function judge(
  lane: SyncConfig,
  direction: Direction,
  ends: Ends,
  read: (record: Session, sync: string) => Promise<Live>,
): Promise<boolean> {
  if (direction === null) return false;
  const record = direction === 'source' ? ends.target : ends.source;
  // Others use the session too.
  await record.rest();
  const { side, hurry } = await read(record, syncOfLane(lane.name));
  if (side === direction) return hurry;
  throw new IbexError('turned', `the ${side} of sync ${syncOfLane(lane.name)} is live`);
}
