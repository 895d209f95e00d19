/**
 * That neither reading a batch nor looking at the catalogs ever stands in the way of an application so that one of both
 * has to fail: the application looks for deadlocks before anybody else does, and so would be the one. And that whoever
 * keeps a table from being armed or disarmed is named, while the application writes on and all other tables go on.
 */
import pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { briefly } from '../../src/capture/trigger/arming.ts';
import { keepSource } from '../../src/engine/source-hold.ts';
import { Session } from '../../src/postgres/session.ts';
import { type IbexResult, ibex } from '../support/ibex.ts';
import { startNetwork } from '../support/network.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** In a transaction that has locked a table already. Only a superuser may say when to look for deadlocks. */
async function applicationThatLocks(table: string): Promise<pg.Client> {
  const application = pair.databases.sourceAdmin;
  await application.query(
    `set deadlock_timeout = '200ms'; begin; lock table only ${table} in access exclusive mode`,
  );
  return application;
}

/** How many sessions have or want the table. */
async function locksOf(table: string): Promise<number> {
  const { rows } = await pair.source.query('select from pg_locks where relation = $1::regclass', [table]);
  return rows.length;
}

/** A session of that name waits for a lock on the table. */
async function waits(application: string, table: string): Promise<void> {
  await waitFor(
    async () => {
      const { rows } = await pair.source.query(
        `select from pg_locks l join pg_stat_activity a using (pid)
          where l.relation = $1::regclass and not l.granted and a.application_name = $2`,
        [table, application],
      );
      return rows.length > 0;
    },
    { what: `${application} to wait for ${table}`, timeout: 90_000 },
  );
}

/** One of our sessions waits for a lock on the table. */
const waitingFor = (table: string, part: string) => waits(`ibex:main:${part}`, table);

const PARTITIONED = `
  create table t (id int primary key, v text) partition by range (id);
  create table p1 partition of t for values from (0) to (100);
  create table p2 partition of t for values from (100) to (200);`;
const PARTITIONED_ROWS = "insert into t select i, 'a' from generate_series(0, 199, 10) i";

test('an application that locks one table after the other is not made to fail by a batch that reads both', async () => {
  await pair.inStep(
    'create table child (id int primary key, v text); create table parent (id int primary key, v text)',
    "insert into child values (1, 'a'); insert into parent values (1, 'a')",
  );
  await pair.sync.stop();
  await pair.source.query("insert into child values (2, 'b'); insert into parent values (2, 'b')");
  const application = await applicationThatLocks('parent');
  pair.start();
  await waitingFor('parent', 'read');
  await application.query('truncate child; commit');
  await pair.source.query("insert into child values (3, 'c')");
  await pair.equal();
  expect((await pair.target.query('select id from child')).rows).toEqual([{ id: 3 }]);
});

test('a look at partitions that changed never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS);
  const application = await applicationThatLocks('t');
  await pair.source.query('truncate p1; truncate p2');
  await waitingFor('t', 'control');
  await application.query(
    'lock table p1, p2 in access exclusive mode; alter table t detach partition p2; commit',
  );
  await pair.source.query("drop table p2; insert into t values (1, 'b')");
  await pair.target.query('alter table t detach partition p2; drop table p2');
  await pair.equal();
  expect((await pair.target.query('select id from t')).rows).toEqual([{ id: 1 }]);
});

test('the question who has locked a partition never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS);
  const application = await applicationThatLocks('p2');
  await pair.source.query("update p1 set v = 'b'");
  await waitingFor('p2', 'read');
  await application.query('lock table p1 in access exclusive mode; commit');
  await pair.equal();
});

test('a partition that came while a batch is read never makes the application wait for ever', async () => {
  const { source } = pair;
  await onBoth(pair.databases, PARTITIONED);
  await source.query(`create function slow(text) returns text immutable language plpgsql as $$
    begin if $1 = 'slow' then perform pg_sleep(1); end if; return $1; end $$`);
  pair.start({ carry: { 'public.t': { select: { v: 'public.slow(v)' } } } });
  await pair.equal();
  const created = 'create table p3 partition of t for values from (200) to (300)';
  await pair.target.query(created);
  await source.query(`begin; ${created}; insert into t values (200, 'slow'); commit`);
  await waitFor(
    async () =>
      (
        await source.query(
          "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
        )
      ).rowCount === 1,
    { what: 'the batch to be read' },
  );
  // The server sees no deadlock when a session waits for it that only waits for an answer to another one.
  await source.query("set statement_timeout = '200s'; truncate p3");
  await source.query("insert into t values (201, 'quick')");
  await pair.equal();
});

test('a copy that reads all partitions at once never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED.replace(' primary key', ''), PARTITIONED_ROWS);
  await pair.sync.stop();
  // As if the daemon had been killed before its only chunk was copied.
  await pair.target.query(`truncate t; update ibex.chunk set rows = null;
    update ibex.target_table t set state = 'copying', floor = c.position from ibex.checkpoint c where c.sync = t.sync`);
  const application = await applicationThatLocks('p2');
  pair.start();
  await waitingFor('p2', 'copy');
  await application.query('lock table p1 in access exclusive mode; commit');
  await pair.equal();
});

/** Sessions of the application that a test began. */
const sessions: pg.Client[] = [];

afterEach(async () => {
  for (const session of sessions.splice(0)) await session.end();
});

async function session(name: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: pair.databases.sourceUrl, application_name: name });
  // Ended with its database when a test fails.
  client.on('error', () => undefined);
  await client.connect();
  sessions.push(client);
  return client;
}

/** An application that writes one statement after the other, each waiting for its locks as long as it takes. */
class Writer {
  done = 0;
  #stopped = false;
  #running: Promise<void> = Promise.resolve();

  async start(table: string): Promise<void> {
    const client = await session('writer');
    this.#running = (async () => {
      while (!this.#stopped) {
        await client.query(`update ${table} set v = coalesce(v, 0) + 1 where id = 1`);
        this.done += 1;
      }
    })();
    this.#running.catch(() => undefined);
  }

  /** Whatever waits for the table, the application gets on. */
  async getsOn(): Promise<void> {
    const before = this.done;
    await waitFor(() => this.done >= before + 20, { what: 'the application to get on', timeout: 60_000 });
  }

  /** Rejects if one of its statements failed. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }
}

/** Waits of ours that are long enough to be seen, and still far below the server's deadlock_timeout. */
const LONG_WAITS = '400';

/** Begins in the middle of a wait of ours for the table. */
async function getsOnWhileWaiting(writer: Writer, table: string, part: string): Promise<void> {
  await waitingFor(table, part);
  await writer.getsOn();
}

const pidOf = async (client: pg.Client): Promise<number> =>
  (await client.query('select pg_backend_pid() as pid')).rows[0].pid;

/** How a blocker is named. */
const named = (pid: number, application: string, state: string) =>
  new RegExp(
    `pid ${pid} \\(app_\\w+, ${state} for \\d+ s, application ${application}, query since \\d{4}-\\d\\d-\\d\\d [\\d:]+ UTC\\)`,
  );

function cli(...args: string[]): Promise<IbexResult> {
  return ibex(args, {
    env: { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl },
    timeout: 240_000,
  });
}

const FOUR = ['a_free', 'a_read', 'an_idle', 'a_vacuumed'];
const FOUR_TABLES = FOUR.map((name) => `create table ${name} (id int primary key, v int)`).join('; ');
const FOUR_ROWS = FOUR.map((name) => `insert into ${name} select i, i from generate_series(1, 10) i`).join(
  '; ',
);

/** A long report, a writer that forgot to commit, and what a vacuum against wraparound holds and does not give up. */
async function standInTheWay() {
  const [reader, idle, vacuum] = [
    await session('report'),
    await session('forgetful'),
    await session('vacuum'),
  ];
  await reader.query('begin isolation level repeatable read; select count(*) from a_read');
  await idle.query('begin; update an_idle set v = 0 where id = 2');
  await vacuum.query('begin; lock table a_vacuumed in share update exclusive mode');
  return { reader, idle, vacuum };
}

async function armedTables(): Promise<string[]> {
  const { rows } = await pair.source.query(
    `select distinct tgrelid::regclass::text as name from pg_trigger where tgname ~ '^ibex_' order by 1`,
  );
  return rows.map(({ name }) => name);
}

test('arming beside a long reader, an idle writer and a vacuum: the application writes on, the blockers are named, the rest goes on', async () => {
  await onBoth(pair.databases, FOUR_TABLES);
  await pair.source.query(FOUR_ROWS);
  const { idle, vacuum } = await standInTheWay();
  const [besideIdle, besideVacuum] = [new Writer(), new Writer()];
  await besideIdle.start('an_idle');
  await besideVacuum.start('a_vacuumed');
  const idleName = named(await pidOf(idle), 'forgetful', 'idle in transaction');
  const vacuumName = named(await pidOf(vacuum), 'vacuum', 'idle in transaction');
  const { code, stdout } = await cli('setup', '--arm-timeout', '1s');
  expect(code).toBe(1);
  expect(stdout).toMatch(/public\.a_free: armed/);
  expect(stdout).toMatch(/public\.a_read: armed/);
  expect(stdout.split('\n').find((line) => line.startsWith('public.an_idle'))).toMatch(idleName);
  expect(stdout.split('\n').find((line) => line.startsWith('public.a_vacuumed'))).toMatch(vacuumName);
  const lines: string[] = [];
  pair.start({ logTo: (line) => lines.push(line), flags: { lockTimeoutMs: LONG_WAITS } });
  await getsOnWhileWaiting(besideIdle, 'an_idle', 'control');
  await getsOnWhileWaiting(besideVacuum, 'a_vacuumed', 'control');
  await waitFor(async () => (await pair.target.query('select from a_free')).rowCount === 10, {
    what: 'the free table',
    timeout: 60_000,
  });
  await waitFor(
    async () => {
      const { tables } = await pair.sync.status();
      const reasonOf = (name: string) => tables.find(({ table }) => table === `public.${name}`)?.reason ?? '';
      return idleName.test(reasonOf('an_idle')) && vacuumName.test(reasonOf('a_vacuumed'));
    },
    { what: 'the status to name both', timeout: 60_000 },
  );
  expect(lines.some((line) => idleName.test(line))).toBe(true);
  await idle.query('commit');
  await vacuum.query('commit');
  await besideIdle.stop();
  await besideVacuum.stop();
  await pair.becomesEqual();
  await pair.equal();
});

test('disarming beside them while it streams, and for good: the application writes on, and what is left is told', async () => {
  await pair.inStep(FOUR_TABLES, FOUR_ROWS);
  const { reader, idle, vacuum } = await standInTheWay();
  const writer = new Writer();
  await writer.start('a_read');
  const refused = await cli('tables', 'remove', 'public.a_read', '--arm-timeout', '1s');
  expect(refused.code).toBe(1);
  expect(refused.stdout).toMatch(named(await pidOf(reader), 'report', 'idle in transaction'));
  const limits = ['--arm-timeout', '10m', '--lock-timeout-ms', LONG_WAITS];
  const removal = cli('tables', 'remove', 'public.a_read', ...limits);
  await getsOnWhileWaiting(writer, 'a_read', 'tables');
  await reader.query('commit');
  expect((await removal).code).toBe(0);
  await pair.source.query('update a_free set v = 100');
  await waitFor(async () => (await pair.target.query('select from a_free where v = 100')).rowCount === 10, {
    what: 'the other tables to stream on',
    timeout: 60_000,
  });
  await pair.sync.stop();
  await reader.query('begin; select from a_free');
  const torn = await cli('teardown', '--yes', '--arm-timeout', '1s');
  expect(torn.code).toBe(1);
  for (const [client, name] of [
    [reader, 'report'],
    [idle, 'forgetful'],
    [vacuum, 'vacuum'],
  ] as const) {
    expect(torn.stdout).toMatch(named(await pidOf(client), name, 'idle in transaction'));
  }
  expect(await armedTables()).toEqual(['a_free', 'a_vacuumed', 'an_idle']);
  for (const client of [reader, idle, vacuum]) await client.query('commit');
  await writer.stop();
  expect((await cli('teardown', '--yes')).code).toBe(0);
  expect(await armedTables()).toEqual([]);
});

/** In the order in which we lock them. */
async function partitionsAsLocked(): Promise<[first: string, last: string]> {
  const { rows } = await pair.source.query(
    `select m::regclass::text as name from ibex.members('t'::regclass) m where m <> 't'::regclass`,
  );
  return [rows[0].name, rows[1].name];
}

test('arming a partitioned table anew while it streams never makes the application the victim of a deadlock', async () => {
  const { sourceAdmin } = pair.databases;
  const { rows } = await sourceAdmin.query('select current_database() as name');
  // Far shorter than the time that we are told to wait, so that the application would be the one to find it.
  await sourceAdmin.query(`alter database ${rows[0].name} set deadlock_timeout = '8s'`);
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS, { flags: { lockTimeoutMs: '60000' } });
  const [first, last] = await partitionsAsLocked();
  const [application, other] = [await session('application'), await session('other')];
  await application.query(`begin; update ${last} set v = 'b'`);
  await other.query(`begin; update ${first} set v = 'b'`);
  const root = (await pair.source.query("select 't'::regclass::oid as oid")).rows[0].oid;
  await pair.source.query(`alter table only t disable trigger "~ibex_move_${root}"`);
  await waitingFor(first, 'control');
  // The application waits for the table, which is ours; then we come to the last partition, which is the application's.
  const written = application.query("insert into t values (1, 'b'); commit");
  written.catch(() => undefined);
  await waits('application', 't');
  await other.query('commit');
  await written;
  await pair.becomesEqual();
  await pair.equal();
});

test('all partitions of a table together are waited for no longer than one', async () => {
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS);
  await pair.sync.stop();
  const [arming, reader] = [await session('arming'), await session('reader')];
  const [first] = await partitionsAsLocked();
  await reader.query(`begin; lock table ${first} in access exclusive mode`);
  await arming.query(`begin; set local lock_timeout = '60s'`);
  const locked = arming.query(`select ibex.lock_members('t'::regclass, 'share row exclusive')`);
  await waits('arming', first);
  const seen = performance.now();
  await reader.query('select');
  const waited = performance.now() - seen;
  await reader.query('commit');
  await locked;
  const { rows } = await arming.query(
    `select setting::int as left from pg_settings where name = 'lock_timeout'`,
  );
  expect(rows[0].left).toBeLessThanOrEqual(60_000 - waited);
});

test('a lock of a table goes, if the network takes who had it and does not tell the server', async () => {
  const { sourceUrl } = pair.databases;
  await pair.source.query('create table t (id int)');
  const { oid } = (await pair.source.query(`select 't'::regclass::oid::int8::float8 as oid`)).rows[0];
  const network = await startNetwork(servers.source);
  const session = await Session.open({ url: network.through(sourceUrl), name: 'gone' });
  const lost = briefly(session, oid, 100, 'share row exclusive', async () => {
    await session.run('lock table public.t in share row exclusive mode');
    network.freeze(true);
    await session.run('select');
  }).catch(() => undefined);
  await waitFor(async () => (await locksOf('t')) === 1, { what: 'the lock' });
  await pair.source.query('insert into t values (1)');
  session.abandon();
  await lost;
  await network.close();
});

test('who shows that he lives over a session keeps out of the transactions of others, which may fail', async () => {
  const { sourceUrl, sourceAdmin } = pair.databases;
  await pair.source.query('create table t (id int)');
  await sourceAdmin.query('begin; lock table t');
  await using session = await Session.open({ url: sourceUrl, name: 'ibex:main:control' });
  const locking = session.transaction('', () => session.run('lock table public.t in share mode'));
  const ended = expect(locking).rejects.toThrow('canceling statement');
  await waitingFor('t', 'control');
  const stop = new AbortController();
  const beating = keepSource(session, stop.signal);
  await pair.source.query('select pg_cancel_backend(pid) from pg_locks where not granted');
  await ended;
  stop.abort();
  await beating;
  await sourceAdmin.query('rollback');
});
