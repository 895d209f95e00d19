/** One round: nodes that are written at once while their daemon has a hard time, and what is equal at its end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { randomFrom } from '../support/random.ts';
import { compareTables, type Servers, waitFor } from '../support/servers.ts';
import { Ledger, placeOf } from './ledger.ts';
import type { Act, Blow, Plan } from './plan.ts';
import { readRecord, settle } from './record.ts';
import { keyOf, TABLES } from './tables.ts';
import { connect, type Lane, type Node, World } from './world.ts';
import { Writer } from './writer.ts';

export interface RoundResult {
  /** What is not as it must be, in words; empty when all is well. */
  readonly wrong: readonly string[];
  readonly writes: number;
  readonly conflicts: number;
}

const WRITERS = 2;

export async function playRound(servers: Servers, plan: Plan): Promise<RoundResult> {
  const world = await World.make(servers, plan);
  const ledger = new Ledger();
  const writers: Writer[] = [];
  const clients: Awaited<ReturnType<typeof connect>>[] = [];
  try {
    await fill(world, plan);
    for (const node of world.nodes) {
      for (let n = 0; n < WRITERS; n++) {
        const client = await connect(node.url);
        clients.push(client);
        const random = randomFrom(Math.floor(plan.random() * 2 ** 32));
        const name = `${node.name}${n}`;
        writers.push(new Writer({ client, node: node.name, name, keys: plan.keys, random, ledger }));
      }
    }
    world.run();
    await untilStreaming(world);
    const wrong: string[] = [];
    for (const [index, act] of plan.acts.entries()) {
      await play(world, act, writers, plan.random);
      if (!act.drained && index < plan.acts.length - 1) continue;
      await settle(world, plan.random);
      wrong.push(...(await judge(world, ledger)).map((what) => `act ${index + 1}: ${what}`));
      if (wrong.length > 0) break;
    }
    const conflicts = (await readRecord(world)).length;
    return { wrong: [...world.wrong, ...wrong], writes: ledger.size, conflicts };
  } catch (error) {
    (error as Error).message += `\n${world.lastWords}`;
    throw error;
  } finally {
    await Promise.all(clients.map((client) => client.end()));
    await world.end();
  }
}

/** Some rows before anything begins: the same on all nodes, or on the first alone. */
async function fill({ nodes }: World, { keys, startsEmpty }: Plan): Promise<void> {
  const values = (columns: readonly unknown[]) =>
    `(${columns.map((one) => (typeof one === 'string' ? `'${one}'` : one)).join(', ')})`;
  const inserts = TABLES.map((table) => {
    const rows = Array.from({ length: Math.ceil(keys / 2) }, (_, n) =>
      values([...keyOf(table, n), `first.${table.name}.${n}`, 0, ...(table.name === 'stock' ? [0] : [])]),
    );
    const more = table.name === 'stock' ? ', amount' : '';
    return `insert into ${table.name} (${table.key.join(', ')}, mark, version${more}) values ${rows.join(', ')};`;
  });
  for (const { client } of startsEmpty ? nodes.slice(0, 1) : nodes) await client.query(inserts.join('\n'));
}

async function untilStreaming({ lanes, wrong }: World): Promise<void> {
  const tables = TABLES.length;
  const streams = async ({ name, to }: Lane) => {
    const { rowCount } = await to.client.query(
      `select from ibex.target_table where sync = $1 and state = 'streaming'`,
      [name],
    );
    return rowCount === tables;
  };
  const all = async () => {
    for (const lane of lanes) if (!(await streams(lane))) return wrong.length > 0;
    return true;
  };
  await waitFor(all, { timeout: 180_000, what: 'all lanes to stream' });
  if (wrong[0] !== undefined) throw new Error(wrong[0]);
}

async function play(
  world: World,
  { transactions, blows }: Act,
  writers: readonly Writer[],
  random: () => number,
): Promise<void> {
  const strike = async () => {
    for (const blow of blows) {
      await sleep(random() * 400);
      await BLOWS[blow](world, random);
    }
  };
  await Promise.all([...writers.map((writer) => writer.write(transactions)), strike()]);
}

const BLOWS: Record<Blow, (world: World, random: () => number) => Promise<void>> = {
  kill: (world) => world.kill(),
  // Whoever wants to move the checkpoint waits.
  delay: async ({ lanes }, random) => {
    const lane = lanes[Math.floor(random() * lanes.length)] as Lane;
    const client = await connect(lane.to.url);
    try {
      await client.query('begin');
      await client.query('select from ibex.checkpoint where sync = $1 for update', [lane.name]);
      await sleep(200 + random() * 800);
      await client.query('rollback');
    } finally {
      await client.end();
    }
  },
  pause: async (world, random) => {
    const { name } = world.lanes[Math.floor(random() * world.lanes.length)] as Lane;
    const run = async (command: string) => {
      const { code, stderr } = await world.command(command, '--sync', name);
      if (code !== 0) throw new Error(`ibex ${command} --sync ${name}: ${stderr}`);
    };
    await run('pause');
    await sleep(random() * 500);
    await run('resume');
  },
};

/** What is wrong now that nothing is on its way: nodes that differ, and lost writes that no record names. */
async function judge(world: World, ledger: Ledger): Promise<string[]> {
  const [first, ...others] = world.nodes as [Node, ...Node[]];
  const wrong: string[] = [];
  for (const other of others) {
    const differences = await compareTables(first.client, other.client);
    wrong.push(...differences.map((one) => `${first.name} (source) and ${other.name} (target): ${one}`));
  }
  const rows = new Map<string, string>();
  for (const { name, key } of TABLES) {
    const { rows: found } = await first.client.query<{ key: string; mark: string }>(
      `select concat_ws(',', ${key.join(', ')}) as key, mark from ${name}`,
    );
    for (const { key, mark } of found) rows.set(placeOf({ table: name, key }), mark);
  }
  const record = await readRecord(world);
  const lost = ledger.unrecorded(rows, record);
  if (wrong.length > 0) wrong.push(...record.map((one) => JSON.stringify(one)), ...ledger.told());
  return [...wrong, ...lost.map((what) => `lost, and not in the record: ${what}`)];
}
