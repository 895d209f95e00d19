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
  registerTables,
  requestCopy,
  type SyncTable,
  setReasons,
} from '../apply/state.ts';
import { armFree, type Waiting } from '../capture/trigger/arming.ts';
import { type DeltaBudget, setBudget } from '../capture/trigger/budget.ts';
import { claimIdentity, expectRival, readCaptured, registerSync } from '../capture/trigger/registry.ts';
import type { Rivalry } from '../core/conflict.ts';
import { encodingsAgree } from '../core/conversion.ts';
import { IbexError } from '../core/errors.ts';
import { type CarryRule, tableLabel } from '../core/plan.ts';
import { identityDifference } from '../core/position.ts';
import type { TableInfo } from '../core/table.ts';
import { checkServer, readIdentity, readTables } from '../postgres/catalog.ts';
import { migrate } from '../postgres/migrate.ts';
import { ident } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { captureAll } from './capturing.ts';
import { requireHistory } from './history.ts';
import { readLeftOut } from './membership.ts';
import { rearm } from './rearm.ts';
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
  /** Both sides are written; null: only the source is. */
  readonly rivalry: Rivalry | null;
  /** The node to which the sync carries. */
  readonly targetNode: string;
}

export interface SetupResult {
  /** Tables that are part of the sync, armed or not. */
  readonly tables: readonly TableInfo[];
  /** Tables that cannot be carried as things are; `run` holds them, `setup` refuses to go on without them. */
  readonly obstacles: readonly Obstacle[];
}

/** What has to hold of a side, or of both together, before anything is installed. */
export interface Requirement {
  readonly side: 'source' | 'target' | 'both';
  /** Rejects with why setup refuses, if it does. Changes nothing. */
  require(): Promise<void>;
}

/** What setup looks at before it looks at single tables, in this order. */
export function requirements({
  source,
  target,
  sync,
}: Pick<SetupOptions, 'source' | 'target' | 'sync'>): readonly Requirement[] {
  return [
    { side: 'source', require: () => checkServer(source) },
    { side: 'target', require: () => checkServer(target) },
    { side: 'both', require: () => requireDifferent(source, target) },
    { side: 'both', require: () => requireHistory(source, target, sync) },
    { side: 'both', require: () => requireEncodings(source, target) },
    { side: 'source', require: () => requireSchema(source) },
    { side: 'target', require: () => requireSchema(target) },
    { side: 'target', require: () => requireTemporaryTables(target) },
  ];
}

/** Looks at everything first, without changing anything. Errors end it; what concerns single tables is in `obstacles`. */
export async function inspect(options: SetupOptions): Promise<SetupResult> {
  for (const { require } of requirements(options)) await require();
  const tables = await tablesOf(options);
  return { tables, obstacles: await findObstacles(options, tables) };
}

async function requireDifferent(source: Session, target: Session): Promise<void> {
  if (!(await areSame(source, target))) return;
  throw new IbexError(
    'config',
    `source and target are the same database (${source.server}, ${target.server})`,
    {
      hint: 'Give two different URLs.',
    },
  );
}

type Choosing = Pick<SetupOptions, 'source' | 'target' | 'sync' | 'adopt' | 'carry' | 'asked'> & TableChoice;

/**
 * The tables that the sync has by now, with those created anew under the name of one that was dropped, and those that its
 * patterns take in unless they were taken out by name.
 * Errors: `unknown_table` for a pattern, `config` for a rule of ibex.yaml, that names no table of the sync.
 */
export async function tablesOf(options: Choosing): Promise<TableInfo[]> {
  const tables = await gather(options);
  requireRuled(options, [...tables, ...(await readKnown(options.target, options.sync))]);
  return tables;
}

async function gather(options: Choosing): Promise<TableInfo[]> {
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

/** Whether both lead to one database. */
export async function areSame(source: Session, target: Session): Promise<boolean> {
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
  if (options.rivalry !== null) await expectRival(source, sync, options.targetNode);
  const known = new Map((await readSyncTables(target, sync)).map((table) => [table.relid, table]));
  const former = await readDropped(source, [...known.values()]);
  // The sync with all its tables or not at all: half a list would look like a sync that has caught up.
  await target.transaction('', async () => {
    await registerOnTarget(target, sync, identity);
    const fresh = tables.filter(({ relid }) => !known.has(relid));
    const replacing = fresh.filter((table) => former.has(tableLabel(table)));
    for (const table of replacing) await forgetTable(target, sync, former.get(tableLabel(table)) as number);
    await registerTables(target, sync, fresh);
    for (const { relid } of replacing) await emptyBeforeCopy(target, sync, relid);
  });
  const all = await captureTables(options, { tables, obstacles }, known);
  const hindered = new Set(all.map(({ table }) => table));
  const carried = tables.filter((table) => !hindered.has(table));
  // Where the target is written too they are to fire for those who write there.
  if (options.rivalry === null) await parkTriggersAndRules(target, sync, carried, options.replica);
  return all;
}

/** Captures what is not captured, and notes what stands against the others. Resolves to all obstacles. */
async function captureTables(
  { source, target, sync }: SetupOptions,
  { tables, obstacles }: SetupResult,
  known: ReadonlyMap<number, SyncTable>,
): Promise<Obstacle[]> {
  const captured = new Map((await readCaptured(source, sync)).map((table) => [table.relid, table]));
  const seen = new Map(obstacles.map(({ table, error }) => [table.relid, error]));
  const due = tables.filter(
    ({ relid }) =>
      // One that was given up waits for somebody to ask for a new copy, whatever else there is to say.
      captured.get(relid)?.givenUp == null &&
      (known.get(relid)?.reason !== null || !captured.has(relid) || seen.has(relid)),
  );
  for (const { relid } of due) {
    // Its capture was taken off, by a teardown of the source alone: what changed since is in no delta.
    if (!captured.has(relid) && (known.get(relid)?.state ?? 'pending') !== 'pending')
      await requestCopy(target, sync, relid, true, seen.get(relid)?.message ?? null);
  }
  const unhindered = due.filter(({ relid }) => !seen.has(relid));
  const refused = await captureAll(source, sync, unhindered);
  for (const { table, error } of refused) seen.set(table.relid, error);
  await setReasons(target, sync, reasonsFor(due, known, seen));
  return [...obstacles, ...refused];
}

/** What is to be noted of these tables. */
function reasonsFor(
  tables: readonly TableInfo[],
  known: ReadonlyMap<number, SyncTable>,
  errors: ReadonlyMap<number, IbexError>,
): Map<number, string | null> {
  const reasons = new Map<number, string | null>();
  for (const { relid } of tables) {
    const [state, error] = [known.get(relid)?.state ?? 'pending', errors.get(relid)];
    // One that was carried before is judged by what its rows stand for, when a daemon fits the tables.
    if (state === 'held' || (state !== 'pending' && error?.kind === 'schema_mismatch')) continue;
    reasons.set(relid, error === undefined ? null : reasonOf(error));
  }
  return reasons;
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

/**
 * One pass over the tables that are not armed yet: most at once, and by itself each of which somebody has in hand. Resolves
 * to what is still waited for, by table.
 */
export async function armAll(
  source: Session,
  sync: string,
  relids: readonly number[],
  lockTimeoutMs: number,
): Promise<Map<number, Waiting[]>> {
  const waiting = new Map<number, Waiting[]>();
  const armed = await armFree(source, relids);
  for (const relid of relids.filter((one) => !armed.has(one))) {
    const blocked = await rearm(source, sync, relid, lockTimeoutMs);
    if (blocked.length > 0) waiting.set(relid, blocked);
  }
  return waiting;
}
