/**
 * Waits until everything committed on the source before the call is on the target.
 *
 * "Before the call" is one snapshot, taken at its start; nothing committed later, and no transaction that is
 * still open, delays it. What is waited for is looked up in the delta tables: a delta that the snapshot sees and
 * the checkpoint does not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readRestraint } from '../apply/restraint.ts';
import { notSetUp, readRecord, readSyncTables, type SyncTable } from '../apply/state.ts';
import { WAITS_FOR_LOCK } from '../capture/trigger/arming.ts';
import { needsBackfill, readGivenUp } from '../capture/trigger/budget.ts';
import { generationsOf, readGenerations } from '../capture/trigger/generations.ts';
import { readRegistered, readSnapshot } from '../capture/trigger/registry.ts';
import { existsStatement } from '../capture/trigger/statements.ts';
import { tableLabel } from '../core/plan.ts';
import { covers, type Snapshot } from '../core/position.ts';
import { isInstalled } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { requireHistory } from '../setup/history.ts';
import type { TableFilter } from './status.ts';

export interface WaitResult {
  readonly done: boolean;
  /** What is missing, table by table, with the reason; empty when done. */
  readonly missing: readonly { readonly table: string; readonly reason: string }[];
  /** Since when the sync is paused, if that is why it was not waited for. */
  readonly paused: Date | null;
}

/** The pause between looks, which grows with the time that has been waited: a look is some queries on either side. */
const LOOK_MS = { least: 25, most: 250, growth: 1 / 16 };
/** Of a table whose registration somebody took away: no batch reads it, so the position says nothing of it. */
const NOT_REGISTERED = 'the source does not note it for this sync any more';

/** Errors: `identity` when the source is not, or not any more, what the target's checkpoint belongs to. */
export async function waitForTarget(
  source: Session,
  target: Session,
  options: {
    readonly sync: string;
    readonly filter: TableFilter;
    readonly timeoutMs: number;
    readonly signal: AbortSignal;
  },
): Promise<WaitResult> {
  await requireHistory(source, target, options.sync);
  const goal = await readSnapshot(source);
  const began = Date.now();
  const deadline = began + options.timeoutMs;
  for (;;) {
    const missing = await findMissing(source, target, options.sync, options.filter, goal);
    const last = Date.now() >= deadline || options.signal.aborted;
    if (missing === null && last) {
      throw notSetUp(target, options.sync);
    }
    if (missing !== null) {
      const paused = missing.length === 0 ? null : (await readRestraint(target, options.sync)).paused;
      if (last || paused !== null || missing.every((table) => table.held))
        return { done: missing.length === 0, missing, paused };
    }
    const pause = Math.min(LOOK_MS.most, LOOK_MS.least + (Date.now() - began) * LOOK_MS.growth);
    await sleep(pause, undefined, { signal: options.signal }).catch(() => undefined);
  }
}

/** Null while there is no such sync: a daemon that was started at the same time may still be setting it up. */
async function findMissing(
  source: Session,
  target: Session,
  sync: string,
  filter: TableFilter,
  goal: Snapshot,
) {
  if (!(await isInstalled(target, 'target')) || !(await isInstalled(source, 'source'))) return null;
  const record = await readRecord(target, sync);
  if (record === undefined) return null;
  // In this order: one that is registered now and was not when batches went past it has been sent for a new copy.
  const registered = new Set(await readRegistered(source, sync));
  const tables = await stillThere(source, (await readSyncTables(target, sync)).filter(filter));
  const unnoted = tables
    .filter(({ relid, state }) => state === 'streaming' && !registered.has(relid))
    .map((table) => ({ table: tableLabel(table), reason: NOT_REGISTERED, held: false }));
  const notInStep = tables
    .filter((table) => table.state !== 'streaming' && table.state !== 'dropped')
    .map((table) => ({
      table: tableLabel(table),
      reason: table.reason ?? `it is ${table.state}`,
      held: table.state === 'held' || (table.reason !== null && !table.reason.startsWith(WAITS_FOR_LOCK)),
    }));
  const inStep = tables.filter((table) => table.state === 'streaming');
  const missing = [...notInStep, ...unnoted];
  if (record.started !== null && covers(record.started, goal)) return missing;
  const behind = await findBehind(source, sync, inStep, record.position, goal);
  // After the deltas were looked for: where none were found, they may have been given up.
  const lost = (await readGivenUp(source, sync)).filter(({ relid }) =>
    inStep.some((one) => one.relid === relid),
  );
  return [
    ...missing,
    ...lost.map((table) => ({ table: tableLabel(table), reason: needsBackfill(table), held: true })),
    ...behind.map((table) => ({ table, reason: 'changes are not applied yet', held: false })),
  ];
}

/** A table that was dropped on the source has nothing left to wait for. */
async function stillThere(source: Session, tables: readonly SyncTable[]): Promise<SyncTable[]> {
  const rows = await source.rows<{ relid: string }>(
    'select oid::int8::text as relid from pg_class where oid = any ($1::oid[])',
    [tables.map((table) => table.relid)],
  );
  const there = new Set(rows.map((row) => Number(row.relid)));
  return tables.filter((table) => there.has(table.relid));
}

async function findBehind(
  source: Session,
  sync: string,
  tables: readonly SyncTable[],
  position: Snapshot,
  goal: Snapshot,
): Promise<string[]> {
  const generations = await readGenerations(source, sync);
  const statements = tables.flatMap((table) => {
    const own = generationsOf(generations, table.relid);
    return own.numbers.length === 0 ? [] : [existsStatement(table, own, position, goal)];
  });
  if (statements.length === 0) return [];
  const rows = await source.rows<{ relid: string }>(
    `select relid from (${statements.join(' union all ')}) s where s.unapplied`,
  );
  const behind = new Set(rows.map((row) => Number(row.relid)));
  return tables.filter((table) => behind.has(table.relid)).map(tableLabel);
}
