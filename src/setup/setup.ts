/**
 * Prepares both sides of a sync: the schema `ibex`, the capture of every table, its place in the sync. Arming,
 * which may have to wait for locks, is the last step and can be gone on with at any time. Safe to repeat.
 */
import { randomInt } from 'node:crypto';
import { parkTriggersAndRules } from '../apply/parking.ts';
import {
  readRecord,
  readSyncTables,
  registerSync as registerOnTarget,
  registerTable as registerTableOnTarget,
  requestCopy,
  type SyncTable,
  setReason,
} from '../apply/state.ts';
import { prepareCapture, type Waiting } from '../capture/trigger/arming.ts';
import { type DeltaBudget, setBudget } from '../capture/trigger/budget.ts';
import { claimIdentity, readCaptured, registerSync, registerTable } from '../capture/trigger/registry.ts';
import { encodingsAgree } from '../core/conversion.ts';
import { IbexError } from '../core/errors.ts';
import { type CarryRule, tableLabel } from '../core/plan.ts';
import { identityDifference } from '../core/position.ts';
import type { TableInfo } from '../core/table.ts';
import { checkServer, readIdentity, readTables } from '../postgres/catalog.ts';
import { migrate } from '../postgres/migrate.ts';
import { ident } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { requireHistory } from './history.ts';
import { readLeftOut } from './membership.ts';
import { rearm } from './rearm.ts';
import { refusedTable } from './refusal.ts';
import { reasonOf } from './remedies.ts';
import { chooseTables, findObstacles, type Obstacle, requireRuled, type TableChoice } from './tables.ts';

export interface SetupOptions extends TableChoice {
  readonly sync: string;
  readonly source: Session;
  readonly target: Session;
  /** The target's role may set session_replication_role: nothing has to be parked. */
  readonly replica: boolean;
  /** Take in what the patterns name. Otherwise the tables stay those that the sync has already. */
  readonly adopt: boolean;
  /** What is carried of some of the tables. */
  readonly carry: readonly CarryRule[];
  /** The tables that this one call named: then rules of other tables are none of its business. */
  readonly asked: TableChoice;
  /** What its deltas may take of the source's disk. */
  readonly budget: DeltaBudget;
}

export interface SetupResult {
  /** Tables that are part of the sync, armed or not. */
  readonly tables: readonly TableInfo[];
  /** Tables that cannot be carried as things are; `run` holds them, `setup` refuses to go on without them. */
  readonly obstacles: readonly Obstacle[];
}

/** Looks at everything first, without changing anything. Errors end it; what concerns single tables is in `obstacles`. */
export async function inspect(options: SetupOptions): Promise<SetupResult> {
  const { source, target } = options;
  await checkServer(source);
  await checkServer(target);
  if (await areSame(source, target)) {
    throw new IbexError(
      'config',
      `source and target are the same database (${source.server}, ${target.server})`,
      {
        hint: 'Give two different URLs.',
      },
    );
  }
  await requireHistory(source, target, options.sync);
  await requireEncodings(source, target);
  await requireSchema(source);
  await requireSchema(target);
  await requireTemporaryTables(target);
  const tables = await tablesOf(options);
  requireRuled(options, [...tables, ...(await readKnown(target, options.sync))]);
  return { tables, obstacles: await findObstacles(options, tables) };
}

/**
 * The tables that the sync has by now, with those created anew under the name of one that was dropped, and those that its
 * patterns take in unless they were taken out by name.
 */
async function tablesOf(options: SetupOptions): Promise<TableInfo[]> {
  const { source, target, sync } = options;
  const known = await readKnown(target, sync);
  const relids = new Set(known.map(({ relid }) => relid));
  const dropped = await readDropped(source, known);
  const kept = (await readTables(source, known)).filter(
    (table) => relids.has(table.relid) || dropped.has(tableLabel(table)),
  );
  if (!options.adopt) return kept;
  const left = await readLeftOut(target, sync);
  const [chosen, away] = [
    await chooseTables(source, options, [...known, ...left]),
    new Set(left.map(tableLabel)),
  ];
  const all = new Map([...kept, ...chosen].map((table) => [table.relid, table]));
  return [...all.values()].filter((table) => !away.has(tableLabel(table)));
}

async function areSame(source: Session, target: Session): Promise<boolean> {
  const [here, there] = [await readIdentity(source), await readIdentity(target)];
  if (here.system !== 'hidden' && there.system !== 'hidden') return identityDifference(here, there) === null;
  // Where the provider hides which server this is: a lock that one session holds, the other cannot have.
  const key = randomInt(2 ** 31);
  return source.transaction('', async () => {
    await source.run(`select pg_advisory_xact_lock(hashtext('ibex'), $1)`, [key]);
    const { free } = await target.row<{ free: boolean }>(
      `select pg_try_advisory_xact_lock(hashtext('ibex'), $1) as free`,
      [key],
    );
    return !free;
  });
}

/** Text of an unknown encoding is not told in another one. */
async function requireEncodings(source: Session, target: Session): Promise<void> {
  const [here, there] = [await readEncoding(source), await readEncoding(target)];
  if (encodingsAgree(here, there)) return;
  throw new IbexError(
    'unsupported',
    `text cannot be told from ${source.server}, encoding ${here}, to ${target.server}, encoding ${there}`,
    {
      hint: `In SQL_ASCII nobody knows what the bytes mean: use a target with encoding ${here === 'SQL_ASCII' ? 'UTF8' : here}.`,
    },
  );
}

async function readEncoding(session: Session): Promise<string> {
  const { encoding } = await session.row<{ encoding: string }>(
    `select current_setting('server_encoding') as encoding`,
  );
  return encoding;
}

/** Whether the schema is there or can be made, before the other side gets one. */
async function requireSchema(session: Session): Promise<void> {
  const { possible, role, database } = await session.row<{
    possible: boolean;
    role: string;
    database: string;
  }>(
    `select to_regnamespace('ibex') is not null or has_database_privilege(current_database(), 'create') as possible,
            current_user as role, current_database() as database`,
  );
  if (possible) return;
  throw new IbexError('privilege', `${session.server}: role ${role} may not create the schema ibex`, {
    hint: `As the owner of the database: grant create on database ${ident(database)} to ${ident(role)};`,
  });
}

/** Rows are staged in temporary tables of the target. */
async function requireTemporaryTables(target: Session): Promise<void> {
  const { possible, role, database } = await target.row<{
    possible: boolean;
    role: string;
    database: string;
  }>(
    `select has_database_privilege(current_database(), 'temporary') as possible,
            current_user as role, current_database() as database`,
  );
  if (possible) return;
  throw new IbexError('privilege', `${target.server}: role ${role} may not create temporary tables`, {
    hint: `As the owner of the database: grant temporary on database ${ident(database)} to ${ident(role)};`,
  });
}

/** The tables that the sync has, as the target knows them; none when it is not set up. */
export async function readKnown(target: Session, sync: string): Promise<SyncTable[]> {
  const { present } = await target.row<{ present: boolean }>(
    `select to_regclass('ibex.target_table') is not null as present`,
  );
  return present ? readSyncTables(target, sync) : [];
}

/**
 * Installs the schemas and registers the tables. Those with obstacles are registered with the reason, so that
 * `status` shows them, and looked at again at the next call. Resolves to all obstacles.
 */
export async function install(
  options: SetupOptions,
  { tables, obstacles }: SetupResult,
): Promise<Obstacle[]> {
  const { source, target, sync } = options;
  await migrate(source, 'source');
  await migrate(target, 'target');
  const identity = await readIdentity(source);
  await claimIdentity(source, identity);
  await registerSync(source, sync, (await readRecord(target, sync))?.witness ?? 0);
  await setBudget(source, sync, options.budget);
  const known = new Map((await readSyncTables(target, sync)).map((table) => [table.relid, table]));
  const former = await readDropped(source, [...known.values()]);
  // The sync with all its tables or not at all: half a list would look like a sync that has caught up.
  await target.transaction('', async () => {
    await registerOnTarget(target, sync, identity);
    for (const table of tables) {
      if (known.has(table.relid)) continue;
      const replaces = former.get(tableLabel(table));
      if (replaces !== undefined) await forgetTable(target, sync, replaces);
      await registerTableOnTarget(target, sync, table);
      if (replaces !== undefined) await emptyBeforeCopy(target, sync, table.relid);
    }
  });
  const captured = new Map((await readCaptured(source, sync)).map((table) => [table.relid, table]));
  const all = [...obstacles];
  for (const table of tables) {
    const record = known.get(table.relid);
    // It waits for somebody to ask for a new copy, whatever else there is to say.
    if (captured.get(table.relid)?.givenUp != null) continue;
    const seen = obstacles.find((obstacle) => obstacle.table === table);
    if (record?.reason === null && captured.has(table.relid) && seen === undefined) continue;
    // Its capture was taken off, by a teardown of the source alone: what changed since is in no delta.
    if (record !== undefined && !captured.has(table.relid) && record.state !== 'pending')
      await requestCopy(target, sync, table.relid, true, seen?.error.message ?? null);
    const obstacle = seen ?? (await capture(source, sync, table));
    if (obstacle !== undefined && seen === undefined) all.push(obstacle);
    // One that was carried before is judged by what its rows stand for, when a daemon fits the tables.
    const reason = obstacle === undefined ? null : reasonOf(obstacle.error);
    if (record === undefined || record.state === 'pending' || obstacle?.error.kind !== 'schema_mismatch') {
      if (record?.state !== 'held') await setReason(target, sync, table.relid, reason);
    }
  }
  const carried = tables.filter((table) => !all.some((obstacle) => obstacle.table === table));
  await parkTriggersAndRules(target, sync, carried, options.replica);
  return all;
}

/** The tables that the sync has and the source has no more, by name: another one may have taken it. */
async function readDropped(source: Session, known: readonly SyncTable[]): Promise<Map<string, number>> {
  const rows = await source.rows<{ relid: string }>(
    'select k::text as relid from unnest($1::int8[]) k where not exists (select from pg_class c where c.oid = k)',
    [known.map((table) => table.relid)],
  );
  const dropped = new Set(rows.map((row) => Number(row.relid)));
  return new Map(
    known.filter(({ relid }) => dropped.has(relid)).map((table) => [tableLabel(table), table.relid]),
  );
}

async function forgetTable(target: Session, sync: string, relid: number): Promise<void> {
  await target.run('delete from ibex.target_table where sync = $1 and relid = $2', [sync, relid]);
}

/** The rows that the former table left on the target are none of the new one's. */
async function emptyBeforeCopy(target: Session, sync: string, relid: number): Promise<void> {
  await target.run('update ibex.target_table set replace = true where sync = $1 and relid = $2', [
    sync,
    relid,
  ]);
}

async function capture(source: Session, sync: string, table: TableInfo): Promise<Obstacle | undefined> {
  const refusal = await prepareCapture(source, table.relid);
  if (refusal === null) {
    await registerTable(source, sync, table.relid);
    return undefined;
  }
  return { table, error: refusedTable(table, refusal) };
}

/** One pass over the tables that are not armed yet. Resolves to what is still waited for, by table. */
export async function armAll(
  source: Session,
  sync: string,
  relids: readonly number[],
  lockTimeoutMs: number,
): Promise<Map<number, Waiting[]>> {
  const waiting = new Map<number, Waiting[]>();
  for (const relid of relids) {
    const blocked = await rearm(source, sync, relid, lockTimeoutMs);
    if (blocked.length > 0) waiting.set(relid, blocked);
  }
  return waiting;
}
