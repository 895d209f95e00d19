/** Whose turn it is: a lane runs while the right side of its sync is live. */
import { type Live, readKnownLive, readLive, type Side, syncOfLane } from '../apply/live.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import type { Session } from '../postgres/session.ts';

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

/** The same for a lane that runs. Resolves to whether somebody waits for it. */
export function keepTurn(lane: SyncConfig, direction: Direction, ends: Ends): Promise<boolean> {
  return judge(lane, direction, ends, readKnownLive);
}

async function judge(
  lane: SyncConfig,
  direction: Direction,
  ends: Ends,
  read: (record: Session, sync: string) => Promise<Live>,
): Promise<boolean> {
  if (direction === null) return false;
  const record = direction === 'source' ? ends.target : ends.source;
  const { side, hurry } = await read(record, syncOfLane(lane.name));
  if (side === direction) return hurry;
  throw new IbexError('turned', `the ${side} of sync ${syncOfLane(lane.name)} is live`);
}
