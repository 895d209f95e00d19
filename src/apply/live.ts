/**
 * Which side of a sync is live, and so which of its two lanes runs: `X`, from the source to the target, or `X.back`. One
 * fact, in the record that the configured target keeps of `X` (`ibex.live`), which is asked whichever side is live.
 */
import type { Session } from '../postgres/session.ts';

/** The side that the application writes to. */
export type Side = 'source' | 'target';

export interface Live {
  readonly side: Side;
  /** Somebody keeps the application from writing and waits for the daemon. */
  readonly hurry: boolean;
}

/** The sync that a lane belongs to, by the name of either of its two lanes. */
export function syncOfLane(lane: string): string {
  return lane.replace(/\.back$/, '');
}

/** `record` is a session on the configured target. Works whatever version of the schema it has, and without any. */
export async function readLive(record: Session, sync: string): Promise<Live> {
  const { known } = await record.row<{ known: boolean }>(
    `select to_regclass('ibex.live') is not null as known`,
  );
  return known ? readKnownLive(record, sync) : { side: 'source', hurry: false };
}

/** As `readLive`, where the schema is of this version. */
export async function readKnownLive(record: Session, sync: string): Promise<Live> {
  const [live] = await record.rows<Live>(
    'select side, coalesce(hurry_until > clock_timestamp(), false) as hurry from ibex.live where sync = $1',
    [sync],
  );
  return live ?? { side: 'source', hurry: false };
}

/** Has the daemon look here often for so long; 0: not any more. */
export async function hurry(record: Session, sync: string, ms: number): Promise<void> {
  await record.run(
    `insert into ibex.live (sync, hurry_until) values ($1, clock_timestamp() + $2 * interval '1 ms')
     on conflict (sync) do update set hurry_until = excluded.hurry_until`,
    [sync, ms],
  );
}

/** Makes a side live; part of the caller's transaction. */
export async function turnLive(record: Session, sync: string, side: Side): Promise<void> {
  await record.run(
    `insert into ibex.live (sync, side, turned_at) values ($1, $2, clock_timestamp())
     on conflict (sync) do update set side = excluded.side, turned_at = excluded.turned_at`,
    [sync, side],
  );
}
