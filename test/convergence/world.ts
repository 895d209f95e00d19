/** The nodes of a round: databases of their own, on two servers by turns, and an ibex.yaml that ties them together. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { stringify } from 'yaml';
import { type IbexResult, ibex } from '../support/ibex.ts';
import { type Servers, waitFor } from '../support/servers.ts';
import type { Part } from './daemon.ts';
import type { Plan } from './plan.ts';
import { CREATE, CREATE_FUNCTIONS, conflictsOf } from './tables.ts';

export interface Node {
  readonly name: string;
  readonly url: string;
  /** As the owner of its tables: for looking and for disturbing, never inside a transaction for long. */
  readonly client: pg.Client;
}

/** One direction between two nodes. */
export interface Lane {
  readonly name: string;
  readonly from: Node;
  readonly to: Node;
}

export class World {
  readonly nodes: readonly Node[];
  readonly lanes: readonly Lane[];
  /** For the daemon, which carries for other rounds too. */
  readonly part: Part;
  readonly #directory: string;
  readonly #drop: () => Promise<void>;

  static async make(servers: Servers, plan: Plan): Promise<World> {
    const clusters = [servers.source, servers.target];
    const made = await Promise.all(
      plan.nodes.map((node, i) => makeNode(clusters[i % 2] as Servers['source'], `${node}_${plan.seed}`)),
    );
    const directory = await mkdtemp(join(tmpdir(), 'ibex-convergence-'));
    const world = new World(plan, made, directory, async () => {
      for (const { drop } of made) await drop();
      await rm(directory, { recursive: true, force: true });
    });
    await writeFile(join(directory, 'ibex.yaml'), stringify(world.part), { mode: 0o600 });
    return world;
  }

  private constructor(plan: Plan, nodes: readonly Node[], directory: string, drop: () => Promise<void>) {
    this.nodes = nodes;
    this.part = partOf(plan, nodes);
    this.lanes = plan.pairs.flatMap(([first, second], i) => {
      const [from, to] = [nodes[first] as Node, nodes[second] as Node];
      const name = syncOf(plan, i);
      return [
        { name, from, to },
        { name: `${name}.back`, from: to, to: from },
      ];
    });
    this.#directory = directory;
    this.#drop = drop;
  }

  /** Runs a command to its end, with the nodes' ibex.yaml. */
  command(...args: string[]): Promise<IbexResult> {
    return ibex(args, { cwd: this.#directory });
  }

  /** Removes everything. */
  async end(): Promise<void> {
    await this.#drop();
  }
}

function syncOf({ seed }: Plan, pair: number): string {
  return `s${seed}_${pair}`;
}

function partOf(plan: Plan, nodes: readonly Node[]): Part {
  const isTree = nodes.length > 2;
  const nameOf = (node: number) => (nodes[node] as Node).name;
  return {
    nodes: Object.fromEntries(nodes.map(({ name, url }) => [name, url])),
    syncs: plan.pairs.map((pair, i) => ({
      name: syncOf(plan, i),
      between: pair.map(nameOf),
      tables: ['public.*'],
      conflicts: conflictsOf(plan.strategy, [...pair].sort((a, b) => a - b).map(nameOf)),
      ...(isTree ? { forward: true } : {}),
    })),
  };
}

async function makeNode(cluster: Servers['source'], node: string) {
  const name = `${node}_${randomBytes(4).toString('hex')}`;
  const password = randomBytes(12).toString('hex');
  const superuser = await connect(cluster.superuserUrl);
  await superuser.query(`create role ${name} login nosuperuser noreplication password '${password}'`);
  await superuser.query(`create database ${name} owner ${name}`);
  const url = cluster.url({ user: name, password, database: name });
  const client = await connect(url);
  await client.query(CREATE + CREATE_FUNCTIONS);
  const drop = async () => {
    await client.end();
    const left = 'select from pg_stat_activity where datname = $1';
    await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
      name,
    ]);
    await waitFor(async () => (await superuser.query(left, [name])).rowCount === 0, {
      what: 'sessions to end',
    });
    await superuser.query(`drop database ${name}`);
    await superuser.query(`drop role ${name}`);
    await superuser.end();
  };
  return { name: node, url, client, drop };
}

export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
