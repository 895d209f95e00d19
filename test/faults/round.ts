/** One round: fresh databases, a sync under writes, faults at its seams and from outside, and the books in the end. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Failpoint } from '../../src/core/failpoints.ts';
import type { RedisServer } from '../../src/embedded/redis.ts';
import type { SyncStatus } from '../../src/observe/status.ts';
import { ibex } from '../support/ibex.ts';
import { startNetwork } from '../support/network.ts';
import { OutOfPatience } from '../support/patience.ts';
import { randomFrom } from '../support/random.ts';
import { type Databases, freshDatabases, type Servers, waitFor } from '../support/servers.ts';
import { onBoth, waitUntilCaughtUp } from '../support/sync.ts';
import { ask } from './ask.ts';
import { compareSides } from './equality.ts';
import { Fleet } from './fleet.ts';
import type { World } from './kinds.ts';
import { CHANGE_BULK, FILL, FILL_LATE, LATE_SCHEMA, SCHEMA, TABLES, Writer } from './ledger.ts';
import { Observer } from './observer.ts';
import { OF_BACKLOGS, type Plan } from './plan.ts';

/** What is waited for comes at some time, on the slowest of machines. */
const PATIENCE = 240_000;
/** How long failpoints are waited for before more is done that passes them. */
const PROVOKE_MS = 4_000;
const WRITERS = 2;
/** SQLSTATE of a victim. */
const DEADLOCK = '40P01';
/** Where a backlog is to be large: less than one CHANGE_BULK, which then comes in some ten pieces. */
const STAGE_ABOVE = '20000';

export interface RoundResult {
  /** Milliseconds from the end of each fault until what was written then was on the target. */
  readonly recoveries: { readonly what: string; readonly ms: number }[];
  readonly struck: readonly Failpoint[];
  readonly rows: number;
  readonly looks: number;
  /** Everything that was not as it has to be; empty when all is well. */
  readonly wrong: readonly string[];
}

export async function runRound(
  servers: Servers,
  redis: RedisServer | undefined,
  plan: Plan,
): Promise<RoundResult> {
  const round = new Round(servers, redis, plan);
  try {
    return await round.run();
  } catch (error) {
    console.log(round.lastWords);
    throw error;
  } finally {
    await round.close();
  }
}

type Closing = () => Promise<unknown>;

class Round {
  readonly #servers: Servers;
  readonly #redis: RedisServer | undefined;
  readonly #plan: Plan;
  readonly #closing: Closing[] = [];
  readonly #recoveries: { what: string; ms: number }[] = [];
  readonly #writing = new AbortController();
  #databases!: Databases;
  #fleet: Fleet | undefined;
  #writers: readonly Writer[] = [];
  #markers = 0;

  constructor(servers: Servers, redis: RedisServer | undefined, plan: Plan) {
    this.#servers = servers;
    this.#redis = plan.withRedis ? redis : undefined;
    this.#plan = plan;
  }

  /** What the processes said last. */
  get lastWords(): string {
    return this.#fleet?.lastWords ?? '';
  }

  async run(): Promise<RoundResult> {
    const { early, largeBacklog, random } = this.#plan;
    const world = await this.#open();
    const observer = this.#startWorld(world);
    if (early) await this.#strike(world, 1_500);
    await this.#recovered(world, early ? this.#plan.kind.name : null);
    await this.#addLate(world);
    await this.#provoke(world);
    if (!early) {
      if (largeBacklog) await changeBulk(world.urls.source);
      await this.#strike(world, 500 * random());
      await this.#recovered(world, this.#plan.kind.name);
    }
    return this.#balance(world, observer);
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close();
  }

  async #open(): Promise<World> {
    const { random, replica, failpoints, largeBacklog, withWorker } = this.#plan;
    const databases = await freshDatabases(this.#servers, { replica });
    this.#databases = databases;
    this.#closing.push(() => databases.dropAll());
    await onBoth(databases, SCHEMA);
    await databases.source.query(FILL);
    const open = async (to: { readonly port: number }) => {
      const network = await startNetwork(to);
      this.#closing.push(() => network.close());
      return network;
    };
    const redis = this.#redis;
    const networks = {
      source: await open(this.#servers.source),
      target: await open(this.#servers.target),
      redis: redis && (await open(redis)),
    };
    const urls = { source: databases.sourceUrl, target: databases.targetUrl };
    const afterwards: (() => Promise<void>)[] = [];
    this.#closing.push(async () => {
      for (const action of afterwards) await action();
    });
    const fleet = new Fleet({
      env: {
        IBEX_SOURCE_URL: networks.source.through(urls.source),
        IBEX_TARGET_URL: networks.target.through(urls.target),
        ...(largeBacklog && { IBEX_STAGE_ABOVE: STAGE_ABOVE }),
        ...(redis && networks.redis && { IBEX_REDIS_URL: networks.redis.through(redis.url) }),
      },
      random,
      failpoints,
      withWorker,
    });
    this.#fleet = fleet;
    this.#closing.push(() => fleet.end());
    const carryUnflushed = async () => {
      for (const writer of this.#writers) writer.hasty = true;
      await this.#mark(urls, 'what made commits hasty', false);
    };
    return { random, servers: this.#servers, urls, networks, redis, fleet, carryUnflushed, afterwards };
  }

  /** Those who write on the source, and who looks on at the target. */
  #startWorld({ urls }: World): Observer {
    const looking = new AbortController();
    const observer = new Observer(urls.target);
    this.#writers = Array.from(
      { length: WRITERS },
      (_, n) => new Writer(urls.source, randomFrom(this.#plan.seed * WRITERS + n)),
    );
    const running = [
      observer.run(looking.signal),
      ...this.#writers.map((writer) => writer.run(this.#writing.signal)),
    ];
    this.#closing.push(() => {
      looking.abort();
      this.#writing.abort();
      return Promise.all(running);
    });
    return observer;
  }

  async #strike(world: World, withinMs: number): Promise<void> {
    await sleep(world.random() * withinMs);
    await this.#plan.kind.strike(world);
  }

  /** Waits until what is written from now on has reached the target; notes how long that took after `fault`. */
  async #recovered({ urls }: World, fault: string | null): Promise<void> {
    const began = Date.now();
    await this.#mark(urls, fault ?? 'the start', true);
    if (fault !== null) this.#recoveries.push({ what: fault, ms: Date.now() - began });
  }

  /** Writes a row on the source and waits for it on the target. */
  async #mark(urls: World['urls'], after: string, lasting: boolean): Promise<void> {
    const id = ++this.#markers;
    const isOn = async (url: string) =>
      (await ask(url, 'select from marker where id = $1', [id])).length === 1;
    const insert = `set synchronous_commit = ${lasting ? 'on' : 'off'};
      insert into marker values (${id}) on conflict do nothing`;
    // Whether the first try came through is not known of a server that goes away meanwhile.
    const written = () => ask(urls.source, insert).then(() => isOn(urls.source));
    await waitFor(written, { timeout: PATIENCE, what: `the source after ${after}` });
    await waitFor(() => isOn(urls.target), { timeout: PATIENCE, what: `recovery from ${after}` });
  }

  /** A table that comes to the sync while the others stream. */
  async #addLate(world: World): Promise<void> {
    const { urls } = world;
    for (const url of [urls.target, urls.source]) await ask(url, LATE_SCHEMA);
    await ask(urls.source, FILL_LATE);
    for (const writer of this.#writers) writer.late = true;
    await this.#command(world, ['tables', 'add', 'public.late']);
  }

  /** Does what passes the failpoints that are left, until all have struck, and everything has recovered. */
  async #provoke(world: World): Promise<void> {
    const { fleet, urls } = world;
    const due = this.#plan.failpoints.map(({ name }) => name);
    const left = () => due.filter((name) => !fleet.struck.has(name));
    const deadline = Date.now() + PATIENCE;
    while (left().length > 0) {
      if (Date.now() > deadline) throw new OutOfPatience(PATIENCE, `${left()} to strike`);
      if (left().some((name) => OF_BULK.includes(name))) await changeBulk(urls.source);
      if (left().some((name) => OF_COPIES.includes(name)))
        await this.#command(world, ['tables', 'recopy', 'public.late']);
      if (left().includes('lane-taken')) await fleet.daemon.kill9();
      const struck = () => left().length === 0;
      await waitFor(struck, { timeout: PROVOKE_MS, what: 'failpoints' }).catch(() => undefined);
    }
    await this.#recovered(world, due.join(' and '));
  }

  /** The books after all is over, and nobody writes any more. */
  async #balance(world: World, observer: Observer): Promise<RoundResult> {
    const { urls, fleet } = world;
    this.#writing.abort();
    await waitUntilCaughtUp(this.#databases, PATIENCE);
    const { rows, differences } = await compareSides(urls.source, urls.target, [...TABLES, 'late']);
    const accounts = await this.#readAccounts(world);
    const blind = observer.looks === 0 ? ['the observer saw no table in step'] : [];
    const wrong = [...differences, ...accounts, ...fleet.wrong, ...observer.wrong, ...blind];
    return {
      recoveries: this.#recoveries,
      struck: [...fleet.struck.keys()],
      rows,
      looks: observer.looks,
      wrong,
    };
  }

  /** Tables whose account does not add up by what `ibex status` says beside the daemon, that are not in step, or missing. */
  async #readAccounts({ urls }: World): Promise<string[]> {
    const { stdout, stderr } = await ibex(['status', '--json'], { env: commandEnv(urls) });
    if (stdout === '') return [`ibex status said nothing: ${stderr}`];
    const [{ daemon, tables }] = JSON.parse(stdout) as [SyncStatus];
    const isRight = (one: SyncStatus['tables'][number]) =>
      one.state === 'streaming' && one.captured === one.applied + one.coalesced + one.resolved + one.held;
    const expected = [...TABLES, 'late'].length;
    return [
      ...(daemon === null ? ['ibex status saw no daemon'] : []),
      ...(tables.length === expected ? [] : [`ibex status has ${tables.length} tables, not ${expected}`]),
      ...tables.filter((one) => !isRight(one)).map((one) => `the account of ${JSON.stringify(one)}`),
    ];
  }

  /** A command that may come while nobody answers, and so is given until it succeeds. */
  async #command({ urls }: World, args: readonly string[]): Promise<void> {
    const done = async () => (await ibex(args, { env: commandEnv(urls) })).code === 0;
    await waitFor(done, { timeout: PATIENCE, what: `ibex ${args.join(' ')}` });
  }
}

/** Once more where the writers, who take the same rows in another order, had the server choose this statement as the victim. */
async function changeBulk(url: string): Promise<void> {
  const changed = await ask(url, CHANGE_BULK).then(
    () => true,
    (error: { code?: string }) => {
      if (error.code !== DEADLOCK) throw error;
      return false;
    },
  );
  if (!changed) await changeBulk(url);
}

function commandEnv(urls: World['urls']) {
  return { IBEX_SOURCE_URL: urls.source, IBEX_TARGET_URL: urls.target };
}

const OF_BULK: readonly Failpoint[] = [
  'before-acknowledge',
  'during-forgetting',
  'during-rotation',
  ...OF_BACKLOGS,
];
const OF_COPIES: readonly Failpoint[] = ['chunk-written', 'during-hand-over', 'after-hand-over'];
