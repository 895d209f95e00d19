/** `ibex worker`: chunks of one copy shared by processes of which any may die, freeze, or lose Redis. */
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ibex, type RunningIbex, STOPS_WITHIN_MS, startIbex } from '../support/ibex.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { onBoth, readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
const redis = await redisForTests();
afterAll(() => redis?.stop());

let databases: Databases;
const processes: RunningIbex[] = [];

/** Each partition is a chunk. */
const CHUNKS = 12;
const ROWS = 300 * CHUNKS;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  const leaves = Array.from(
    { length: CHUNKS },
    (_, i) => `create table part_${i} partition of whole for values from (${300 * i}) to (${300 * (i + 1)});`,
  );
  await onBoth(
    databases,
    `create table whole (id int primary key, pad text) partition by range (id); ${leaves.join('\n')}`,
  );
  await databases.source.query(
    `insert into whole select i, repeat('x', 1000) from generate_series(0, ${ROWS - 1}) i`,
  );
});

afterEach(async () => {
  await Promise.all(processes.splice(0).map((process) => process.kill9()));
  await databases.dropAll();
});

/** A process that copies one chunk at a time, at a rate in kilobytes a second: a chunk has 300 of them. */
function start(command: 'run' | 'worker', rate: number): RunningIbex {
  const limits = ['--jobs', '1', '--limit-mbps', String(rate / 1000)];
  const process = startIbex([command, ...limits, '--log-level', 'debug'], {
    env: {
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: databases.targetUrl,
      IBEX_REDIS_URL: redis?.url as string,
    },
  });
  processes.push(process);
  return process;
}

/** Workers that are there before there is anything to copy. */
async function startWorkers(...rates: readonly number[]): Promise<RunningIbex[]> {
  const env = { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl };
  expect((await ibex(['setup'], { env })).code).toBe(0);
  const workers = rates.map((rate) => start('worker', rate));
  for (const worker of workers) await worker.waitForLog(/works for sync main/);
  return workers;
}

const copiedBy = (worker: RunningIbex) =>
  worker.logs.filter(({ msg }) => /^chunk .*: copied/.test(msg)).length;

/** Everything is there, and nothing was copied twice. */
async function expectExact(): Promise<void> {
  await waitUntilCaughtUp(databases, 120_000);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
  const [table] = (await readSyncStatus(databases)).tables;
  expect(table).toMatchObject({ state: 'streaming', copied: ROWS, chunks: { done: CHUNKS, all: CHUNKS } });
}

/** Waits until so many workers are in the middle of a chunk. */
async function busyWorkers(count: number): Promise<void> {
  const read = async () =>
    (
      await databases.target.query(
        `select from pg_stat_activity where application_name like 'ibex:main:copy-%' and query ~ '^copy ' and state = 'active'`,
      )
    ).rowCount;
  await waitFor(async () => (await read()) === count, { what: `${count} workers to be in a chunk` });
}

describe.skipIf(redis === undefined)('workers', () => {
  test('share the chunks of one table, also when Redis loses everything and one of them is stopped', async () => {
    const workers = (await startWorkers(300, 300)) as [RunningIbex, RunningIbex];
    const daemon = start('run', 300);
    await waitFor(() => workers.every((worker) => copiedBy(worker) > 0), { what: 'both to have copied' });
    const client = new Redis(redis?.url as string);
    await client.flushall();
    client.disconnect();
    expect((await workers[0].stop()).code, workers[0].stderr).toBe(0);
    await expectExact();
    expect((await workers[1].stop()).code, workers[1].stderr).toBe(0);
    expect(daemon.logs.filter(({ msg }) => /sync main runs/.test(msg))).toHaveLength(1);
  });

  test('that die or freeze in the middle of a chunk have it redone by others, and one that wakes up does no harm', async () => {
    const [killed, frozen] = (await startWorkers(10, 10)) as [RunningIbex, RunningIbex];
    // Slow as well: there is something to copy until a third worker has come.
    start('run', 30);
    await busyWorkers(2);
    // The daemon has four sessions on the source: there is no room for a third worker before one of the two is gone.
    const third = start('worker', 300);
    await third.waitForLog(/sessions on the source, and 6 are allowed/);
    frozen.signal('SIGSTOP');
    await killed.kill9();
    await expectExact();
    frozen.signal('SIGCONT');
    await frozen.waitForLog(/connection/);
    await databases.source.query('update whole set pad = id::text where id < 1000');
    await waitUntilCaughtUp(databases, 120_000);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
    expect([frozen.running, third.running]).toEqual([true, true]);
  });

  test('have no reason to take the place of a daemon that was stopped, whatever it was doing', async () => {
    const daemon = start('run', 3000);
    await expectExact();
    await databases.target.query('begin; lock table whole in access exclusive mode');
    await databases.source.query('update whole set pad = id::text where id < 10');
    const isWaiting = async () =>
      (
        await databases.targetAdmin.query(
          `select from pg_stat_activity where application_name = 'ibex:main:apply' and wait_event_type = 'Lock'`,
        )
      ).rowCount === 1;
    await waitFor(isWaiting, { what: 'a batch to wait for the lock' });
    const { code, tookMs } = await daemon.stop();
    await databases.target.query('rollback');
    expect([code, tookMs < STOPS_WITHIN_MS]).toEqual([0, true]);
    expect((await databases.target.query('select from ibex.holder')).rowCount).toBe(0);
  });

  test('go on in the place of a daemon that died', async () => {
    const daemon = start('run', 3000);
    await expectExact();
    const worker = start('worker', 3000);
    await worker.waitForLog(/works for sync main/);
    await daemon.kill9();
    await databases.source.query('update whole set pad = id::text where id < 1000');
    // The minute that its supervisor has to start it again.
    await databases.target.query(`update ibex.holder set beat_at = beat_at - interval '1 minute'`);
    await worker.waitForLog(/this worker goes on in its place/);
    await waitUntilCaughtUp(databases, 120_000);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
  });
});
