/**
 * What deltas take of the source's disk: the budget of a sync as the source has it noted, how much of it is used, and the
 * tables whose deltas were given up. The functions are in `triggers/source/functions/budget.sql` and `relieve.sql`.
 */
import type { Session } from '../../postgres/session.ts';
import type { Statement } from '../../postgres/together.ts';

/** What the deltas of a sync may take of the source's disk, and how old they may get. */
export interface DeltaBudget {
  /** `auto`: in proportion to the size of the database, see `ibex.set_budget`; null: no limit. */
  readonly bytes: number | 'auto' | null;
  readonly ageMs: number | null;
}

/** The deltas of a sync on the source's disk. */
export interface DeltaUsage {
  /** What the delta tables of its tables take, applied deltas that are not forgotten yet included. */
  readonly bytes: number;
  readonly maxBytes: number | null;
  /** Age of the oldest delta that the sync has not acknowledged; null when there is none. */
  readonly oldestSeconds: number | null;
  readonly maxSeconds: number | null;
}

/** A table whose deltas were given up. */
export interface GivenUp {
  readonly relid: number;
  readonly schema: string;
  readonly name: string;
  readonly at: Date;
  readonly why: string;
}

/** Part of a budget from which it is said aloud that it comes to its end. */
const NEAR = 0.8;

/** Records the budget of a sync; counts as a sign of life. */
export async function setBudget(session: Session, sync: string, budget: DeltaBudget): Promise<void> {
  const { bytes, ageMs } = budget;
  await session.run(`select ibex.set_budget($1, $2, $3::float8 * interval '1 ms')`, [
    sync,
    String(bytes ?? 'none'),
    ageMs,
  ]);
}

/** Tells the source that somebody looks after the sync. */
export async function beat(session: Session, sync: string): Promise<void> {
  await session.run('update ibex.source_sync set beat_at = clock_timestamp() where name = $1', [sync]);
}

/** What the deltas of a sync take, over all its tables. Unless `aged`, the oldest is not looked for, which costs more. */
export async function readUsage(session: Session, sync: string, aged: boolean): Promise<DeltaUsage> {
  return session.row<DeltaUsage>(
    `select coalesce(sum(u.bytes), 0)::float8 as bytes,
            extract(epoch from max(u.oldest))::float8 as "oldestSeconds",
            s.max_delta_bytes::float8 as "maxBytes", extract(epoch from s.max_delta_age)::float8 as "maxSeconds"
       from (select $1::text as name) n
       left join ibex.source_sync s using (name) left join ibex.delta_usage($1, $2) u on u.sync = s.name
      group by s.max_delta_bytes, s.max_delta_age`,
    [sync, aged],
  );
}

/** How much of the budget is used, as a part of one: of the bytes or of the time, whichever is more. */
export function usedPart({ bytes, maxBytes, oldestSeconds, maxSeconds }: DeltaUsage): number {
  const part = (used: number | null, of: number | null) => (of === null ? 0 : (used ?? 0) / of);
  return Math.max(part(bytes, maxBytes), part(oldestSeconds, maxSeconds));
}

/** Whether the deltas come near to the end of their budget. */
export function isNear(usage: DeltaUsage): boolean {
  return usedPart(usage) >= NEAR;
}

/**
 * Gives up what is over the budget of a sync; null: of those that nobody has looked after for five minutes. Goes on where
 * locks kept it from finishing before, whatever the sync.
 */
export async function relieve(session: Session, sync: string | null, lockTimeoutMs: number): Promise<void> {
  await session.run('call ibex.relieve($1, false, $2)', [sync, lockTimeoutMs]);
}

/** The tables of a sync whose deltas were given up. */
export async function readGivenUp(session: Session, sync: string): Promise<GivenUp[]> {
  return session.rows<GivenUp>(READ_GIVEN_UP, [sync]);
}

/** What `readGivenUp` asks, for who asks it all the time. */
export function readingGivenUp(sync: string): Statement {
  return { text: READ_GIVEN_UP, values: [sync], prepared: true };
}

const READ_GIVEN_UP = `
  select t.relid::int8::float8 as relid, c.schema_name as schema, c.table_name as name,
         t.given_up_at as at, t.given_up_why as why
    from ibex.source_table t join ibex.captured c on c.relid = t.relid
   where t.sync = $1 and t.given_up_at is not null order by 3, 4`;

/** Takes the marks off: the tables are captured and copied again. To be called once the target knows. */
export async function liftGivenUp(session: Session, sync: string, relids: readonly number[]): Promise<void> {
  await session.run(
    'update ibex.source_table set given_up_at = null, given_up_why = null where sync = $1 and relid = any ($2::oid[])',
    [sync, relids],
  );
}

/** Why a table waits whose deltas were given up, and what lets it go on. */
export function needsBackfill({ at, why }: Pick<GivenUp, 'at' | 'why'>): string {
  const when = at.toISOString().replace('T', ' ').replace(/\..*/, ' UTC');
  return `needs a new backfill, since its changes were given up on ${when}: ${why}; run \`ibex backfill\``;
}
