/**
 * Whoever else carries the same sync: a daemon that froze and wakes up after another one took its place, one with a
 * restored copy of the target, a queue that hands a job out twice. Of all that they do there is one effect.
 */
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BULLMQ } from '../../src/queue/redis-server.ts';
import { Gate } from '../support/gate.ts';
import { type RunningIbex, startIbex } from '../support/ibex.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
const PATIENT = 90_000;
/** Without a key: a row that comes twice stays twice. */
const HISTORY = 'create table history (id int, v int)';

let databases: Databases;
const daemons: RunningIbex[] = [];

beforeEach(async () => {
  databases = await freshDatabases(servers);
  await databases.source.query(HISTORY);
  await databases.target.query(HISTORY);
});

afterEach(async () => {
  await Promise.all(daemons.splice(0).map((daemon) => daemon.kill9()));
  await databases.dropAll();
});

function start(redisUrl: string | undefined, targetUrl = databases.targetUrl): RunningIbex {
  const redis: Record<string, string> = redisUrl === undefined ? {} : { IBEX_REDIS_URL: redisUrl };
  const daemon = startIbex(['run', '--log-format', 'json'], {
    env: { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: targetUrl, ...redis },
  });
  daemons.push(daemon);
  return daemon;
}

async function write(from: number): Promise<void> {
  await databases.source.query(
    'insert into history select i, $1 from generate_series($1::int, $1::int + 99) i',
    [from],
  );
}

async function expectOnce(): Promise<void> {
  await waitUntilCaughtUp(databases, PATIENT);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
  for (const table of (await readSyncStatus(databases)).tables)
    expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
}

test('a daemon that froze in the middle of a batch finds its place taken when it wakes up', async () => {
  await using redis = await redisForTests();
  const frozen = start(redis?.url);
  await write(100);
  await expectOnce();
  const gate = await Gate.shut(databases.target, 'history', 250);
  await write(200);
  await gate.reached();
  frozen.signal('SIGSTOP');
  const second = start(redis?.url);
  // Ten seconds of silence, and what the frozen one had not committed is undone.
  await second.waitForLog(/sync main runs/, PATIENT);
  await gate.open();
  await write(300);
  await expectOnce();
  frozen.signal('SIGCONT');
  expect(await frozen.exited, frozen.stderr).toBe(3);
  expect(frozen.said[0]).toMatch(/being run by another daemon|taken over by another daemon/);
  await write(400);
  await expectOnce();
  expect(second.running).toBe(true);
});

test('a job that the queue hands out twice is carried once', async (context) => {
  await using redis = await redisForTests();
  if (redis === undefined) return context.skip('no redis-server on the PATH');
  const daemon = start(redis.url);
  await write(100);
  await expectOnce();
  const client = new Redis(redis.url, { maxRetriesPerRequest: null });
  const jobs = new Queue('main', { connection: client, ...BULLMQ });
  const gate = await Gate.shut(databases.target, 'history', 250);
  await write(200);
  await gate.reached();
  // What BullMQ does with a job whose worker stalled, and once more when the first run is over.
  const [job] = await jobs.getActive();
  if (job?.id === undefined) throw new Error('no job is under way');
  const again = { ...job.data };
  await client.del(`${jobs.toKey(job.id)}:lock`);
  await jobs.add('batch', again, {
    jobId: 'again-1',
    attempts: 1,
    removeOnComplete: true,
    removeOnFail: true,
  });
  await gate.open();
  await waitFor(async () => (await jobs.getJobCounts('wait', 'active')).wait === 0, {
    what: 'the second run to begin',
    timeout: PATIENT,
  });
  await jobs.add('batch', again, {
    jobId: 'again-2',
    attempts: 1,
    removeOnComplete: true,
    removeOnFail: true,
  });
  await write(300);
  await expectOnce();
  await jobs.close();
  client.disconnect();
  expect(daemon.running).toBe(true);
});

test('a session that came no further than the lock, and whose daemon the network took, is ended', async () => {
  const url = new URL(databases.targetUrl);
  url.searchParams.set('application_name', 'ibex:main:lease');
  const left = new pg.Client({ connectionString: url.href });
  const ended = new Promise((resolve) => {
    left.on('error', resolve);
  });
  await left.connect();
  await left.query(`select pg_advisory_lock(hashtext('ibex'), hashtext('lane main'))`);
  const daemon = start(undefined);
  await daemon.waitForLog(/waiting for another session to let go/);
  await write(1);
  await expectOnce();
  await expect(ended).resolves.toMatchObject({ code: '57P01' });
});

test('a restored copy of the target is not served beside the target: it would miss what the other acknowledges', async () => {
  const first = start(undefined);
  await write(100);
  await expectOnce();
  const { name } = (await databases.target.query('select current_database() as name')).rows[0];
  const copy = `${name}_copy`;
  const { targetAdmin } = databases;
  await targetAdmin.query(`create database ${copy} owner ${name}`);
  const copyUrl = Object.assign(new URL(databases.targetUrl), { pathname: copy }).href;
  try {
    const second = start(undefined, copyUrl);
    expect(await second.exited, second.stderr).toBe(3);
    expect(second.said[0]).toMatch(/is being read for sync main by a daemon with another target/);
    expect(second.said[1]).toMatch(/another name/);
    expect(first.running).toBe(true);
    await write(200);
    await expectOnce();
    await first.stop();
  } finally {
    await targetAdmin.query(`drop database ${copy}`);
  }
});

test('a backfill that saw no daemon, and meets one where it wants to begin, leaves the work to it', async () => {
  const first = start(undefined);
  await expectOnce();
  await first.stop();
  const locker = new pg.Client({ connectionString: databases.sourceUrl });
  await locker.connect();
  await locker.query('begin; lock table ibex.source_sync in access exclusive mode');
  const { sourceUrl, targetUrl } = databases;
  const backfill = startIbex(['backfill', '--restart', '--json'], {
    env: { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl },
  });
  daemons.push(backfill);
  const waits = async () =>
    (await locker.query(`select from pg_locks where relation = 'ibex.source_sync'::regclass and not granted`))
      .rows.length > 0;
  await waitFor(waits, { what: 'the backfill to begin', timeout: PATIENT });
  backfill.signal('SIGSTOP');
  await locker.query('commit');
  await locker.end();
  await write(1);
  start(undefined);
  await expectOnce();
  backfill.signal('SIGCONT');
  expect([await backfill.exited, backfill.stdout]).toEqual([0, expect.stringContaining('public.history')]);
  await expectOnce();
});
