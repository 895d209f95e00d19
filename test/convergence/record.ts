/** The record of conflicts and what is on its way, both read from the tables of the schema ibex themselves. */
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor } from '../support/servers.ts';
import type { Recorded } from './ledger.ts';
import type { Lane, World } from './world.ts';

const READ = `
  select at, sync, id, type, state, strategy, reason, table_name as table, array_to_string(key, ',') as key,
         local_row[array_position(columns, 'mark')] as local,
         incoming_row[array_position(columns, 'mark')] as incoming, winner
    from ibex.conflict order by at`;

/** What all nodes have recorded. */
export async function readRecord({ nodes }: World): Promise<Recorded[]> {
  const records = await Promise.all(nodes.map(({ client }) => client.query<Recorded>(READ)));
  return records.flatMap(({ rows }) => rows);
}

/** Between two looks, which all rounds at once take from the daemon's share of the machine. */
export const LOOK_MS = 250;

/** Waits until nothing is on its way any more. What needs a person is decided, one way or the other. */
export async function settle(world: World, random: () => number): Promise<void> {
  let before = '';
  let told = '';
  const probe = async () => {
    const { drained, now } = await lookAtAll(world);
    const waiting = await countWaiting(world);
    told = `${now}; waiting ${JSON.stringify(waiting)}`;
    if (waiting.aborted > 0 || (drained && waiting.held > 0)) {
      await decide(world, random() < 0.5 ? 'source' : 'target');
      return false;
    }
    const still = drained && now === before;
    before = now;
    if (!still) await sleep(LOOK_MS);
    return still;
  };
  await waitFor(probe, { timeout: 180_000, what: 'the queues to drain' }).catch((error: Error) => {
    error.message += `: ${told}${error.cause === undefined ? '' : `; ${error.cause}`}`;
    throw error;
  });
}

/** What every lane has taken in so far, up to the first that has something on its way. */
async function lookAtAll({ lanes }: World): Promise<{ drained: boolean; now: string }> {
  const captured: string[] = [];
  for (const lane of lanes) {
    const look = await lookAt(lane);
    captured.push(`${lane.name} ${look.captured}${look.unread === 0 ? '' : ` (unread ${look.unread})`}`);
    if (look.unread !== 0) return { drained: false, now: captured.join(', ') };
  }
  return { drained: true, now: captured.join(', ') };
}

/** Decides by the command all that waits for a person. */
async function decide(world: World, to: 'source' | 'target'): Promise<void> {
  const list = await world.command('conflicts', 'list', '--state', 'held,aborted', '--json');
  if (list.code !== 0) throw new Error(`ibex conflicts list: ${list.stderr}`);
  const { conflicts } = JSON.parse(list.stdout) as { conflicts: { id: string }[] };
  if (conflicts.length === 0) return;
  const ids = conflicts.map(({ id }) => id);
  const { code, stderr } = await world.command('conflicts', 'resolve', ...ids, '--to', to);
  if (code !== 0) throw new Error(`ibex conflicts resolve: ${stderr}`);
}

async function countWaiting({ nodes }: World): Promise<{ held: number; aborted: number }> {
  const counts = await Promise.all(
    nodes.map(({ client }) =>
      client.query<{ held: number; aborted: number }>(
        `select count(*) filter (where state = 'held')::int as held,
                count(*) filter (where state = 'aborted')::int as aborted from ibex.conflict`,
      ),
    ),
  );
  const all = counts.flatMap(({ rows }) => rows);
  const sum = (of: 'held' | 'aborted') => all.reduce((total, one) => total + one[of], 0);
  return { held: sum('held'), aborted: sum('aborted') };
}

interface Look {
  /** Deltas that the lane has taken in so far. */
  readonly captured: string;
  /** Those that are not in its checkpoint yet; -1 while a table is not in step. */
  readonly unread: number;
}

async function lookAt({ name, from, to }: Lane): Promise<Look> {
  const { rows } = await to.client.query<{ position: string | null; inStep: boolean; captured: string }>(
    `select c.position, bool_and(t.state = 'streaming') as "inStep", sum(t.captured) as captured
       from ibex.checkpoint c left join ibex.target_table t on t.sync = c.sync
      where c.sync = $1 group by c.sync`,
    [name],
  );
  const { position = null, inStep = false, captured = '0' } = rows[0] ?? {};
  if (position === null || !inStep) return { captured, unread: -1 };
  const { rows: tables } = await from.client.query<{ name: string }>(
    `select format('ibex.delta_%s_%s', g.relid, g.n) as name from ibex.generation g
      where g.relid in (select relid from ibex.source_table where sync = $1)`,
    [name],
  );
  const unread = tables.map(
    (table) =>
      `select from ${table.name} where not txid_visible_in_snapshot(xid, $1) and origin is distinct from $2`,
  );
  const { rowCount } = await from.client.query(unread.join(' union all '), [position, to.name]);
  return { captured, unread: rowCount ?? 0 };
}
