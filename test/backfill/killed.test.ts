/**
 * A copy in the middle of which everything dies that can die, at random moments: what was copied is not copied again,
 * and nothing is lost. TEST_KILLS gives another number of rounds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RedisServer } from '../../src/embedded/redis.ts';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { type Network, startNetwork } from '../support/network.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { onBoth, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
const ROUNDS = Number(process.env.TEST_KILLS ?? 4);
const TABLES = ['one', 'two'];
/** A chunk is what a job may copy in a minute. */
const RATE = ['--limit-mbps', '4', '--jobs', '32'];
/** A page of the source's disk each, of which a chunk has some 900. */
const ROWS = 900 * (4 + 2 * ROUNDS);

let databases: Databases;
let source: Network;
let target: Network;
let daemon: RunningIbex | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  source = await startNetwork(servers.source);
  target = await startNetwork(servers.target);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await Promise.all([source.close(), target.close()]);
  await databases.dropAll();
});

const viaNetwork = () => ({
  IBEX_SOURCE_URL: source.through(databases.sourceUrl),
  IBEX_TARGET_URL: target.through(databases.targetUrl),
});

/** On a connection of its own: those of the test die with the servers. */
async function ask<T extends object>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Notes each chunk whose copying is committed. */
const NOTE_FINISHED = `
  create table ibex.test_finished (relid bigint, n int);
  grant select on ibex.test_finished to public;
  create function ibex.test_finished() returns trigger language plpgsql security definer as $$ begin
    insert into ibex.test_finished values (new.relid, new.n); return null; end $$;
  create trigger test_finished after update of rows on ibex.chunk for each row
    when (new.rows is not null) execute function ibex.test_finished();`;

interface Chunks {
  readonly finished: number;
  readonly left: number;
}

async function readChunks(): Promise<Chunks> {
  const [chunks] = await ask<Chunks>(
    databases.targetUrl,
    `select count(rows)::int as finished, count(*)::int - count(rows)::int as left from ibex.chunk`,
  );
  return chunks as Chunks;
}

/** An application that goes on after its server was gone. */
async function writeUntil(stop: AbortSignal, random: () => number): Promise<void> {
  const some = (below: number) => Math.floor(random() * below);
  while (!stop.aborted) {
    const [table, id] = [TABLES[some(TABLES.length)], 1 + some(ROWS)];
    const statements = [
      `update ${table} set v = v + 1 where id between ${id} and ${id + 20}`,
      `delete from ${table} where id = ${id}`,
      `update ${table} set id = -id where id = ${id}`,
      `insert into ${table} values (${ROWS + some(1_000_000)}, 1, 'new') on conflict (id) do update set v = -1`,
    ];
    await ask(databases.sourceUrl, statements[some(statements.length)] as string).catch(() => undefined);
    await sleep(5);
  }
}

type Blow = readonly [what: string, strike: () => Promise<void>];

/** In so many rounds each server is struck once, the network and Redis (where there is one) in one of their ways. */
function blows(redis: RedisServer | undefined, random: () => number): Blow[] {
  const crash = (server: (typeof servers)['source']) => async () => {
    await server.stop('immediate');
    await server.start();
  };
  const cut = (network: Network) => async () => {
    network.cut();
    await sleep(100);
    network.mend();
  };
  const network: Blow[] = [
    ['the network to the source is cut', cut(source)],
    ['the network to the target is cut', cut(target)],
  ];
  const queue: Blow[] =
    redis === undefined
      ? network
      : [
          ['Redis is emptied', () => emptyRedis(redis.url)],
          ['Redis dies', () => redis.restart()],
        ];
  const one = (of: Blow[]) => of[Math.floor(random() * of.length)] as Blow;
  const all: Blow[] = [
    ['the source crashes', crash(servers.source)],
    ['the target crashes', crash(servers.target)],
    one(network),
    one(queue),
  ];
  return all.sort(() => random() - 0.5);
}

async function emptyRedis(url: string): Promise<void> {
  const client = new Redis(url);
  client.on('error', () => undefined);
  await client.flushall();
  client.disconnect();
}

test('everything dies in the middle of a copy, again and again', {
  timeout: 300_000 + ROUNDS * 30_000,
}, async () => {
  const seed = seedOf('killed');
  const random = randomFrom(seed);
  await using redis = await redisForTests();
  for (const table of TABLES) {
    await onBoth(databases, `create table ${table} (id int primary key, v int, pad text)`);
    await databases.source.query(`alter table ${table} set (fillfactor = 10);
      insert into ${table} select i, 0, repeat('x', 800) from generate_series(1, ${ROWS}) i`);
  }
  expect((await ibex(['setup'], { env: viaNetwork() })).code).toBe(0);
  await databases.targetAdmin.query(NOTE_FINISHED);
  const stop = new AbortController();
  const writers = [1, 2].map((n) => writeUntil(stop.signal, randomFrom(seed + n)));
  const start = () =>
    startIbex(['run', '--log-format', 'json', ...RATE], {
      env: { ...viaNetwork(), ...(redis && { IBEX_REDIS_URL: redis.url }) },
    });

  const struck: string[] = [];
  let due: Blow[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    daemon = start();
    if (due.length === 0) due = blows(redis, random);
    const [what, strike] = due.pop() as Blow;
    for (const blow of [strike, () => (daemon as RunningIbex).kill9()]) {
      const before = await readChunks();
      const another = async () => {
        const { finished, left } = await readChunks();
        return finished > before.finished || (finished > 0 && left === 0);
      };
      await waitFor(another, {
        what: `another chunk, after ${struck}`,
      }).catch((error) => Promise.reject(new Error(`${error.message}\n${daemon?.stderr}`)));
      await sleep(random() * 300);
      const { left } = await readChunks();
      struck.push(`${blow === strike ? what : 'the daemon is killed'} (${left} chunks left)`);
      await blow();
    }
  }
  console.log(struck.join(', '));
  daemon = start();
  await waitFor(async () => (await readChunks()).left === 0, { what: 'the rest of the chunks' });
  stop.abort();
  await Promise.all(writers);
  await waitUntilCaughtUp(databases, 120_000).catch((error) => {
    throw new Error(`${error.message}\n${daemon?.stderr}`);
  });

  const twice = await ask(
    databases.targetUrl,
    'select relid, n, count(*) from ibex.test_finished group by relid, n having count(*) > 1',
  );
  expect(twice).toEqual([]);
  const clients = [databases.sourceUrl, databases.targetUrl].map(
    (url) => new pg.Client({ connectionString: url }),
  );
  await Promise.all(clients.map((client) => client.connect()));
  expect(await compareTables(clients[0] as pg.Client, clients[1] as pg.Client)).toEqual([]);
  await Promise.all(clients.map((client) => client.end()));
  expect(daemon.running).toBe(true);
});
