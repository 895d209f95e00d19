/**
 * The guard of a sync that goes one way: has the target note what others than the lane write into its tables, by the
 * triggers that capture tables of a source, for a reader of its own.
 */
import { briefly, prepareCaptures } from '../capture/trigger/arming.ts';
import { type DeltaBudget, setBudget } from '../capture/trigger/budget.ts';
import {
  acceptSignature,
  claimIdentity,
  type Drift,
  readDrift,
  registerSync,
  setEcho,
} from '../capture/trigger/registry.ts';
import { isGuarded, letGo } from '../conflict/guarded.ts';
import { guardName } from '../core/conflict.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { readIdentity } from '../postgres/catalog.ts';
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import { refusedTable } from './refusal.ts';
import { armAll } from './setup.ts';
import { type TeardownOptions, type TeardownResult, teardownGuard } from './teardown.ts';

export interface GuardOptions {
  readonly sync: string;
  /** The node that the lane comes from: what it brings is not noted. */
  readonly source: string;
  /** What the notes may take of the target's disk. They may get as old as they like: they wait for the source. */
  readonly bytes: DeltaBudget['bytes'];
}

/** Prepares the target. Safe to repeat. */
export async function installGuard(target: Session, { sync, source, bytes }: GuardOptions): Promise<void> {
  await migrate(target, 'source');
  await claimIdentity(target, await readIdentity(target));
  const name = guardName(sync);
  await registerSync(target, name, 0);
  await setEcho(target, name, source);
  await setBudget(target, name, { bytes, ageMs: null });
}

interface Standing extends TableName {
  /** Its oid on the target. */
  readonly relid: number;
  readonly registered: boolean;
  readonly armed: boolean;
  readonly givenUp: boolean;
}

const READ_STANDING = `
  select w.schema, w.name, r.relid::int8::float8 as relid, t.relid is not null as registered,
         c.armed_at is not null as armed, t.given_up_at is not null as "givenUp"
    from json_to_recordset($2) w(schema text, name text)
    cross join lateral (select to_regclass(format('%I.%I', w.schema, w.name))::oid as relid) r
    left join ibex.source_table t on t.sync = $1 and t.relid = r.relid
    left join ibex.captured c on c.relid = t.relid
   where r.relid is not null`;

export interface GuardLook {
  /** By table: why it is not guarded as yet. */
  readonly missing: ReadonlyMap<string, string>;
  /** Tables where the guard was off for a while, and why: what was written there meanwhile nobody has noted. */
  readonly gaps: ReadonlyMap<string, string>;
}

/** One pass: guards what is in the sync and is not guarded, and no more what is not in it. */
export async function tendGuard(
  target: Session,
  sync: string,
  tables: readonly TableName[],
  lockTimeoutMs: number,
): Promise<GuardLook> {
  const name = guardName(sync);
  const gaps = new Map<string, string>();
  for (const drift of await readDrift(target, name)) {
    const why = drift.dropped ? null : await answer(target, drift, lockTimeoutMs);
    if (why !== null) gaps.set(tableLabel(drift), why);
  }
  const missing = new Map<string, string>();
  const names = JSON.stringify(tables.map((table) => ({ schema: table.schema, name: table.name })));
  const standing = await target.rows<Standing>(READ_STANDING, [name, names]);
  const fresh = standing.filter(({ registered }) => !registered);
  const refused = await prepareCaptures(
    target,
    name,
    fresh.map(({ relid }) => relid),
  );
  const unarmed = standing.filter(({ relid, armed, givenUp }) => !armed && !givenUp && !refused.has(relid));
  const waiting = await armAll(
    target,
    name,
    unarmed.map(({ relid }) => relid),
    lockTimeoutMs,
  );
  for (const table of standing) {
    const [refusal, locked] = [refused.get(table.relid), waiting.get(table.relid)];
    if (refusal !== undefined) missing.set(tableLabel(table), refusedTable(table, refusal).message);
    const blockers = locked?.flatMap((one) => one.blockers) ?? [];
    if (locked !== undefined) missing.set(tableLabel(table), `locked by ${blockers.join(', ') || 'others'}`);
  }
  await leaveOthers(target, sync, standing, lockTimeoutMs);
  return { missing, gaps };
}

/** What the catalogs say is other than when the table was armed. Resolves to why its guard has to be put up anew. */
async function answer(target: Session, drift: Drift, lockTimeoutMs: number): Promise<string | null> {
  const { relid, armour, partitions, shape, seen } = drift;
  const why = armour ? 'its triggers were changed' : partitions ? 'its partitions changed' : null;
  const { same } = await target.row<{ same: boolean }>('select ibex.follow_shape($1) as same', [relid]);
  if (why === null && (!shape || same)) {
    await briefly(target, relid, lockTimeoutMs, 'access share', () => acceptSignature(target, relid, seen));
    return null;
  }
  await target.run('update ibex.captured set armed_at = null where relid = $1', [relid]);
  return why ?? 'its key is another one';
}

/** Tables that were taken out of the sync, or dropped. */
async function leaveOthers(
  target: Session,
  sync: string,
  standing: readonly Standing[],
  lockTimeoutMs: number,
): Promise<void> {
  const others = await target.rows<TableName>(
    `select c.schema_name as schema, c.table_name as name
       from ibex.source_table t join ibex.captured c on c.relid = t.relid where t.sync = $1 and t.relid <> all ($2::oid[])`,
    [guardName(sync), standing.map(({ relid }) => relid)],
  );
  if (others.length === 0) return;
  const labels = new Set(others.map(tableLabel));
  await teardownGuard(target, {
    ...once(sync, lockTimeoutMs),
    filter: (table) => labels.has(tableLabel(table)),
  });
}

/** Takes the guard away that the sync has no more, if there is one; whatever waits for a person does so no longer. */
export async function removeGuard(
  target: Session,
  sync: string,
  lockTimeoutMs: number,
): Promise<TeardownResult['waiting']> {
  if (!(await isGuarded(target, sync))) return [];
  await letGo(target, sync, null, 'the guard was taken away');
  return (await teardownGuard(target, once(sync, lockTimeoutMs))).waiting;
}

/** What is locked is left for the next time. */
function once(sync: string, lockTimeoutMs: number): TeardownOptions {
  return { sync, filter: () => true, lockTimeoutMs, patienceMs: 0, signal: new AbortController().signal };
}
