/** One round: nodes that are written at once while their daemon has a hard time, and what is equal at its end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { randomFrom } from '../support/random.ts';
import { compareTables, type Servers, waitFor } from '../support/servers.ts';
import type { Daemon } from './daemon.ts';
import { Ledger, placeOf } from './ledger.ts';
import type { Act, Blow, Plan } from './plan.ts';
import { LOOK_MS, readRecord, settle } from './record.ts';
import { keyOf, TABLES } from './tables.ts';
import { connect, type Lane, type Node, World } from './world.ts';
import { Writer } from './writer.ts';

export interface RoundResult {
  /** What is not as it must be, in words; empty when all is well. */
  readonly wrong: readonly string[];
  readonly writes: number;
  readonly conflicts: number;
  /** Where the time went, in milliseconds. */
  readonly times: Readonly<Record<'start' | 'writing' | 'draining' | 'judging', number>>;
}

const WRITERS = 2;

export class Round {
  readonly world: World;
  readonly plan: Plan;
  readonly #ledger = new Ledger();

  static async make(servers: Servers, plan: Plan): Promise<Round> {
    const world = await World.make(servers, plan);
    await fill(world, plan);
    return new Round(world, plan);
  }

  private constructor(world: World, plan: Plan) {
    this.world = world;
    this.plan = plan;
  }

  /** The daemon, which carries for other rounds too, has been started. */
  async play(daemon: Daemon): Promise<RoundResult> {
    const { world } = this;
    const { acts, random } = this.plan;
    const began = Date.now();
    const writers = await this.#connectWriters();
    try {
      await untilStreaming(world, daemon);
      const times = { start: Date.now() - began, writing: 0, draining: 0, judging: 0 };
      const timed = async <T>(what: keyof typeof times, work: Promise<T>): Promise<T> => {
        const since = Date.now();
        const result = await work;
        times[what] += Date.now() - since;
        return result;
      };
      const wrong: string[] = [];
      for (const [index, act] of acts.entries()) {
        await timed('writing', play({ world, daemon, act, writers, random }));
        if (!act.drained && index < acts.length - 1) continue;
        await timed('draining', settle(world, random));
        const found = await timed('judging', judge(world, this.#ledger));
        wrong.push(...found.map((what) => `act ${index + 1}: ${what}`));
        if (wrong.length > 0) break;
      }
      const conflicts = (await readRecord(world)).length;
      return { wrong: [...daemon.wrong, ...wrong], writes: this.#ledger.size, conflicts, times };
    } catch (error) {
      const record = (await readRecord(world)).slice(-20).map((one) => JSON.stringify(one));
      (error as Error).message += `\n${record.join('\n')}\n${daemon.lastWords}`;
      throw error;
    } finally {
      await Promise.all(writers.map((writer) => writer.end()));
    }
  }

  async #connectWriters(): Promise<Writer[]> {
    const { keys, random } = this.plan;
    const writers: Writer[] = [];
    for (const { name: node, url } of this.world.nodes) {
      for (let n = 0; n < WRITERS; n++) {
        const own = randomFrom(Math.floor(random() * 2 ** 32));
        const client = await connect(url);
        const name = `${node}.${n}`;
        writers.push(new Writer({ client, node, name, keys, random: own, ledger: this.#ledger }));
      }
    }
    return writers;
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

async function untilStreaming({ lanes }: World, { wrong }: Daemon): Promise<void> {
  const tables = TABLES.length;
  const streams = async ({ name, to }: Lane) => {
    const { rowCount } = await to.client.query(
      `select from ibex.target_table where sync = $1 and state = 'streaming'`,
      [name],
    );
    return rowCount === tables;
  };
  const all = async () => {
    for (const lane of lanes) {
      if (await streams(lane)) continue;
      await sleep(LOOK_MS);
      return wrong.length > 0;
    }
    return true;
  };
  await waitFor(all, { timeout: 180_000, what: 'all lanes to stream' });
  if (wrong[0] !== undefined) throw new Error(wrong[0]);
}

interface Scene {
  readonly world: World;
  readonly daemon: Daemon;
  readonly act: Act;
  readonly writers: readonly Writer[];
  readonly random: () => number;
}

async function play(scene: Scene): Promise<void> {
  const { act, writers, random } = scene;
  const strike = async () => {
    for (const blow of act.blows) {
      await sleep(random() * 400);
      await BLOWS[blow](scene);
    }
  };
  await Promise.all([...writers.map((writer) => writer.write(act.transactions)), strike()]);
}

const BLOWS: Record<Blow, (scene: Scene) => Promise<void>> = {
  kill: ({ daemon }) => daemon.kill(),
  // Whoever wants to move the checkpoint waits.
  delay: async ({ world: { lanes }, random }) => {
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
  pause: async ({ world, random }) => {
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
