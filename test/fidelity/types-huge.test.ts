/** Values of 100 MB, and what they cost the daemon in memory. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { redisForTests, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const redis = await redisForTests();
afterAll(() => redis?.stop());
const pair = usePair(servers);

const MIB = 1024 * 1024;
/** A smaller number is for trying things out. */
const SIZE = Number(process.env.TEST_HUGE_MIB ?? 100) * MIB;
/** What the daemon may take however large the rows are, and what this process has besides it. */
const ANYWAY = 256 * MIB;

const SCHEMA = `
  create table bytes (id int primary key, b bytea, note text);
  create table texts (id int primary key, t text, m text[]);
  alter table bytes alter b set storage external; alter table texts alter t set storage external`;

const BYTES = `decode(repeat('00ff41e9', ${SIZE / 4}), 'hex')`;
const TEXT = `repeat('naïve 🐐 ', ${Math.ceil(SIZE / 12)})`;

/** The largest growth of this process while something is done. */
async function growthDuring(work: () => Promise<void>): Promise<number> {
  const before = process.memoryUsage.rss();
  let most = before;
  let done = false;
  const watching = (async () => {
    while (!done) {
      most = Math.max(most, process.memoryUsage.rss());
      await sleep(10);
    }
  })();
  await work().finally(() => {
    done = true;
  });
  await watching;
  return most - before;
}

/** By their hashes: the rows themselves are too large to be compared as text. */
async function equal(): Promise<void> {
  await pair.sync.caughtUp(180_000);
  const digest = `select array_agg(md5(b) || coalesce(note, '') || length(b) order by id) from bytes
                  union all select array_agg(md5(t) || length(t) || md5(m::text) order by id) from texts`;
  const [here, there] = await Promise.all([pair.source.query(digest), pair.target.query(digest)]);
  expect(there.rows).toEqual(here.rows);
}

async function carryHugeRows(redis?: string): Promise<void> {
  await onBoth(pair.databases, SCHEMA);
  await pair.source.query(`insert into bytes values (1, ${BYTES}, 'copied')`);
  const growth = await growthDuring(async () => {
    pair.start(redis === undefined ? {} : { redis });
    await equal();
    await pair.source.query(`insert into texts select 1, ${TEXT}, '{}'`);
    await equal();
    // The large value is sent again with the row, and must not be lost when it did not change.
    await pair.source.query(`update bytes set note = 'changed'; update texts set m = '{é}'`);
    await equal();
  });
  expect(growth).toBeLessThan(ANYWAY + 4 * SIZE);
}

test('values of 100 MB arrive, and cost the daemon little more than the row', async () => {
  await carryHugeRows();
}, 400_000);

test.skipIf(redis === undefined)(
  'values of 100 MB arrive through Redis',
  async () => {
    await carryHugeRows(redis?.url);
  },
  400_000,
);
