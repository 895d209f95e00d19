/** `ibex pause` and `ibex resume`: nothing is read meanwhile, nothing is lost, and everybody who asks is told. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Gate } from '../support/gate.ts';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

const env = () => ({ IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl });

beforeEach(async () => {
  databases = await freshDatabases(servers);
  await onBoth(databases, 'create table item (id int primary key, name text)');
  await databases.source.query(`insert into item select i, 'item ' || i from generate_series(1, 100) i`);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

async function json(code: number, ...args: string[]) {
  const result = await ibex([...args, '--json'], { env: env() });
  expect(result.code, `${args.join(' ')}: ${result.stdout}${result.stderr}`).toBe(code);
  return JSON.parse(result.stdout);
}

async function start(): Promise<RunningIbex> {
  daemon = startIbex(['run'], { env: env() });
  await daemon.waitForLog(/sync main runs/);
  return daemon;
}

async function countOnTarget(): Promise<number> {
  return Number((await databases.target.query('select count(*) from item')).rows[0].count);
}

/** Two heartbeats: a lane that goes on looks at the source many times meanwhile. */
async function letTimePass(): Promise<void> {
  const beat = async () => (await databases.target.query('select beat_at from ibex.holder')).rows[0].beat_at;
  for (let i = 0; i < 2; i++) {
    const before = await beat();
    await waitFor(async () => (await beat()) > before, { what: 'a heartbeat' });
  }
}

async function expectEqual(): Promise<void> {
  await waitUntilCaughtUp(databases, 120_000);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
}

test('a paused sync reads nothing, says so, stays paused when its daemon starts anew, and goes on exactly', async () => {
  const first = await start();
  await json(0, 'wait');
  const { paused } = await json(0, 'pause');
  expect(await json(0, 'pause')).toEqual({ sync: 'main', paused });
  await first.waitForLog(/sync main is paused since/);
  await databases.source.query(
    `update item set name = 'new' where id <= 50; insert into item values (1000, 'x')`,
  );
  await letTimePass();
  expect(await countOnTarget()).toBe(100);
  expect(await json(1, 'wait', '--timeout', '5m')).toMatchObject({ done: false, paused });
  const [status] = await json(1, 'status');
  expect(status).toMatchObject({ verdict: 'NOT READY', paused });
  expect(status.why).toEqual([
    expect.stringMatching(/^paused since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; `ibex resume`/),
  ]);

  await first.kill9();
  const second = await start();
  await second.waitForLog(/sync main is paused since/);
  await letTimePass();
  expect(await countOnTarget()).toBe(100);
  expect(await json(0, 'resume')).toEqual({ sync: 'main', resumed: true });
  expect(await json(0, 'resume')).toEqual({ sync: 'main', resumed: false });
  await expectEqual();
  await waitFor(async () => (await json(0, 'status'))[0].paused === null, { what: 'status to be READY' });
});

test('pausing needs no daemon, and commands that would copy or catch up end at once with the reason', async () => {
  await json(0, 'setup');
  const { paused } = await json(0, 'pause');
  const backfill = await json(1, 'backfill');
  expect(backfill).toMatchObject({ paused, tables: [{ table: 'public.item', state: 'pending', copied: 0 }] });
  const run = await ibex(['run', '--until-caught-up'], { env: env() });
  expect([run.code, run.logs.at(-1)?.msg]).toEqual([1, expect.stringMatching(/sync main is paused since/)]);
  expect(await countOnTarget()).toBe(0);
  await start();
  expect(await json(1, 'backfill')).toMatchObject({ paused });
  await letTimePass();
  expect(await countOnTarget()).toBe(0);
  await json(0, 'resume');
  expect(await json(0, 'backfill')).toMatchObject({ paused: null });
  await expectEqual();
});

test('a copy stops between two chunks, and goes on with the next one', async () => {
  const tables = ['a', 'b', 'c', 'd', 'e', 'f'];
  await onBoth(
    databases,
    tables.map((name) => `create table ${name} (id int primary key, pad text);`).join(''),
  );
  for (const name of tables)
    await databases.source.query(
      `insert into ${name} select i, repeat('x', 1000) from generate_series(1, 300) i`,
    );
  const gate = await Gate.shut(databases.target, 'c', 1);
  const running = startIbex(['run', '--jobs', '1'], { env: env() });
  daemon = running;
  const done = async () =>
    Number(
      (await databases.target.query('select count(*) from ibex.chunk where rows is not null')).rows[0].count,
    );
  await gate.reached();
  const underWay = await done();
  await json(0, 'pause');
  await running.waitForLog(/sync main is paused since/);
  await gate.open();
  await waitFor(async () => (await done()) > underWay, { what: 'the chunk that was under way to end' });
  const before = await done();
  await letTimePass();
  expect(await done()).toBe(before);
  expect(before).toBe(underWay + 1);
  await json(0, 'resume');
  await expectEqual();
  const { rows } = await databases.target.query(
    'select copied::int from ibex.target_table order by table_name',
  );
  expect(rows.map(({ copied }) => copied)).toEqual([300, 300, 300, 300, 300, 300, 100]);
});

test('a sync that is not there cannot be paused', async () => {
  const { code, said } = await ibex(['pause'], { env: env() });
  expect([code, said[0]]).toEqual([3, expect.stringMatching(/^error: sync main is not set up on /)]);
});
