/**
 * Everything of a move that can be done while the application writes: the fences stand on both sides, the one on the side
 * that becomes live is up, and changes are noted there for the way back. Repeatable.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readRecord, readSyncTables, registerSync } from '../../apply/state.ts';
import { pauseBeforeTry, type Waiting } from '../../capture/trigger/arming.ts';
import { beginLane } from '../../capture/trigger/beginning.ts';
import { raiseFence, tryPlaceFence } from '../../capture/trigger/fence.ts';
import {
  claimIdentity,
  readLastingSnapshot,
  registerSync as registerOnSource,
  setEcho,
} from '../../capture/trigger/registry.ts';
import { IbexError } from '../../core/errors.ts';
import { tableLabel } from '../../core/plan.ts';
import type { TableInfo } from '../../core/table.ts';
import { readIdentity, readTables } from '../../postgres/catalog.ts';
import { migrate } from '../../postgres/migrate.ts';
import type { Session } from '../../postgres/session.ts';
import { captureAll } from '../../setup/capturing.ts';
import { armAll } from '../../setup/setup.ts';
import { teardownSource } from '../../setup/teardown.ts';
import { waitOutWriters } from './fencing.ts';
import { type Move, nodesOf } from './move.ts';

/** The tables of the lane as the side has them that becomes live. */
export async function tablesOf({ lane, fresh }: Pick<Move, 'lane' | 'fresh'>): Promise<TableInfo[]> {
  const names = (await readSyncTables(fresh, lane.name)).filter(({ state }) => state !== 'dropped');
  return readTables(fresh, names);
}

/** Errors: `refused` when tables stay locked, or somebody else writes to the side that becomes live. */
export async function prepare(move: Move) {
  const { lane, next, old, fresh, dryRun } = move;
  for (const side of [old, fresh]) {
    await migrate(side, 'source');
    await migrate(side, 'target');
    // What came with that has to be as readable as the rest, for whoever dumps the database.
    await side.rows('select ibex.share(c.relid) from ibex.captured c');
  }
  const tables = await tablesOf(move);
  await registerWayBack(move, tables);
  await patiently(move, old, 'the fence', () => tryPlaceFence(old, lane.name, move.lockTimeoutMs));
  await patiently(move, fresh, 'the fence', () => tryPlaceFence(fresh, next.name, move.lockTimeoutMs));
  if (!dryRun) {
    // From here on nobody writes there but the lane: what is noted from now on is all that comes to be noted.
    await raiseFence(fresh, next.name, nodesOf(move));
    await waitOutWriters(move, fresh, next.name);
  }
  const relids = tables.map(({ relid }) => relid);
  await patiently(move, fresh, 'the triggers', async () =>
    [...(await armAll(fresh, next.name, relids, move.lockTimeoutMs)).values()].flat(),
  );
  await setEcho(old, lane.name, lane.target.name);
  return {
    found: { tables: tables.length },
    text: `${tables.length} tables are captured on ${fresh.server}, and both fences stand`,
  };
}

/** Both sides learn of the lane of the other direction. Nothing is noted for it yet, and it does not run. */
async function registerWayBack({ next, old, fresh, ...move }: Move, tables: readonly TableInfo[]) {
  const identity = await readIdentity(fresh);
  await registerSync(old, next.name, identity);
  await claimIdentity(fresh, identity);
  await registerOnSource(fresh, next.name, (await readRecord(old, next.name))?.witness ?? 0);
  const relids = new Set(tables.map(({ relid }) => relid));
  const gone = await goneFrom(fresh, next.name, relids);
  if (gone.size > 0) {
    await teardownSource(fresh, {
      sync: next.name,
      filter: (table) => gone.has(tableLabel(table)),
      lockTimeoutMs: move.lockTimeoutMs,
      patienceMs: move.armTimeoutMs,
      signal: move.signal,
    });
  }
  await setEcho(fresh, next.name, next.target.name);
  const [refused] = await captureAll(fresh, next.name, tables);
  if (refused !== undefined) throw new IbexError('refused', `the way back: ${refused.error.message}`);
  // Nobody waits for what may have been noted since an earlier attempt.
  await beginLane(fresh, next.name, await readLastingSnapshot(fresh));
}

/** Tables of the way back that the sync has no more. */
async function goneFrom(fresh: Session, lane: string, relids: ReadonlySet<number>): Promise<Set<string>> {
  const rows = await fresh.rows<{ relid: number; schema: string; name: string }>(
    `select c.relid::int8::float8 as relid, c.schema_name as schema, c.table_name as name
       from ibex.source_table t join ibex.captured c on c.relid = t.relid where t.sync = $1`,
    [lane],
  );
  return new Set(rows.filter(({ relid }) => !relids.has(relid)).map(tableLabel));
}

/** Tries until nobody is in the way. Errors: `refused`, with who is. */
export async function patiently(
  { armTimeoutMs, signal }: Move,
  side: Session,
  what: string,
  work: () => Promise<readonly Waiting[]>,
): Promise<void> {
  const deadline = Date.now() + armTimeoutMs;
  for (let attempt = 1; ; attempt++) {
    const waiting = await work();
    if (waiting.length === 0) return;
    signal.throwIfAborted();
    if (Date.now() > deadline) {
      const [{ relation, blockers }] = waiting as [Waiting];
      throw new IbexError(
        'refused',
        `${side.server}: ${what} cannot be put on ${relation}: locked by ${blockers.join(', ') || 'others'}`,
        { hint: 'End or wait for that session, then run the command again.' },
      );
    }
    await sleep(pauseBeforeTry(attempt), undefined, { signal });
  }
}
