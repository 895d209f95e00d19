/**
 * The nodes of a round: databases of their own, on two servers by turns, an ibex.yaml that ties them together, and the
 * daemon, started again whenever it was killed.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { stringify } from 'yaml';
import { type IbexResult, ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { type Servers, waitFor } from '../support/servers.ts';
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
  readonly #directory: string;
  readonly #drop: () => Promise<void>;
  readonly #stop = new AbortController();
  readonly #started: RunningIbex[] = [];
  /** What the daemon did that none should. */
  readonly wrong: string[] = [];
  #daemon: RunningIbex | undefined;
  #watching: Promise<void> = Promise.resolve();

  static async make(servers: Servers, plan: Plan): Promise<World> {
    const name = `c${plan.seed}_${randomBytes(4).toString('hex')}`;
    const clusters = [servers.source, servers.target];
    const nodes: Node[] = [];
    const drops: (() => Promise<void>)[] = [];
    for (const [index, node] of plan.nodes.entries()) {
      const { drop, ...made } = await makeNode(clusters[index % 2] as Servers['source'], node, name);
      nodes.push(made);
      drops.push(drop);
    }
    const directory = await mkdtemp(join(tmpdir(), 'ibex-convergence-'));
    const world = new World(plan, nodes, directory, async () => {
      for (const drop of drops) await drop();
      await rm(directory, { recursive: true, force: true });
    });
    await writeFile(join(directory, 'ibex.yaml'), stringify(configOf(plan, nodes)), { mode: 0o600 });
    return world;
  }

  private constructor(plan: Plan, nodes: readonly Node[], directory: string, drop: () => Promise<void>) {
    this.nodes = nodes;
    this.lanes = plan.pairs.flatMap(([first, second], i) => {
      const [from, to] = [nodes[first] as Node, nodes[second] as Node];
      return [
        { name: `s${i}`, from, to },
        { name: `s${i}.back`, from: to, to: from },
      ];
    });
    this.#directory = directory;
    this.#drop = drop;
  }

  /** Runs a command to its end, with the nodes' ibex.yaml. */
  command(...args: string[]): Promise<IbexResult> {
    return ibex(args, { cwd: this.#directory });
  }

  run(): void {
    this.#daemon = this.#start();
    this.#watching = this.#watch();
  }

  async kill(): Promise<void> {
    await this.#daemon?.kill9();
  }

  /** The last that all daemons had to say. */
  get lastWords(): string {
    return this.#started.map(({ pid, stderr }) => `[${pid}]\n${stderr.slice(-4_000)}`).join('\n');
  }

  /** Stops the daemon as an operator does, and removes everything. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await this.#daemon?.kill9();
    await this.#drop();
  }

  async #watch(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const daemon = this.#daemon as RunningIbex;
      if (!daemon.running) {
        await daemon.exited;
        if (!daemon.killed)
          this.wrong.push(
            `the daemon ended by itself: ${daemon.stderr.trimEnd().split('\n').slice(-3).join(' / ')}`,
          );
        this.#daemon = this.#start();
      }
      await sleep(20);
    }
  }

  #start(): RunningIbex {
    const daemon = startIbex(['run', '--log-format', 'json'], { cwd: this.#directory });
    this.#started.push(daemon);
    return daemon;
  }
}

function configOf(plan: Plan, nodes: readonly Node[]): unknown {
  const isTree = plan.nodes.length > 2;
  return {
    nodes: Object.fromEntries(nodes.map(({ name, url }) => [name, url])),
    syncs: plan.pairs.map(([first, second], i) => ({
      name: `s${i}`,
      between: [plan.nodes[first], plan.nodes[second]],
      tables: ['public.*'],
      conflicts: conflictsOf(
        plan.strategy,
        plan.nodes.filter((_, node) => node === first || node === second),
      ),
      ...(isTree ? { forward: true } : {}),
    })),
  };
}

async function makeNode(cluster: Servers['source'], node: string, round: string) {
  const name = `${round}_${node}`;
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
