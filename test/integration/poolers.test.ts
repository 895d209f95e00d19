/**
 * What stands between Ibex and a server, or is set for its role: poolers in each of their modes, time-outs of every kind.
 * It works, or it is refused with the reason and a remedy, and the application's connections are as they were.
 */
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import {
  findPgBouncer,
  type PgBouncer,
  type PgBouncerOptions,
  startPgBouncer,
} from '../support/pgbouncer.ts';
import { type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

const servers = await useServers();
const program = findPgBouncer();

let databases: Databases;
let poolers: PgBouncer[];
let sync: RunningSync | undefined;

beforeEach(async () => {
  poolers = [];
  sync = undefined;
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await sync?.stop();
  await Promise.all(poolers.map((pooler) => pooler.stop()));
  await databases.dropAll();
});

type Side = 'source' | 'target';

async function pooler(
  side: Side,
  mode: PgBouncerOptions['mode'],
  settings: Record<string, string> = {},
): Promise<PgBouncer> {
  const { username, password } = new URL(side === 'source' ? databases.sourceUrl : databases.targetUrl);
  const users = { [username]: decodeURIComponent(password) };
  const started = await startPgBouncer(program as string, { to: servers[side].port, mode, settings, users });
  poolers.push(started);
  return started;
}

/** The databases, with one side reached by way of a pooler. */
function via(side: Side, { through }: PgBouncer, query = ''): Databases {
  const { sourceUrl, targetUrl } = databases;
  return side === 'source'
    ? { ...databases, sourceUrl: through(sourceUrl) + query }
    : { ...databases, targetUrl: through(targetUrl) + query };
}

const TABLE = 'create table t (id int primary key, v text)';

async function fill(): Promise<void> {
  await onBoth(databases, TABLE);
  await databases.source.query(`insert into t select i, 'row ' || i from generate_series(1, 5000) i`);
}

async function change(): Promise<void> {
  await databases.source.query(`update t set v = v || '!' where id % 3 = 0; delete from t where id % 10 = 0`);
}

describe.skipIf(program === undefined)('PgBouncer', () => {
  test.each(['source', 'target'] as const)('in session mode before the %s works', async (side) => {
    await fill();
    // Nothing is cleaned up between two clients: what the last one left, the next one finds.
    const through = via(side, await pooler(side, 'session', { server_reset_query: "''" }));
    sync = startSync(through);
    await expectEqual(through, sync);
    await change();
    await expectEqual(through, sync);
    await sync.stop();
    // With the backends that the first daemon left, its temporary tables included.
    sync = startSync(through);
    await change();
    await expectEqual(through, sync);
    await sync.stop();
    sync = undefined;
    const url = side === 'source' ? through.sourceUrl : through.targetUrl;
    expect(await settingsOf(url)).toEqual(await settingsOf(directUrl(side)));
  });

  test.each(['source', 'target'] as const)('in transaction mode before the %s is refused', async (side) => {
    await fill();
    const through = via(side, await pooler(side, 'transaction'));
    const url = side === 'source' ? through.sourceUrl : through.targetUrl;
    const app = await connect(url);
    const before = await settingsOf(url);
    const env = { IBEX_SOURCE_URL: through.sourceUrl, IBEX_TARGET_URL: through.targetUrl };
    for (const command of ['setup', 'run', 'status']) {
      const { code, said } = await ibex([command], { env });
      expect(code, command).toBe(3);
      expect(said.join('\n'), command).toMatch(
        /^error: 127\.0\.0\.1:\d+\/\w+: a pooler stands before the server .*\n {2}.*pool_mode = session/,
      );
    }
    // The settings of the connections that the application shares with us were left alone.
    expect(await settingsOf(url)).toEqual(before);
    expect((await app.query('select count(*)::int as n from t')).rows).toEqual([
      { n: side === 'source' ? 5000 : 0 },
    ]);
    await app.end();
  });

  test('in transaction mode is recognised while the application keeps its backends busy, and in turn', async () => {
    const settings = { default_pool_size: '6', server_round_robin: '1' };
    const { sourceUrl } = via('source', await pooler('source', 'transaction', settings));
    const app = await Promise.all([connect(sourceUrl), connect(sourceUrl)]);
    let stop = false;
    const busy = app.map(async (client) => {
      while (!stop) await client.query('begin; select pg_sleep(0.002); commit');
    });
    try {
      await expect(Session.open({ url: sourceUrl, name: 'ibex:test:probe' })).rejects.toMatchObject({
        kind: 'unsupported',
      });
    } finally {
      stop = true;
      await Promise.all(busy);
      await Promise.all(app.map((client) => client.end()));
    }
  });

  test('in statement mode is refused', async () => {
    const { sourceUrl } = via('source', await pooler('source', 'statement'));
    await expect(Session.open({ url: sourceUrl, name: 'ibex:test:probe' })).rejects.toMatchObject({
      kind: 'unsupported',
      hint: expect.stringContaining('pool_mode = session'),
    });
  });

  test('a session that is given another backend all the same begins no transaction on it', async () => {
    const { sourceUrl } = via('source', await pooler('source', 'session'));
    const session = await Session.open({ url: sourceUrl, name: 'ibex:test:probe' });
    expect(await session.transaction('', () => session.row('select 1 as one'))).toEqual({ one: 1 });
    // As another backend would be: without what we have set.
    await session.run('discard all');
    await expect(session.transaction('', async () => 'reached')).rejects.toMatchObject({
      kind: 'unsupported',
    });
  });

  test('what somebody else left on a backend is not met', async () => {
    const { sourceUrl } = via('source', await pooler('source', 'session', { server_reset_query: "''" }));
    const app = await connect(sourceUrl);
    const { rows } = await app.query('select pg_backend_pid() as pid');
    await app.query('create temporary table left_behind (); select pg_advisory_lock(1)');
    await app.end();
    await using session = await Session.open({ url: sourceUrl, name: 'ibex:test:left' });
    expect(
      await session.row(
        `select pg_backend_pid() as pid, to_regclass('pg_temp.left_behind') as "table",
                (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks`,
      ),
    ).toEqual({ pid: rows[0].pid, table: null, locks: 0 });
  });

  test('startup options that it does not take are set afterwards', async () => {
    const { sourceUrl } = via(
      'source',
      await pooler('source', 'session'),
      '?options=-c%20work_mem%3D7MB%20--app.x%3Da%5C%20b',
    );
    await using session = await Session.open({ url: sourceUrl, name: 'ibex:test:options' });
    expect(
      await session.row(`select current_setting('work_mem') as work_mem, current_setting('app.x') as x`),
    ).toEqual({ work_mem: '7MB', x: 'a b' });
    await expect(
      Session.open({ url: sourceUrl.replace(/options=.*/, 'options=-B%2010'), name: 'ibex:test:options' }),
    ).rejects.toMatchObject({ kind: 'config', hint: expect.stringContaining('-c name=value') });
  });

  test('a pool that is too small says so, with what to do', async () => {
    await fill();
    const settings = { default_pool_size: '2', query_wait_timeout: '1' };
    const through = via('source', await pooler('source', 'session', settings));
    const { sourceUrl, targetUrl } = through;
    const daemon = startIbex(['run'], { env: { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl } });
    try {
      await waitFor(() => /query_wait_timeout/.test(daemon.stderr) && /pool_size/.test(daemon.stderr), {
        what: 'the daemon to say that the pool is used up',
        timeout: 90_000,
      });
      expect(daemon.running).toBe(true);
    } finally {
      await daemon.kill9();
    }
  });
});

test('a role whose every time-out is short does not end, or hurry, a sync', async () => {
  const role = new URL(databases.sourceUrl).username;
  const limits = {
    statement_timeout: '150ms',
    lock_timeout: '40ms',
    idle_session_timeout: '150ms',
    idle_in_transaction_session_timeout: '150ms',
    transaction_timeout: '250ms',
  };
  for (const admin of [databases.sourceAdmin, databases.targetAdmin])
    for (const [name, value] of Object.entries(limits))
      await admin.query(`alter role ${role} set ${name} = '${value}'`);
  await fill();
  // A statement on the target that takes longer than any of the limits, and locks that are waited for.
  await databases.targetAdmin.query(
    `create function slow(v text) returns boolean language sql volatile as 'select pg_sleep(0.4) is not null';
     alter table t add constraint takes_time check (v <> 'slow' or slow(v)) not valid`,
  );
  sync = startSync(databases);
  await expectEqual(databases, sync);
  await databases.source.query(`insert into t values (-1, 'slow')`);
  await expectEqual(databases, sync);
  const lock = await connect(databases.targetUrl);
  await lock.query(
    'set idle_in_transaction_session_timeout = 0; set transaction_timeout = 0; set statement_timeout = 0',
  );
  await lock.query('begin; lock table t in access exclusive mode');
  await databases.source.query(`insert into t values (-2, 'waits')`);
  await lock.query('select pg_sleep(0.5)');
  await lock.query('commit');
  await lock.end();
  await expectEqual(databases, sync);
});

function directUrl(side: Side): string {
  return side === 'source' ? databases.sourceUrl : databases.targetUrl;
}

/** What a client of the application finds set when its transaction begins. */
async function settingsOf(url: string): Promise<unknown> {
  const client = await connect(url);
  const { rows } = await client.query(
    `select name, setting from pg_settings
      where name in ('search_path', 'row_security', 'statement_timeout', 'jit', 'extra_float_digits', 'DateStyle',
                     'bytea_output', 'xmloption', 'synchronous_commit', 'max_parallel_workers_per_gather')
      order by name`,
  );
  await client.end();
  return rows;
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
