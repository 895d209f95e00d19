/**
 * Looks at rows of one table on either side: each in a short transaction, under the lock of a reader that is taken before
 * the snapshot, so that no TRUNCATE and no rewrite makes it see an empty table.
 */
import { generationsOf, readGenerations } from '../capture/trigger/generations.ts';
import type { Generations } from '../capture/trigger/statements.ts';
import { IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { covers, parseSnapshot, type Snapshot } from '../core/position.ts';
import type { Session } from '../postgres/session.ts';
import type { Sample } from './judge.ts';
import { findChanges, findRows, findUntold, type Key, lockTable, type TableSide } from './statements.ts';

/** What a table is compared with: a session of either side, and how its rows are read there. */
export interface Reading {
  readonly sync: string;
  readonly plan: TablePlan;
  readonly source: Session;
  readonly target: Session;
  readonly here: TableSide;
  readonly there: TableSide;
}

/** Where the target's rows stand, as recorded in the same snapshot. */
export interface Standing {
  readonly position: Snapshot;
  /** Differs once the table was anything but in step with its lane. */
  readonly since: string;
}

const READ_STANDING = `
  select c.position, t.state, t.changed_at::text as since
    from ibex.checkpoint c join ibex.target_table t on t.sync = c.sync where c.sync = $1 and t.relid = $2`;

/** Errors: `not_set_up` when the rows are not in step with the checkpoint. */
export async function readStanding({ target, sync, plan }: Reading): Promise<Standing> {
  const [row] = await target.rows<{ position: string | null; state: string; since: string }>(READ_STANDING, [
    sync,
    plan.relid,
  ]);
  if (row !== undefined && row.position !== null && row.state === 'streaming')
    return { position: row.position, since: row.since };
  const label = tableLabel(plan);
  throw new IbexError('not_set_up', `${label} is ${row?.state ?? 'not part of the sync'} and not in step`, {
    table: label,
    hint: 'Wait until `ibex status` shows it streaming, then verify it again.',
  });
}

/** Runs the body in a snapshot of one side that was taken when the table could not be emptied any more. */
export function inSnapshot<T>(session: Session, side: TableSide, body: () => Promise<T>): Promise<T> {
  return session.transaction('isolation level repeatable read read only', async () => {
    await session.run(lockTable(side));
    return body();
  });
}

/** The snapshot of the source's transaction. Errors: `schema_mismatch` when the columns are not those of the plan. */
export async function readSource({ source, plan }: Reading): Promise<Snapshot> {
  const { snapshot, outline } = await source.row<{ snapshot: Snapshot; outline: string | null }>(
    'select txid_current_snapshot()::text as snapshot, ibex.outline($1) as outline',
    [plan.relid],
  );
  if (outline === plan.outline) return snapshot;
  const label = tableLabel(plan);
  throw new IbexError('schema_mismatch', `the columns of ${label} were altered while it was compared`, {
    table: label,
    hint: 'Verify it again.',
  });
}

/** Both, at the same time; an error is raised once neither uses its session any more. */
export async function together<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}

/** The keys as arrays, one a column. */
export function keyColumns(plan: TablePlan, keys: readonly Key[]): string[][] {
  return Array.from({ length: plan.keyLength }, (_, i) => keys.map((key) => key[i] as string));
}

export interface SourceSample extends Sample {
  readonly snapshot: Snapshot;
}

export type TargetSample = Sample & Standing;

export function lookAtSource(reading: Reading, keys: readonly Key[]): Promise<SourceSample> {
  const { source, here } = reading;
  return inSnapshot(source, here, async () => {
    const snapshot = await readSource(reading);
    return { snapshot, at: parseSnapshot(snapshot), hashes: await findHashes(source, here, keys) };
  });
}

export function lookAtTarget(reading: Reading, keys: readonly Key[]): Promise<TargetSample> {
  const { target, there } = reading;
  return inSnapshot(target, there, async () => {
    const standing = await readStanding(reading);
    const hashes = await findHashes(target, there, keys);
    return { ...standing, at: parseSnapshot(standing.position), hashes };
  });
}

async function findHashes(session: Session, side: TableSide, keys: readonly Key[]) {
  const rows = await session.rows<{ i: number; hash: string }>(findRows(side), keyColumns(side.plan, keys));
  return new Map(rows.map(({ i, hash }) => [i - 1, hash]));
}

export interface Changes {
  /** By the number of the key: the transactions that changed it since. */
  readonly byKey: ReadonlyMap<number, readonly bigint[]>;
  /** Rows may have changed since without a delta that names their key. */
  readonly untold: boolean;
}

/** What the source has noted of the keys since `base`, and not given up meanwhile. */
export async function readChanges(reading: Reading, keys: readonly Key[], base: Snapshot): Promise<Changes> {
  const { source, plan } = reading;
  const { rows, untold } = await source.transaction('isolation level repeatable read read only', async () => {
    const generations = await notedOf(reading);
    if (generations.numbers.length === 0) return { rows: [], untold: false };
    return {
      rows: await source.rows<{ i: number; xid: string }>(
        findChanges(plan, generations, base),
        keyColumns(plan, keys),
      ),
      ...(await source.row<{ untold: boolean }>(findUntold(plan, generations, base))),
    };
  });
  const byKey = new Map<number, bigint[]>();
  for (const { i, xid } of rows) byKey.set(i - 1, [...(byKey.get(i - 1) ?? []), BigInt(xid)]);
  return { byKey, untold: untold || (await wereForgotten(reading, base)) };
}

export async function notedOf({ source, sync, plan }: Reading): Promise<Generations> {
  return generationsOf(await readGenerations(source, sync), plan.relid);
}

/** Asked after the deltas were read: where they were emptied before, it says so. */
export async function wereForgotten({ source, plan }: Reading, base: Snapshot): Promise<boolean> {
  const [row] = await source.rows<{ forgotten: Snapshot | null }>(
    'select forgotten::text from ibex.captured where relid = $1',
    [plan.relid],
  );
  return row === undefined || (row.forgotten !== null && !covers(base, row.forgotten));
}
