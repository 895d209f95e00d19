/**
 * Removes everything of a sync from one side, and the schema `ibex` with the last one. Each side by itself, so
 * that it works when the other is gone; idempotent, also over what a broken setup left.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { followRenames, type ParkedObject, readParked } from '../apply/parking.ts';
import { lackingFor, restoreParked } from '../apply/restoring.ts';
import { disarmFree, pauseBeforeTry, tryDisarm, type Waiting } from '../capture/trigger/arming.ts';
import { tryPullFence } from '../capture/trigger/fence.ts';
import { isGuarded } from '../conflict/guarded.ts';
import { guardName } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { hasLedger, isForeign, migrate, restoreFunctions } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';

/** Run on either side after a teardown of the last sync it gives 0: no object of ours is left. */
export const PROOF = `select (select count(*) from pg_catalog.pg_namespace where nspname = 'ibex')
     + (select count(*) from pg_catalog.pg_trigger where tgname ~ '^~?ibex_[a-z]+_[0-9]+$')
     + (select count(*) from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where n.nspname = 'ibex') as objects_left`;

export interface TeardownOptions {
  readonly sync: string;
  /** The tables to take out of the sync; all of them end the sync. */
  readonly filter: (table: TableName) => boolean;
  readonly lockTimeoutMs: number;
  /** How long to keep trying to lock tables that others use. */
  readonly patienceMs: number;
  readonly signal: AbortSignal;
}

export interface TeardownResult {
  /** Relations that are still armed, and who has them locked. */
  readonly waiting: readonly Waiting[];
  /** Objects of ours that are left, by `PROOF`. */
  readonly left: number;
  /** Constraints that could not be put back, with the reason. */
  readonly notRestored: readonly string[];
}

/**
 * Removes a sync from one side, both its lanes: the one that the side is the source of, with its fence, and the one that it
 * is the target of, whichever of them ever ran; of a target also its guard.
 */
export async function teardownSide(
  session: Session,
  side: 'source' | 'target',
  options: TeardownOptions,
): Promise<TeardownResult> {
  const [out, back] = [options.sync, `${options.sync}.back`];
  const [from, into] = side === 'source' ? [out, back] : [back, out];
  const { known } = await session.row<{ known: boolean }>(
    `select to_regclass('ibex.source_sync') is not null as known`,
  );
  const first =
    known || side === 'source' ? await teardownSource(session, { ...options, sync: from }) : NOTHING_WAITS;
  const guard = side === 'target' ? await teardownGuard(session, options) : NOTHING_WAITS;
  const last = await teardownTarget(session, { ...options, sync: into });
  return { ...last, waiting: [...first.waiting, ...guard.waiting] };
}

/** Takes the guard of a sync off its target, as far as there is one. */
export async function teardownGuard(
  target: Session,
  options: TeardownOptions,
): Promise<Pick<TeardownResult, 'waiting'>> {
  if (!(await isGuarded(target, options.sync))) return NOTHING_WAITS;
  return teardownSource(target, { ...options, sync: guardName(options.sync) });
}

const NOTHING_WAITS = { waiting: [] };

/** Takes the fence off the relations that are no part of the sync any more; resolves to those that could not be locked. */
async function pullFence(source: Session, options: TeardownOptions): Promise<Waiting[]> {
  const deadline = Date.now() + options.patienceMs;
  for (let attempt = 1; ; attempt++) {
    const waiting = await tryPullFence(source, options.sync, options.lockTimeoutMs);
    if (waiting.length === 0 || Date.now() > deadline || options.signal.aborted) return waiting;
    await sleep(pauseBeforeTry(attempt), undefined, { signal: options.signal }).catch(() => undefined);
  }
}

export async function teardownSource(source: Session, options: TeardownOptions): Promise<TeardownResult> {
  if (!(await hasLedger(source))) return dropRemains(source);
  // The functions that disarm are those of this version, whatever version installed the rest.
  await migrate(source, 'source');
  await restoreFunctions(source, 'source');
  const tables = await source.rows<TableName & { relid: string; others: boolean }>(
    `select c.relid::text, c.schema_name as schema, c.table_name as name,
            exists (select from ibex.source_table o where o.relid = c.relid and o.sync <> $1) as others
       from ibex.captured c
      where exists (select from ibex.source_table t where t.relid = c.relid and t.sync = $1)
         or not exists (select from ibex.source_table t where t.relid = c.relid)`,
    [options.sync],
  );
  const chosen = tables.filter(options.filter);
  const waiting = await disarmAll(
    source,
    chosen.filter((table) => !table.others),
    options,
  );
  if (waiting.length > 0) return { waiting, left: await countLeft(source), notRestored: [] };
  await source.run('delete from ibex.source_table where sync = $1 and relid = any ($2::oid[])', [
    options.sync,
    chosen.map((table) => table.relid),
  ]);
  const fenced = await pullFence(source, options);
  if (fenced.length > 0) return { waiting: fenced, left: await countLeft(source), notRestored: [] };
  await source.run(
    'delete from ibex.source_sync s where s.name = $1 and not exists (select from ibex.source_table t where t.sync = s.name)',
    [options.sync],
  );
  const { last } = await source.row<{ last: boolean }>(
    'select not exists (select from ibex.source_sync) as last',
  );
  return last ? dropRemains(source) : { waiting: [], left: await countLeft(source), notRestored: [] };
}

async function disarmAll(
  source: Session,
  tables: readonly { readonly relid: string }[],
  options: TeardownOptions,
): Promise<Waiting[]> {
  const deadline = Date.now() + options.patienceMs;
  await disarmFree(
    source,
    tables.map((table) => Number(table.relid)),
  );
  let left = await stillCaptured(source, tables);
  for (let attempt = 1; ; attempt++) {
    const waiting: Waiting[] = [];
    const still: number[] = [];
    for (const relid of left) {
      const blocked = await tryDisarm(source, relid, options.lockTimeoutMs);
      if (blocked.length > 0) still.push(relid);
      waiting.push(...blocked);
    }
    if (still.length === 0 || Date.now() > deadline || options.signal.aborted) return waiting;
    left = still;
    await sleep(pauseBeforeTry(attempt), undefined, { signal: options.signal }).catch(() => undefined);
  }
}

/** Those of the tables that are captured yet. */
async function stillCaptured(
  source: Session,
  tables: readonly { readonly relid: string }[],
): Promise<number[]> {
  const rows = await source.rows<{ relid: string }>(
    'select c.relid::text from ibex.captured c where c.relid = any ($1::oid[])',
    [tables.map(({ relid }) => relid)],
  );
  return rows.map(({ relid }) => Number(relid));
}

export async function teardownTarget(target: Session, options: TeardownOptions): Promise<TeardownResult> {
  const { known } = await target.row<{ known: boolean }>(
    `select to_regclass('ibex.parked') is not null as known`,
  );
  if (!known || !(await hasLedger(target))) return dropRemains(target);
  // What was set aside is put back by this version, whatever version did it.
  await migrate(target, 'target');
  const notRestored: string[] = [];
  await followRenames(target, options.sync);
  const left: ParkedObject[] = [];
  for (const object of (await readParked(target, options.sync)).filter(({ root }) => options.filter(root))) {
    const what = `${object.kind.replace('_', ' ')} ${object.object} of ${tableLabel(object)}`;
    const lacking = lackingFor(object, left);
    try {
      if (lacking === undefined) await restoreParked(target, options.sync, object);
      else notRestored.push(`${what} needs the index ${lacking.object}`);
    } catch (error) {
      const { message } = error as Error;
      notRestored.push(message.includes(what) ? message : `${what}: ${message}`);
      left.push(object);
    }
  }
  const tables = await target.rows<TableName & { relid: string }>(
    'select relid::text, schema_name as schema, table_name as name from ibex.target_table where sync = $1',
    [options.sync],
  );
  const chosen = tables.filter(options.filter).map((table) => table.relid);
  // In the order in which everybody locks them.
  await target.run(
    `delete from ibex.target_table t
      using (select relid from ibex.target_table where sync = $1 and relid = any ($2::int8[])
              order by relid for update) l where t.sync = $1 and t.relid = l.relid`,
    [options.sync, chosen],
  );
  if (notRestored.length > 0) return { waiting: [], left: await countLeft(target), notRestored };
  if (chosen.length === tables.length) {
    await target.run('delete from ibex.checkpoint where sync = $1', [options.sync]);
    for (const record of ['live', 'cutover', 'verified'])
      await target.run(`delete from ibex.${record} where sync = $1`, [options.sync]);
  }
  const { last } = await target.row<{ last: boolean }>(
    'select not exists (select from ibex.checkpoint) and not exists (select from ibex.parked) as last',
  );
  return last ? dropRemains(target) : { waiting: [], left: await countLeft(target), notRestored };
}

/**
 * Drops the schema, unless this side still serves a sync in its other role: the target of one may be the source
 * of the next.
 */
async function dropRemains(session: Session): Promise<TeardownResult> {
  const inUse = await session.row<{ capturing: boolean; applying: boolean }>(
    `select to_regclass('ibex.source_sync') is not null as capturing, to_regclass('ibex.checkpoint') is not null as applying`,
  );
  const serves = async (table: string, present: boolean) =>
    present && (await session.rows(`select from ibex.${table} limit 1`)).length > 0;
  const needed =
    (await serves('source_sync', inUse.capturing)) || (await serves('checkpoint', inUse.applying));
  if (needed && !(await hasLedger(session))) throw lacksLedger(session);
  if (!needed && !(await isForeign(session))) await session.run('drop schema if exists ibex cascade');
  return { waiting: [], left: await countLeft(session), notRestored: [] };
}

/** What was made, and what it means, is known from the ledger only. */
function lacksLedger({ server }: Session): IbexError {
  return new IbexError('unsupported', `${server}: the schema ibex lacks its ledger, ibex.migration`, {
    hint: 'Put it back; or end all syncs here, and forget what was set aside of the tables: drop schema ibex cascade;',
  });
}

async function countLeft(session: Session): Promise<number> {
  const { objects_left } = await session.row<{ objects_left: string }>(PROOF);
  return Number(objects_left);
}
