/**
 * The source's disk comes first: what is over its budget is given up, the application lives on, nothing is lost in silence,
 * and one command goes on from there. With a daemon, and without one.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth, readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

const SCHEMA = `create table big (id int primary key, v int not null default 0);
  create table small (id int primary key, v int not null default 0);`;
const ROWS = `insert into big select i from generate_series(1, 30000) i;
  insert into small select i from generate_series(1, 10) i`;
/** Its deltas take more than the megabyte that is the budget here. */
const MUCH = 'update big set v = v + 1';

const env = () => ({ IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl });

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

async function start(...more: string[]): Promise<RunningIbex> {
  daemon = startIbex(['run', '--max-delta-bytes', '1MB', '--log-level', 'debug', ...more], { env: env() });
  await daemon.waitForLog(/sync main runs/);
  return daemon;
}

/** Both tables are in step, the daemon runs. */
async function inStep(): Promise<RunningIbex> {
  await onBoth(databases, SCHEMA);
  await databases.source.query(ROWS);
  const running = await start();
  await waitUntilCaughtUp(databases, 120_000);
  return running;
}

async function expectEqual(): Promise<void> {
  await waitUntilCaughtUp(databases, 120_000);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
}

interface Kept {
  readonly table: string;
  readonly bytes: number;
  readonly triggers: number;
  readonly lost: boolean;
}

/** What there is for each table on the source, asked of its catalogs. */
async function kept(): Promise<Record<string, Kept>> {
  const { rows } = await databases.source.query<Kept>(
    `select k.table_name as table, t.given_up_at is not null as lost,
            (select coalesce(sum(pg_relation_size(c.oid)), 0)::int from pg_class c
              where c.relnamespace = 'ibex'::regnamespace and c.relname ~ ('^delta_' || k.relid || '_')) as bytes,
            (select count(*)::int from pg_trigger g where g.tgrelid = k.relid and not g.tgisinternal) as triggers
       from ibex.captured k left join ibex.source_table t on t.relid = k.relid and t.sync = 'main'`,
  );
  return Object.fromEntries(rows.map((row) => [row.table, row]));
}

/** As if the daemon had been silent for longer than it may be. */
async function letGoStale(sync = 'main'): Promise<void> {
  await databases.source.query(
    `update ibex.source_sync set beat_at = clock_timestamp() - interval '6 minutes' where name = $1`,
    [sync],
  );
}

/** So many sessions may be on the target beside those that are there, a superuser's not counted; -1: any. */
async function limitTarget(sessions: number): Promise<void> {
  const admin = databases.targetAdmin;
  const { rows } = await admin.query('select current_database() as name');
  await admin.query(`alter database ${rows[0].name} connection limit ${sessions}`);
  await admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name like 'ibex:%'`,
  );
}

test('while the target is away the daemon gives up what is over the budget, and one command goes on', async () => {
  const running = await inStep();
  await limitTarget(0);
  const application = new pg.Client({ connectionString: databases.sourceUrl });
  await application.connect();
  try {
    // For as long as this goes on no trigger can be taken off the table.
    await application.query('begin; lock table big in row exclusive mode');
    await databases.source.query(MUCH);
    await databases.source.query('update small set v = v + 1');
    await running.waitForLog(/the deltas on the source take .* of 1\.0 MiB.*: past that their capture ends/);
    await running.waitForLog(/^public\.big needs a new backfill.*run `ibex backfill`/);
    await waitFor(async () => (await kept()).big?.bytes === 0, {
      what: 'the disk to be free',
    });
    // The triggers are there, and note nothing.
    await databases.source.query(MUCH);
    expect(await kept()).toMatchObject({
      big: { bytes: 0, triggers: 4, lost: true },
      small: { triggers: 4, lost: false },
    });
    await application.query('update big set v = 0 where id = 1; commit');
  } finally {
    await application.end();
  }
  await waitFor(async () => (await kept()).big?.triggers === 0, {
    what: 'the triggers to be taken off',
  });
  // Another one does not wait as long before it tries the target again.
  await running.stop();
  await limitTarget(-1);
  await start();
  const lost = (await waitFor(
    async () => {
      const { why, tables } = await readSyncStatus(databases);
      const big = tables.find(({ table }) => table === 'public.big');
      return big?.state === 'pending' && { why, reason: big.reason };
    },
    { what: 'the target to know' },
  )) as { why: string[]; reason: string };
  expect(lost.reason).toMatch(/needs a new backfill.*grown over the budget of 1024 kB; run `ibex backfill`/);
  expect(lost.why).toContain(`public.big: ${lost.reason}`);
  const waited = await ibex(['wait'], { env: env() });
  expect([waited.code, waited.stdout]).toEqual([1, expect.stringContaining('public.big')]);
  expect(await compareTables(databases.source, databases.target, ['public.small'])).toEqual([]);
  const again = await ibex(['backfill', '--json'], { env: env() });
  expect([again.code, again.said]).toEqual([0, []]);
  await databases.source.query('update big set v = v + 1 where id < 100; delete from big where id > 29990');
  await expectEqual();
  expect(await kept()).toMatchObject({ big: { triggers: 4, lost: false } });
});

test('what was applied is forgotten before anything is given up', async () => {
  await inStep();
  // All of it exceeds the budget, what waits at any time does not.
  for (let i = 0; i < 20; i++) {
    await databases.source.query('update big set v = v + 1 where id <= 5000');
    await waitUntilCaughtUp(databases, 120_000);
  }
  await waitFor(async () => ((await kept()).big?.bytes ?? 0) < 1_000_000, {
    what: 'deltas to be forgotten',
  });
  expect((await kept()).big).toMatchObject({ triggers: 4, lost: false });
});

test('without a daemon ibex.relieve() does the same, and only when nobody has been there for long', async () => {
  const running = await inStep();
  await running.kill9();
  const { source } = databases;
  await source.query(MUCH);
  await source.query('call ibex.relieve()');
  expect((await kept()).big).toMatchObject({ triggers: 4, lost: false });
  await letGoStale();
  await source.query('call ibex.relieve()');
  expect(await kept()).toMatchObject({
    big: { bytes: 0, triggers: 0, lost: true },
    small: { triggers: 4, lost: false },
  });
  await source.query(MUCH);
  await source.query('update small set v = v + 1');
  await source.query('call ibex.relieve()');
  const waited = await ibex(['wait', '--timeout', '1s'], { env: env() });
  expect([waited.code, waited.stdout]).toEqual([
    1,
    expect.stringContaining('public.big: needs a new backfill'),
  ]);
  // The daemon that comes back knows, whatever the target says: it neither goes on nor copies by itself.
  await start();
  await waitFor(
    async () => {
      const { tables } = await readSyncStatus(databases);
      return tables.find(({ table }) => table === 'public.big')?.state === 'pending';
    },
    { what: 'the target to know' },
  );
  const status = await ibex(['status'], { env: env() });
  expect(status.code).toBe(1);
  expect(status.stdout).toMatch(/! public\.big: needs a new backfill/);
  expect(status.stdout).toMatch(/disk {6}[\d.]+ of 1\.0 MiB of the source/);
  const recopied = await ibex(['tables', 'recopy', 'public.big'], { env: env() });
  expect(recopied.code).toBe(0);
  await expectEqual();
});

test('a daemon that was frozen meanwhile never takes what was given up for applied', async () => {
  const running = await inStep();
  running.signal('SIGSTOP');
  await databases.source.query('update big set v = 7 where id = 1');
  await databases.source.query(`select ibex.give_up('main', 'big'::regclass, 'of a test')`);
  await databases.source.query('call ibex.relieve()');
  // With this there is something to carry, past what is lost.
  await databases.source.query('update small set v = 8 where id = 1');
  running.signal('SIGCONT');
  const seen = await waitFor(
    async () => {
      const { rows } = await databases.target.query<{ carried: boolean; state: string }>(
        `select exists (select from small where v = 8) as carried, t.state
           from ibex.target_table t where t.table_name = 'big'`,
      );
      return rows[0]?.carried && rows[0];
    },
    { what: 'the other table to be carried' },
  );
  expect(seen).toEqual({ carried: true, state: 'pending' });
  const waited = await ibex(['wait'], { env: env() });
  expect([waited.code, waited.stdout]).toEqual([1, expect.stringContaining('needs a new backfill')]);
});

test('an old change is given up by its age', async () => {
  const running = await inStep();
  await running.kill9();
  const { source } = databases;
  await source.query(`select ibex.set_budget('main', 'none', '1 hour')`);
  await source.query('update small set v = v + 1');
  await source.query(`call ibex.relieve('main')`);
  expect((await kept()).small).toMatchObject({ lost: false });
  const { rows } = await source.query<{ name: string }>(
    `select format('ibex.delta_%s_%s', k.relid, k.generation) as name from ibex.captured k where k.table_name = 'small'`,
  );
  await source.query(`update ${rows[0]?.name} set at = at - interval '61 minutes'`);
  await source.query(`call ibex.relieve('main')`);
  expect(await kept()).toMatchObject({ small: { bytes: 0, lost: true }, big: { lost: false } });
});

test('a sync that nobody looks after is given up by the daemon of another one, which goes on', async () => {
  await inStep();
  const { source } = databases;
  // Another sync that carries the same table was set up once, and its daemon never came.
  await source.query(
    `insert into ibex.source_sync (name, position, max_delta_bytes) values ('gone', '1:1:', 1000);
     insert into ibex.source_table (sync, relid) select 'gone', 'big'::regclass`,
  );
  await source.query(MUCH);
  await waitUntilCaughtUp(databases, 120_000);
  await letGoStale('gone');
  await source.query('call ibex.relieve()');
  const { rows } = await source.query(
    `select sync, given_up_at is not null as lost from ibex.source_table where relid = 'big'::regclass order by 1`,
  );
  expect(rows).toEqual([
    { sync: 'gone', lost: true },
    { sync: 'main', lost: false },
  ]);
  await source.query('delete from big where id % 3 = 0');
  await expectEqual();
  expect((await kept()).big).toMatchObject({ triggers: 4, lost: false });
});

test('the runbook: by hand, with psql only', async () => {
  const running = await inStep();
  await running.kill9();
  const { source } = databases;
  await source.query(MUCH);
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'source-disk.md'), 'utf8');
  const blocks = [...page.matchAll(/```sql\n(.*?)```/gs)].map(([, text]) => text as string);
  const [look, one, removal, drop] = blocks as [string, string, string, string];
  const { rows } = await source.query(look);
  expect(rows[0]).toMatchObject({ sync: 'main', table_name: 'public.big' });
  await source.query(one);
  expect((await kept()).big).toMatchObject({ bytes: 0, triggers: 0, lost: true });
  // As \gexec does.
  const statements = await source.query<Record<string, string>>(removal.replace(/\\gexec\s*$/, ''));
  for (const row of statements.rows) for (const text of Object.values(row)) await source.query(text);
  await source.query(drop);
  const { rows: left } = await source.query(
    `select from pg_trigger where tgname like '%ibex%' union all select from pg_namespace where nspname = 'ibex'`,
  );
  expect(left).toEqual([]);
  // What changed since was noted nowhere: the next daemon copies everything again.
  await source.query(MUCH);
  await start();
  await expectEqual();
});
