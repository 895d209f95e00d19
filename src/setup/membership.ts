/**
 * Takes tables into a sync and out of it, and asks for new copies, whether or not a daemon runs: both sides' records
 * say what is wanted, and a daemon looks at them all the time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  readSyncTables,
  registerTables,
  requestCopy,
  requireRecord,
  type SyncTable,
} from '../apply/state.ts';
import { pauseBeforeTry } from '../capture/trigger/arming.ts';
import { IbexError, isKind } from '../core/errors.ts';
import { matches, type TablePattern } from '../core/patterns.ts';
import type { CarryRule, TableName } from '../core/plan.ts';
import type { TableInfo } from '../core/table.ts';
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { captureAll } from './capturing.ts';
import { wantAgain } from './relief.ts';
import { chooseTables, findObstacles, type Obstacle, requireMatches } from './tables.ts';
import {
  type TeardownOptions,
  type TeardownResult,
  teardownGuard,
  teardownSource,
  teardownTarget,
} from './teardown.ts';

export interface Membership {
  readonly sync: string;
  readonly source: Session;
  readonly target: Session;
  readonly patterns: readonly TablePattern[];
}

export interface AddResult {
  readonly added: readonly TableName[];
  /** Named, and part of the sync before. */
  readonly already: readonly TableName[];
  /** What stands against some of them; then none was added. */
  readonly obstacles: readonly Obstacle[];
}

/**
 * Adds tables: captured on the source, to be copied on the target. One that was part of the sync before is copied
 * anew, since nobody knows what happened to its rows meanwhile.
 */
export async function addTables(
  membership: Membership & { readonly replica: boolean; readonly carry: readonly CarryRule[] },
): Promise<AddResult> {
  const { sync, source, target, patterns, replica } = membership;
  const known = await requireSync(target, sync);
  await migrate(source, 'source');
  await migrate(target, 'target');
  const chosen = await chooseTables(source, { tables: patterns, exclude: [] }, []);
  const present = new Set(known.filter(({ state }) => state !== 'dropped').map(({ relid }) => relid));
  const [already, fresh] = [
    chosen.filter(({ relid }) => present.has(relid)),
    chosen.filter(({ relid }) => !present.has(relid)),
  ];
  const obstacles = await findObstacles({ source, target, replica, carry: membership.carry }, fresh);
  if (obstacles.length > 0) return { added: [], already, obstacles };
  const refused = await captureAll(source, sync, fresh);
  if (refused.length > 0) return { added: [], already, obstacles: refused };
  await target.transaction('', async () => {
    for (const table of fresh) await register(target, sync, table);
  });
  return { added: fresh, already, obstacles: [] };
}

async function register(target: Session, sync: string, table: TableInfo): Promise<void> {
  const former = await target.run(
    `delete from ibex.target_table where sync = $1 and (schema_name, table_name) = ($2, $3) and state = 'dropped'`,
    [sync, table.schema, table.name],
  );
  const left = await target.run(
    'delete from ibex.left_out where sync = $1 and (schema_name, table_name) = ($2, $3)',
    [sync, table.schema, table.name],
  );
  await registerTables(target, sync, [table]);
  if (former + left > 0) await requestCopy(target, sync, table.relid, true, null);
}

export interface RemoveResult {
  readonly removed: readonly TableName[];
  readonly source: TeardownResult;
  readonly target: TeardownResult;
  /** Of the target's guard. */
  readonly guard: Pick<TeardownResult, 'waiting'>;
}

/** How often what a deadlock ended is tried. */
const TRIES = 5;

/** Takes tables out: they are disarmed, their rows on the target stay. Can be called again where it could not finish. */
export async function removeTables(
  membership: Membership,
  options: Pick<TeardownOptions, 'lockTimeoutMs' | 'patienceMs' | 'signal'>,
): Promise<RemoveResult> {
  const { sync, source, target, patterns } = membership;
  const known = await requireSync(target, sync);
  await migrate(target, 'target');
  const left = await readLeftOut(target, sync);
  requireMatches({ tables: patterns, exclude: [] }, [...known, ...left], sync);
  const filter = (table: TableName) => patterns.some((pattern) => matches(pattern, table.schema, table.name));
  const removed = known.filter(filter);
  if (removed.length === known.length) {
    throw new IbexError('config', `sync ${sync} would have no table left`, {
      hint: 'To end the sync: stop the daemon, then ibex teardown.',
    });
  }
  await target.run(
    `insert into ibex.left_out (sync, schema_name, table_name)
     select $1, r.schema, r.name from json_to_recordset($2) r(schema text, name text) on conflict do nothing`,
    [sync, JSON.stringify(removed.map(({ schema, name }) => ({ schema, name })))],
  );
  // First of all, so that a daemon does not take a trigger that goes for one that somebody else took off.
  await source.run('delete from ibex.source_table where sync = $1 and relid = any ($2::oid[])', [
    sync,
    removed.map(({ relid }) => relid),
  ]);
  const all = { ...options, sync, filter };
  return {
    removed,
    target: await repeated(() => teardownTarget(target, all)),
    guard: await repeated(() => teardownGuard(target, all)),
    source: await repeated(() => teardownSource(source, all)),
  };
}

/** Does again what can be done again, when the server ended it for a deadlock: the daemon works on the same tables. */
async function repeated<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isKind(error, 'transient') || attempt === TRIES) throw error;
      await sleep(pauseBeforeTry(attempt));
    }
  }
}

/** Has tables copied again, replacing what the target has of them. */
export async function recopyTables({ sync, source, target, patterns }: Membership): Promise<TableName[]> {
  const known = (await requireSync(target, sync)).filter(({ state }) => state !== 'dropped');
  requireMatches({ tables: patterns, exclude: [] }, known, sync);
  const filter = (table: TableName) => patterns.some((pattern) => matches(pattern, table.schema, table.name));
  await wantAgain(source, target, sync, filter);
  return restartCopies(target, sync, filter);
}

/** As `recopyTables`, of the tables that pass the filter; of none when there is no such sync. */
export async function restartCopies(
  target: Session,
  sync: string,
  filter: (table: TableName) => boolean,
): Promise<TableName[]> {
  const tables = await readSyncTables(target, sync);
  const chosen = tables.filter((table) => table.state !== 'dropped' && filter(table));
  for (const { relid } of chosen) await requestCopy(target, sync, relid, true, null);
  return chosen;
}

async function requireSync(target: Session, sync: string): Promise<SyncTable[]> {
  await requireRecord(target, sync);
  return readSyncTables(target, sync);
}

/** Tables that were taken out by name; none where the schema is not there, or of an earlier version. */
export async function readLeftOut(target: Session, sync: string): Promise<TableName[]> {
  const { present } = await target.row<{ present: boolean }>(
    `select to_regclass('ibex.left_out') is not null as present`,
  );
  if (!present) return [];
  return target.rows<TableName>(
    'select schema_name as schema, table_name as name from ibex.left_out where sync = $1',
    [sync],
  );
}
