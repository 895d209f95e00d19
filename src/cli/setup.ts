/** `ibex setup`: arms capture and creates the schemas `ibex`; safe to repeat. */
import { setTimeout as sleep } from 'node:timers/promises';
import { becomeReplica } from '../apply/parking.ts';
import { pauseBeforeTry, type Waiting } from '../capture/trigger/arming.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { readRoster } from '../engine/roster.ts';
import type { Session } from '../postgres/session.ts';
import { installGuard, removeGuard, tendGuard } from '../setup/guarding.ts';
import { collisionText, INTERLEAVE, readShared } from '../setup/interleaving.ts';
import { readLeftBehind } from '../setup/left-behind.ts';
import { armAll, inspect, install } from '../setup/setup.ts';
import { type CommandSpec, type Context, onlySync, print, withBothSides, writeError } from './command.ts';

export const setup: CommandSpec = {
  name: 'setup',
  summary: 'arm capture and create the ibex schemas; safe to repeat',
  description:
    'Looks at both sides first and changes nothing when something stands in the way. Then creates the schema ibex on both sides and puts capture triggers on the tables of the source, one short lock at a time; on those of the target too where the sync has a guard. Exit 1 when a table is still locked by others after --arm-timeout; run it again, or let `ibex run` go on with it.',
  options: [
    'tables',
    'exclude',
    'keyless',
    'max_delta_bytes',
    'max_delta_age',
    'lock_timeout_ms',
    'arm_timeout',
    'json',
  ],
  run: (context) => {
    return withBothSides(onlySync(context.config), 'setup', (source, target, lane) =>
      setUp(context, lane, source, target),
    );
  },
};

async function setUp({ config, signal }: Context, sync: SyncConfig, source: Session, target: Session) {
  const replica = await becomeReplica(target);
  const options = {
    sync: sync.name,
    source,
    target,
    replica,
    adopt: sync.name === onlySync(config).name,
    tables: sync.tables,
    exclude: sync.exclude,
    carry: sync.carry,
    asked: sync.asked,
    budget: sync.budget,
    rivalry: sync.rivalry,
    targetNode: sync.target.name,
  };
  const inspection = await inspect(options);
  const [obstacle, ...more] = inspection.obstacles;
  if (obstacle !== undefined) {
    for (const { error } of more) writeError(error);
    throw obstacle.error;
  }
  const refused = await install(options, inspection);
  for (const { error } of refused) writeError(error);
  const waiting = await armPatiently(source, target, sync, config.lockTimeoutMs, config.armTimeoutMs, signal);
  const roster = await readRoster(source, target, sync);
  const unguarded = await guardPatiently(target, sync, roster, config, signal);
  const tables = roster.map((table) => ({
    table: tableLabel(table),
    armed: table.armed,
    noted:
      table.plan === null
        ? null
        : table.plan.mode === 'key'
          ? keyOf(table.plan.columns, table.plan.keyLength)
          : 'whole rows (no key)',
    waitingFor: waiting.get(table.relid)?.flatMap((one) => one.blockers) ?? [],
    refused: table.givenUp ?? (table.plan === null ? (table.obstacle?.message ?? null) : null),
  }));
  const lines = tables.map(
    (table) =>
      `${table.table}: ${table.refused ?? (table.armed ? `armed, notes ${table.noted}` : `waits for a lock: ${table.waitingFor.join(', ') || 'held by others'}`)}`,
  );
  const armed = tables.filter((table) => table.armed).length;
  const leftBehind = await readLeftBehind(source);
  const remarks = await remarkOnSequences(sync, source, target, roster);
  print(
    config.json,
    { sync: sync.name, tables, unguarded, leftBehind, remarks },
    [
      ...lines,
      ...unguarded.map(({ table, why }) => `${table}: not guarded on the target: ${why}`),
      ...leftBehind,
      ...remarks,
      `${armed} of ${tables.length} tables are armed`,
    ].join('\n'),
  );
  return armed === tables.length && unguarded.length === 0 ? 0 : 1;
}

/** Where both sides are written. */
async function remarkOnSequences(
  { rivalry, source: { name: here }, target: { name: there } }: SyncConfig,
  source: Session,
  target: Session,
  tables: readonly TableName[],
): Promise<string[]> {
  if (rivalry === null) return [];
  const nodes = [
    { name: here, session: source },
    { name: there, session: target },
  ];
  const what = collisionText((await readShared(nodes, tables)).shared);
  return what === null ? [] : [`${what}. ${INTERLEAVE}`];
}

function keyOf(columns: readonly { readonly name: string }[], length: number): string {
  const names = columns.slice(0, length).map((column) => column.name);
  return `key (${names.join(', ')})`;
}

async function armPatiently(
  source: Session,
  target: Session,
  sync: SyncConfig,
  lockTimeoutMs: number,
  patienceMs: number,
  signal: AbortSignal,
): Promise<Map<number, Waiting[]>> {
  const deadline = Date.now() + patienceMs;
  for (let attempt = 1; ; attempt++) {
    const roster = await readRoster(source, target, sync);
    const unarmed = roster
      .filter(({ plan, armed, givenUp }) => plan !== null && !armed && givenUp === null)
      .map(({ relid }) => relid);
    const waiting = await armAll(source, sync.name, unarmed, lockTimeoutMs);
    if (waiting.size === 0 || Date.now() > deadline || signal.aborted) return waiting;
    await sleep(pauseBeforeTry(attempt), undefined, { signal }).catch(() => undefined);
  }
}

/** Puts up the guard of the target's tables, or takes away one that the sync has no more. Resolves to what is left to do. */
async function guardPatiently(
  target: Session,
  sync: SyncConfig,
  tables: readonly TableName[],
  { lockTimeoutMs, armTimeoutMs }: Pick<Context['config'], 'lockTimeoutMs' | 'armTimeoutMs'>,
  signal: AbortSignal,
): Promise<{ table: string; why: string }[]> {
  const { name, guard, source, budget } = sync;
  const look = async () => {
    if (guard !== null) return [...(await tendGuard(target, name, tables, lockTimeoutMs)).missing];
    const waiting = await removeGuard(target, name, lockTimeoutMs);
    return waiting.map(({ relation }) => [relation, 'its guard is to go, and it is locked'] as const);
  };
  if (guard !== null) await installGuard(target, { sync: name, source: source.name, bytes: budget.bytes });
  const deadline = Date.now() + armTimeoutMs;
  for (let attempt = 1; ; attempt++) {
    const left = await look();
    if (left.length === 0 || Date.now() > deadline || signal.aborted)
      return left.map(([table, why]) => ({ table, why }));
    await sleep(pauseBeforeTry(attempt), undefined, { signal }).catch(() => undefined);
  }
}
