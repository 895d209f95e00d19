/** What has to hold before a move changes anything. All that speaks against it is said at once. */
import { becomeReplica, readParked } from '../../apply/parking.ts';
import { readSyncTables } from '../../apply/state.ts';
import { readSubscribed } from '../../capture/trigger/beginning.ts';
import { isGuarded } from '../../conflict/guarded.ts';
import { tableLabel } from '../../core/plan.ts';
import { faultText, judgeSequences } from '../../engine/sequences.ts';
import { readStatus } from '../../observe/status.ts';
import { readTables } from '../../postgres/catalog.ts';
import type { Session } from '../../postgres/session.ts';
import { areSame } from '../../setup/setup.ts';
import { findObstacles } from '../../setup/tables.ts';
import type { Move } from './move.ts';

/** A move does not begin further behind than this. */
const LAG_SECONDS = 5;

/** Why the move cannot be made as things are; empty when it can. */
export async function findReasons(
  move: Pick<Move, 'sync' | 'lane' | 'next' | 'old' | 'fresh'>,
): Promise<string[]> {
  const { sync, lane, old, fresh } = move;
  if (sync.carry.length > 0) {
    const names = sync.carry.map(tableLabel).join(', ');
    return [`only a choice of rows or columns is carried of ${names}: there is no way back from that`];
  }
  if (sync.rivalry !== null) return ['it is carried both ways: both sides are live already'];
  if (sync.guard !== null || (await isGuarded(fresh, lane.name)))
    return ['its target is guarded: take `guard: true` out of ibex.yaml, and start the daemon anew'];
  if (await areSame(old, fresh)) return ['both sides are one database'];
  const { why, lag } = await readStatus(old, fresh, lane.name, () => true);
  const behind = lag.seconds > LAG_SECONDS ? [`the target is ${lag.seconds.toFixed(0)} s behind`] : [];
  return [
    ...why,
    ...(why.length === 0 ? behind : []),
    ...(await parkedIndexes(fresh, lane.name)),
    ...(await foreignWriters(move)),
    ...(await wayBack(move)),
    ...(await sequenceFaults(move)),
  ];
}

/** Not yet built: the application would be slow without them, or the rows would not be checked. */
async function parkedIndexes(fresh: Session, lane: string): Promise<string[]> {
  const parked = (await readParked(fresh, lane)).filter(({ kind }) => kind === 'index');
  return parked.map((one) => `index ${one.object} of ${tableLabel(one)} is not built yet`);
}

/** Who else writes these tables, past any fence or against it. */
async function foreignWriters({ lane, next, old, fresh }: Pick<Move, 'lane' | 'next' | 'old' | 'fresh'>) {
  const subscribed = await readSubscribed(old, lane.name);
  const others = await fresh.rows<{ sync: string; name: string }>(
    `select o.sync, min(format('%I.%I', o.schema_name, o.table_name)) as name
       from ibex.target_table o join ibex.target_table t
         on (t.schema_name, t.table_name) = (o.schema_name, o.table_name)
      where t.sync = $1 and o.sync not in ($1, $2) and o.state <> 'dropped' group by o.sync`,
    [lane.name, next.name],
  );
  return [
    ...subscribed.map((name) => `${name} is fed by a subscription of the source, which no fence stops`),
    ...others.map(({ sync, name }) => `sync ${sync} writes ${name} of the target too`),
  ];
}

/** What the lane of the other direction would stumble over. Nothing is changed by looking. */
async function wayBack({ lane, old, fresh }: Pick<Move, 'lane' | 'old' | 'fresh'>): Promise<string[]> {
  const names = (await readSyncTables(fresh, lane.name)).filter(({ state }) => state !== 'dropped');
  const tables = await readTables(fresh, names);
  const replica = await old.rehearse(() => becomeReplica(old));
  const obstacles = await findObstacles({ source: fresh, target: old, replica, carry: [] }, tables);
  return obstacles.map(({ error }) => `the way back: ${error.message}`);
}

async function sequenceFaults({ lane, old, fresh }: Pick<Move, 'lane' | 'old' | 'fresh'>): Promise<string[]> {
  const tables = (await readSyncTables(fresh, lane.name)).filter(({ state }) => state !== 'dropped');
  const pairs = tables.map((table) => ({ source: table, target: table }));
  return (await judgeSequences(old, fresh, pairs)).faults.map(faultText);
}
