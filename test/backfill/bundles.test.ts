/** Small tables that are copied in one transaction: as exact as alone, and none is held up by another. */
import { describe, expect, test } from 'vitest';
import { planBundles } from '../../src/backfill/bundle.ts';
import { planChunks, recordedChunks, setUp } from '../support/chunks.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { redisForTests, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const TABLES = ['a', 'b', 'c', 'd', 'e'];
const OTHERS = TABLES.filter((table) => table !== 'b');
const named = (tables: readonly string[]) => tables.map((table) => `public.${table}`);

/** Five tables of different sizes, one without a key, one without rows, one partitioned. */
async function create(): Promise<void> {
  await onBoth(
    pair.databases,
    `create table a (id int primary key, v text); create table b (id int primary key, v text);
     create table c (v int, w text); create table d (id int primary key);
     create table e (id int primary key, v text) partition by range (id);
     create table e_1 partition of e for values from (0) to (1000)`,
  );
  await pair.source.query(
    `insert into a select i, repeat('x', i) from generate_series(1, 300) i; insert into b values (1, null), (2, 'two');
     insert into c select i % 7, 'same' from generate_series(1, 50) i; insert into e select i, 'e' from generate_series(1, 99) i`,
  );
}

/** The transactions that wrote the rows of the tables. */
async function writers(): Promise<string[]> {
  const each = TABLES.map((table) => `select xmin::text from ${table}`);
  const { rows } = await pair.target.query<{ xmin: string }>(each.join(' union '));
  return rows.map(({ xmin }) => xmin);
}

async function prepare() {
  await create();
  await setUp(pair);
  return planChunks(pair, 1024 * 1024);
}

describe('a bundle', () => {
  test('is one transaction for all of its tables, as exact as five, and brings nothing back when it wakes up late', async () => {
    const { copies, copyTogether } = await prepare();
    expect(planBundles(copies, 1024 * 1024).map((bundle) => bundle.length)).toEqual([5]);
    expect(planBundles(copies, 1)).toEqual([]);
    await pair.source.query(`update a set id = -id where id < 50; insert into b values (3, 'three'); delete from c where v = 1;
      insert into d values (1)`);
    const outcomes = await copyTogether();
    expect(outcomes.every(({ result }) => result === 'copied')).toBe(true);
    const counts = copies.map(({ plan }, i) => [plan.name, outcomes[i]?.rows]);
    expect(Object.fromEntries(counts)).toEqual({ a: 300, b: 3, c: 42, d: 1, e: 99 });
    expect(await writers()).toHaveLength(1);
    await pair.source.query(
      `update a set v = 'after'; delete from c where v = 2; delete from e where id > 50`,
    );
    pair.start();
    await pair.equal();
    await pair.source.query('delete from a; delete from b');
    await pair.equal();
    expect((await copyTogether()).map(({ result }) => result)).toEqual(TABLES.map(() => 'alone'));
    await pair.equal();
  });

  test.each([
    ['VACUUM FULL', 'vacuum full b'],
    ['TRUNCATE', `truncate b; insert into b values (7, 'anew')`],
    ['a rewrite', 'alter table b alter v type varchar(9)'],
    ['a new column', 'alter table b add more int default 5'],
    ['DROP', 'drop table b'],
  ])('of which %s changes a table brings nothing; then each is copied alone', async (_, statement) => {
    const { copyTogether } = await prepare();
    await pair.source.query(statement);
    const outcomes = await copyTogether();
    expect(outcomes.map(({ result }) => result)).toEqual(TABLES.map(() => 'alone'));
    expect(await writers()).toEqual([]);
    expect((await recordedChunks(pair)).every(({ rows }) => rows === null)).toBe(true);
    pair.start();
    await pair.becomesEqual(named(/add|drop/.test(statement) ? OTHERS : TABLES));
  });

  test('in which a chunk is in other hands, or copied, brings nothing', async () => {
    const { copyTogether, copy } = await prepare();
    await pair.target.query('begin; select from ibex.chunk limit 1 for update');
    expect((await copyTogether()).map(({ result }) => result)).toEqual(TABLES.map(() => 'alone'));
    await pair.target.query('rollback');
    expect((await copy(1)).result).toBe('copied');
    expect((await copyTogether()).map(({ result }) => result)).toEqual(TABLES.map(() => 'alone'));
    expect((await writers()).length).toBeLessThanOrEqual(1);
    pair.start();
    await pair.equal();
  });

  test.each(['source', 'target'] as const)(
    'does not wait long for a table that is locked on the %s',
    async (side) => {
      const { copyTogether } = await prepare();
      await pair[side].query('begin; lock table b in access exclusive mode');
      expect((await copyTogether()).map(({ result }) => result)).toEqual(TABLES.map(() => 'alone'));
      await pair[side].query('rollback');
      pair.start();
      await pair.equal();
    },
  );
});

test('a row that the target refuses holds its own table only', async () => {
  await create();
  await pair.target.query(`alter table b add check (v <> 'two')`);
  pair.start();
  await pair.becomesEqual(named(OTHERS));
  const refused = async () =>
    (await pair.sync.status()).tables.find(({ table }) => table === 'public.b')?.reason ?? null;
  await waitFor(async () => (await refused()) !== null, { what: 'a reason of b' });
  expect(await refused()).toMatch(/b_v_check/);
  await pair.source.query(`update b set v = 'zwei' where id = 2`);
  await pair.becomesEqual();
});

test('who dies between a bundle and its commit leaves nothing of it, and it is copied the next time', async () => {
  await create();
  const { sourceUrl, targetUrl } = pair.databases;
  const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
  const failpoints = { TEST_IBEX_FAILPOINTS: 'chunk-written:kill' };
  expect(await startIbex(['backfill'], { env: { ...env, ...failpoints } }).exited).toBe(null);
  await waitFor(async () => (await writers()).length === 0, { what: 'the transaction to be undone' });
  expect((await recordedChunks(pair)).map(({ rows }) => rows)).toEqual(TABLES.map(() => null));
  await pair.source.query('delete from a where id < 100; insert into d values (5)');
  expect((await ibex(['backfill'], { env })).code).toBe(0);
  expect(await writers()).toHaveLength(1);
  pair.start();
  await pair.equal();
});

const redis = await redisForTests();

test.skipIf(redis === undefined)('bundles go through Redis', async () => {
  await create();
  const { sourceUrl, targetUrl } = pair.databases;
  const env = {
    IBEX_SOURCE_URL: sourceUrl,
    IBEX_TARGET_URL: targetUrl,
    IBEX_REDIS_URL: redis?.url as string,
  };
  expect((await ibex(['backfill'], { env })).code).toBe(0);
  await redis?.stop();
  expect(await writers()).toHaveLength(1);
  expect((await recordedChunks(pair)).map(({ rows }) => rows)).toEqual([300, 2, 50, 0, 99]);
});
