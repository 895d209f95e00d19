/**
 * The command line as scripts and supervisors rely on it: help, exit codes, one JSON document, signals, HTTP,
 * several syncs from one file, and a table that cannot be armed yet.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import {
  type IbexOptions,
  type IbexResult,
  ibex,
  type RunningIbex,
  STOPS_WITHIN_MS,
  startIbex,
} from '../support/ibex.ts';
import { BANK, BANK_ROWS, startLoad } from '../support/load.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

let databases: Databases;
let daemon: RunningIbex | undefined;

function urls({ sourceUrl, targetUrl }: Databases): Record<string, string> {
  return { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
}

async function call(args: string[], options: IbexOptions = {}): Promise<IbexResult> {
  return ibex(args, { env: urls(databases), ...options });
}

async function expectCode(code: number, args: string[], options: IbexOptions = {}): Promise<IbexResult> {
  const result = await call(args, options);
  expect(result.code, `ibex ${args.join(' ')}: ${result.stdout}${result.stderr}`).toBe(code);
  return result;
}

/** Calls with --json: whatever the answer, stdout is one JSON document. */
async function json(code: number, args: string[], options: IbexOptions = {}) {
  return JSON.parse((await expectCode(code, [...args, '--json'], options)).stdout);
}

/** Waits until status is 0, and resolves to what it says: for a moment a daemon on a busy machine may be silent. */
async function ready(options: IbexOptions = {}) {
  return waitFor(() => json(0, ['status'], options), { what: 'status to be READY' });
}

async function start(args: string[] = [], options: IbexOptions = {}): Promise<RunningIbex> {
  daemon = startIbex(['run', ...args], { env: urls(databases), ...options });
  return daemon;
}

async function expectCleanStop(running: RunningIbex): Promise<void> {
  const { code, tookMs } = await running.stop();
  expect(code, running.stderr).toBe(0);
  expect(tookMs).toBeLessThan(STOPS_WITHIN_MS);
  expect([running.stdout, running.said]).toEqual(['', []]);
}

const TWO_TABLES = `
  create table item (id int primary key, name text);
  create table sale (id int primary key, item int not null references item, pieces int not null)`;

const TWO_TABLES_ROWS = `
  insert into item select i, 'item ' || i from generate_series(1, 50) i;
  insert into sale select i, 1 + i % 50, i from generate_series(1, 200) i`;

async function freshTables(): Promise<void> {
  databases = await freshDatabases(servers);
  await onBoth(databases, TWO_TABLES);
  await databases.source.query(TWO_TABLES_ROWS);
}

async function leave(): Promise<void> {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
}

/** A connection of the application's, which `dropAll` may cut. */
async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

async function expectEqual(): Promise<void> {
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
}

describe('help and version', () => {
  test('of the program and of each command', async () => {
    const { version } = JSON.parse(await readFile(join(import.meta.dirname, '../../package.json'), 'utf8'));
    const program = await ibex(['--help']);
    expect([program.code, program.stderr]).toEqual([0, '']);
    const commands = [...program.stdout.matchAll(/^ {2}([a-z]+)(?: \[\w+\])* {2,}\S/gm)].map(
      ([, name]) => name as string,
    );
    expect(commands).toEqual(
      expect.arrayContaining(['setup', 'backfill', 'run', 'wait', 'status', 'teardown']),
    );
    const calls = commands.filter((name) => name !== 'help').map((name) => [name, '--help']);
    const results = await Promise.all(
      [['--version'], ['run', '--version'], ['help', 'run'], ...calls].map(async (args) => ({
        args,
        ...(await ibex(args)),
      })),
    );
    for (const { args, code, stdout, stderr } of results) {
      expect([code, stderr], args.join(' ')).toEqual([0, '']);
      if (args.includes('--version')) expect(stdout).toBe(`${version}\n`);
      else expect(stdout).toContain(`Usage: ibex ${args.find((arg) => /^[a-gi-z]/.test(arg))} [options]`);
    }
  });

  test('no command at all is wrong usage, and shows the help', async () => {
    const { code, stdout, stderr } = await ibex([]);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^Usage: ibex/);
  });
});

describe('the life of a sync, command by command', () => {
  beforeAll(freshTables);
  afterAll(leave);

  /** Everything of ours in a catalog, with the transaction that wrote it last. */
  const OURS = `
    select 'relation ' || c.relname as what, c.oid::text, c.xmin::text from pg_class c
      join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'ibex' and c.relkind in ('r', 'i')
    union all select 'table ' || c.oid::regclass, c.oid::text, c.xmin::text from pg_class c
      join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relkind = 'r'
    union all select 'trigger ' || tgname, oid::text, xmin::text from pg_trigger
    union all select 'function ' || p.proname, p.oid::text, p.xmin::text from pg_proc p
      join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'ibex'
    union all select 'constraint ' || conname, oid::text, xmin::text from pg_constraint where conrelid <> 0
    order by 1, 2`;

  const catalogs = async () =>
    (await Promise.all([databases.source, databases.target].map((client) => client.query(OURS)))).map(
      ({ rows }) => rows,
    );

  test('setup says what it armed', async () => {
    const { sync, tables } = await json(0, ['setup']);
    expect(sync).toBe('main');
    expect(tables).toEqual([
      { table: 'public.item', armed: true, noted: 'key (id)', waitingFor: [], refused: null },
      { table: 'public.sale', armed: true, noted: 'key (id)', waitingFor: [], refused: null },
    ]);
  });

  test('setup again is 0 and changes nothing', async () => {
    const before = await catalogs();
    expect(before[0]?.map(({ what }) => what)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^trigger ibex_insert_/)]),
    );
    await expectCode(0, ['setup']);
    await json(0, ['setup', '--tables', 'public.item']);
    expect(await catalogs()).toEqual(before);
  });

  test('status without a daemon is 1 and says why', async () => {
    const [status, ...more] = await json(1, ['status']);
    expect(more).toEqual([]);
    expect(status).toMatchObject({ sync: 'main', verdict: 'NOT READY', daemon: null });
    expect(status.why).toEqual(
      expect.arrayContaining(['no daemon runs this sync', 'public.item is pending']),
    );
    const { stdout } = await expectCode(1, ['status', '--tables', 'public.sale']);
    expect(stdout).toMatch(/^main: NOT READY/);
    expect(stdout).toMatch(/public\.sale/);
    expect(stdout).not.toMatch(/public\.item/);
  });

  test('wait without a daemon is 1 at its time-out and says why', async () => {
    const result = await json(1, ['wait', '--timeout', '500ms']);
    expect(result).toMatchObject({ sync: 'main', done: false });
    expect(result.missing.map(({ table }: { table: string }) => table)).toEqual([
      'public.item',
      'public.sale',
    ]);
    const { stdout } = await expectCode(1, ['wait', '--timeout', '500ms', '--tables', 'public.sale']);
    expect(stdout).toMatch(/^public\.sale: .*pending/);
    expect(stdout).toMatch(/no daemon/);
  });

  test('backfill copies, table by table if asked', async () => {
    const item = await json(0, ['backfill', '--tables', 'public.item']);
    expect(item.tables).toMatchObject([{ table: 'public.item', state: 'streaming', copied: 50 }]);
    const all = await json(0, ['backfill']);
    expect(all.tables).toMatchObject([
      { table: 'public.item', state: 'streaming', copied: 50 },
      { table: 'public.sale', state: 'streaming', copied: 200 },
    ]);
    await expectEqual();
    expect((await expectCode(0, ['backfill'])).stdout).toMatch(/2 tables are copied, 250 rows/);
  });

  test('run --until-caught-up carries what was committed before the call', async () => {
    await databases.source.query(
      `update item set name = 'new' where id < 10; delete from sale where id > 100`,
    );
    const { stdout } = await expectCode(0, ['run', '--until-caught-up']);
    expect(stdout).toBe('');
    await expectEqual();
    await expectCode(0, ['wait', '--timeout', '500ms']);
  });

  test('run streams: wait is 0, status is 0 and READY', async () => {
    await start();
    await expectCode(0, ['wait']);
    await databases.source.query(`insert into sale values (1000, 1, 1)`);
    expect(await json(0, ['wait'])).toEqual({
      sync: 'main',
      done: true,
      missing: [],
      notCarried: [],
      paused: null,
    });
    await expectEqual();
    const [status] = await ready();
    expect(status).toMatchObject({ verdict: 'READY', why: [], daemon: { pid: daemon?.pid } });
    await waitFor(async () => /^main: READY/.test((await call(['status'])).stdout), { what: 'it as text' });
    // The daemon has done what there was to do.
    expect((await json(0, ['backfill'])).tables).toHaveLength(2);
  });

  test('wait is not delayed by a table that was dropped, nor by an open transaction', async () => {
    await databases.source.query('drop table sale');
    const writer = await connect(databases.sourceUrl);
    await writer.query('begin; insert into item values (2000, null)');
    await databases.source.query('insert into item values (2001, null)');
    await expectCode(0, ['wait', '--timeout', '50s']);
    const { rows } = await databases.target.query('select id from item where id >= 2000');
    expect(rows).toEqual([{ id: 2001 }]);
    await writer.query('commit');
    await writer.end();
    await expectCode(0, ['wait']);
    expect(await compareTables(databases.source, databases.target, ['public.item'])).toEqual([]);
    expect(daemon?.running).toBe(true);
  });

  test('SIGTERM ends run with 0', async () => {
    await expectCleanStop(daemon as RunningIbex);
    const [status] = await json(1, ['status']);
    expect(status.daemon).toBe(null);
  });

  test('teardown says what is left', async () => {
    const { sync, source, target, proof } = await json(0, ['teardown', '--yes']);
    expect([sync, source.left, target.left]).toEqual(['main', 0, 0]);
    expect((await databases.source.query(proof)).rows).toEqual([{ objects_left: '0' }]);
  });
});

describe('a table that is held', () => {
  beforeEach(freshTables);
  afterEach(leave);

  test('run --until-caught-up is 1 and names it; the others are on the target', async () => {
    await databases.target.query('alter table item add constraint short check (length(name) < 3)');
    await databases.target.query('alter table sale drop constraint sale_item_fkey');
    const { logs } = await expectCode(1, ['run', '--until-caught-up']);
    expect(logs.map(({ msg }) => msg)).toContainEqual(expect.stringMatching(/public\.item is held: .*short/));
    expect(await compareTables(databases.source, databases.target, ['public.sale'])).toEqual([]);
  });

  test('wait is 1 at once and names it when nothing else is missing', async () => {
    await databases.target.query('drop table sale');
    await start();
    await expectCode(0, ['wait', '--tables', 'public.item']);
    const { stdout } = await expectCode(1, ['wait', '--timeout', '10m'], { timeout: 300_000 });
    expect(stdout).toMatch(/^public\.sale: table public\.sale does not exist on the target/);
    const { missing } = await json(1, ['wait', '--timeout', '10m'], { timeout: 300_000 });
    expect(missing).toMatchObject([{ table: 'public.sale' }]);
    const [status] = await json(1, ['status']);
    expect(status.why).toEqual([expect.stringMatching(/^public\.sale: .*does not exist on the target/)]);
    expect((await json(1, ['backfill'])).tables).toContainEqual(
      expect.objectContaining({ table: 'public.sale', state: 'pending' }),
    );
    await expectCleanStop(daemon as RunningIbex);
  });

  test('a daemon that was given names goes on when one of the tables is dropped, and starts again', async () => {
    await start(['--tables', 'public.item,public.sale']);
    await expectCode(0, ['wait']);
    await databases.source.query('drop table sale');
    await databases.source.query(`insert into item values (3000, 'later')`);
    await expectCode(0, ['wait']);
    await daemon?.waitForLog(/public\.sale: dropped/);
    await databases.source.query(`insert into item values (3001, 'later still')`);
    await expectCode(0, ['wait', '--tables', 'public.item']);
    expect(daemon?.running, daemon?.stderr).toBe(true);
    await expectCleanStop(daemon as RunningIbex);
    await start(['--tables', 'public.item,public.sale']);
    await daemon?.waitForLog(/sync main runs/);
    await expectCleanStop(daemon as RunningIbex);
  });

  test('a table that is dropped and made anew is copied anew', async () => {
    await start();
    await expectCode(0, ['wait']);
    await databases.source.query(`drop table sale; ${TWO_TABLES.split(';')[1]};
      insert into sale values (1, 1, 1)`);
    await daemon?.waitForLog(/public\.sale: dropped/);
    await expectCode(0, ['wait']);
    await ready();
    await expectEqual();
    await expectCleanStop(daemon as RunningIbex);
  });
});

describe('a table that others have locked', () => {
  beforeEach(freshTables);
  afterEach(leave);

  test('is named with its blocker, waited for, and carried in the end', async () => {
    const writer = await connect(databases.sourceUrl);
    await writer.query(`begin; update item set name = 'open' where id = 1`);
    const { rows } = await writer.query('select pg_backend_pid() as pid');
    const blocker = new RegExp(`pid ${rows[0].pid} \\(app_\\w+, idle in transaction`);

    const { stdout } = await expectCode(1, ['setup', '--arm-timeout', '500ms']);
    expect(stdout).toMatch(new RegExp(`public\\.item: waits for a lock: .*${blocker.source}`));
    expect(stdout).toMatch(/public\.sale: armed/);
    const { tables } = await json(1, ['setup', '--arm-timeout', '500ms']);
    expect(tables).toMatchObject([
      { table: 'public.item', armed: false, waitingFor: [expect.stringMatching(blocker)] },
      { table: 'public.sale', armed: true, waitingFor: [] },
    ]);

    const port = await freePort();
    await start(['--listen', String(port)]);
    await expectCode(0, ['wait', '--tables', 'public.sale']);
    await databases.source.query('insert into sale values (5000, 1, 1)');
    await expectCode(0, ['wait', '--tables', 'public.sale']);
    const sale = await databases.target.query('select pieces from sale where id = 5000');
    expect(sale.rowCount).toBe(1);
    const named = new RegExp(`public\\.item: .*${blocker.source}`);
    await waitFor(async () => (await json(1, ['status']))[0].why.some((why: string) => named.test(why)), {
      what: 'status to name the table and its blocker',
    });
    expect((await expectCode(1, ['wait', '--timeout', '1s'])).stdout).toMatch(/^public\.item: /m);
    expect((await fetch(`http://127.0.0.1:${port}/readyz`)).status).toBe(503);
    expect((await fetch(`http://127.0.0.1:${port}/healthz`)).status).toBe(200);

    await writer.query('commit');
    await writer.end();
    await expectCode(0, ['wait']);
    await expectEqual();
    await waitFor(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 200, {
      what: 'readyz',
    });
    await ready();
    await expectCleanStop(daemon as RunningIbex);
  });

  test('run --until-caught-up carries the others meanwhile, and is 0 in the end', async () => {
    const writer = await connect(databases.sourceUrl);
    await writer.query(`begin; update item set name = 'open' where id = 1`);
    await start(['--until-caught-up']);
    await waitFor(async () => (await databases.target.query('select from sale')).rowCount === 200, {
      what: 'sale',
    });
    expect(daemon?.running).toBe(true);
    await writer.query('commit');
    await writer.end();
    expect(await daemon?.exited).toBe(0);
    await expectEqual();
  });
});

describe('HTTP', () => {
  beforeAll(freshTables);
  afterAll(leave);

  test('alive, ready, status, metrics; with a token only who has it', async () => {
    const port = await freePort();
    const token = 'not-for-everybody';
    await start(['--listen', `127.0.0.1:${port}`], { env: { ...urls(databases), IBEX_HTTP_TOKEN: token } });
    const get = (path: string, init: RequestInit = { headers: { authorization: `Bearer ${token}` } }) =>
      fetch(`http://127.0.0.1:${port}${path}`, init);
    await daemon?.waitForLog(/listening on/);
    await waitFor(async () => (await get('/readyz')).status === 200, { what: 'readyz' });
    await databases.source.query(`update item set name = 'a'; update item set name = 'b' where id = 1`);
    await expectCode(0, ['wait']);

    expect((await get('/healthz', {})).status).toBe(200);
    for (const path of ['/readyz', '/status', '/metrics']) {
      expect((await get(path, {})).status, path).toBe(401);
      expect((await get(path, { headers: { authorization: `Bearer ${token}x` } })).status, path).toBe(401);
      expect((await get(path)).status, path).toBe(200);
    }
    for (const path of ['/nothing-here', '//', '/%']) expect((await get(path)).status, path).toBe(404);
    expect(
      (await get('/status', { method: 'POST', headers: { authorization: `Bearer ${token}` } })).status,
    ).toBe(405);

    const answer = await get('/status');
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/);
    expect(await answer.json()).toMatchObject([
      { sync: 'main', verdict: 'READY', tables: [{ table: 'public.item' }, { table: 'public.sale' }] },
    ]);
    const counters = [
      'batches_applied',
      'deltas_captured',
      'keys_applied',
      'deltas_coalesced',
      'rows_copied',
      'lane_restarts',
    ].map((name) => new RegExp(`^# TYPE ibex_${name}_total counter$`, 'm'));
    const expected = [
      ...counters,
      /^ibex_batches_applied_total\{sync="main"\} [1-9]/m,
      /^ibex_keys_applied_total\{sync="main",table="public.item"\} [1-9]/m,
      /^ibex_rows_copied_total\{sync="main",table="public.sale"\} 200$/m,
      /^ibex_tables\{sync="main",state="streaming"\} 2$/m,
      /^ibex_bytes_copied_total\{sync="main",table="public.sale"\} [1-9]/m,
      /^ibex_copy_rows\{sync="main",kind="copied"\} 250$/m,
      /^ibex_copy_jobs\{sync="main"\} 0$/m,
      /^ibex_lag_seconds_count\{sync="main"\} [1-9]/m,
    ];
    // A batch is on the target a moment before it is counted here.
    let metrics = '';
    let missing = expected;
    await waitFor(
      async () => {
        metrics = await (await get('/metrics')).text();
        missing = expected.filter((line) => !line.test(metrics));
        return missing.length === 0;
      },
      { what: 'the metrics' },
    ).catch((error) => Promise.reject(new Error(`${error.message}: ${missing.join(' ')}\n${metrics}`)));
    const bytes = ['copied', 'planned'].map(
      (kind) =>
        new RegExp(`^ibex_copy_bytes\\{sync="main",kind="${kind}"\\} ([1-9]\\d+)$`, 'm').exec(metrics)?.[1],
    );
    expect(bytes[0]).toBe(bytes[1]);
    expect(daemon?.stderr).not.toContain(token);
    await expectCleanStop(daemon as RunningIbex);
  });

  test('an address that is taken is a wrong setting', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await waitFor(() => server.listening, { what: 'a port' });
    const { port } = server.address() as { port: number };
    const { said } = await expectCode(2, ['run', '--listen', `127.0.0.1:${port}`]);
    expect(said).toEqual([
      expect.stringMatching(/^error: cannot listen on 127\.0\.0\.1:\d+: .*EADDRINUSE/),
      '  Give another address with --listen.',
    ]);
    server.close();
  });
});

describe('SIGTERM', () => {
  afterEach(leave);

  test('under load: 0 within ten seconds, and the next one goes on where it stopped', async () => {
    databases = await freshDatabases(servers);
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
    const load = await startLoad(databases.sourceUrl);
    await start();
    await expectCode(0, ['wait']);
    for (let round = 0; round < 2; round++) {
      const before = load.done;
      const bulk = databases.source.query(`update account set note = note || '.'`);
      await waitFor(() => load.done > before + 50, { what: 'load' });
      await expectCleanStop(daemon as RunningIbex);
      await bulk;
      await start();
      await daemon?.waitForLog(/sync main runs/);
    }
    await load.stop();
    expect(load.errors).toEqual([]);
    await expectCode(0, ['wait']);
    expect(
      await compareTables(databases.source, databases.target, [
        'public.branch',
        'public.teller',
        'public.account',
        'public.history',
      ]),
    ).toEqual([]);
    await expectCleanStop(daemon as RunningIbex);
  });

  test('while it copies, even when what it does there has to wait', async () => {
    await freshTables();
    await databases.target.query('alter table sale drop constraint sale_item_fkey');
    const other = await connect(databases.targetUrl);
    await other.query('begin; lock table item in exclusive mode');
    await start();
    const copying = `select from ibex.target_table where table_name = 'item' and state = 'copying'`;
    await waitFor(async () => (await databases.target.query(copying)).rowCount === 1, { what: 'the copy' });
    await expectCleanStop(daemon as RunningIbex);
    await other.end();
    await expectCode(0, ['backfill']);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
  });

  test('while a server does not answer any more', async () => {
    await freshTables();
    await start();
    await expectCode(0, ['wait']);
    const { rows } = await databases.targetAdmin.query(
      `select pid from pg_stat_activity where application_name like 'ibex:main:%'`,
    );
    expect(rows.length).toBeGreaterThan(0);
    for (const { pid } of rows) process.kill(pid, 'SIGSTOP');
    try {
      await databases.source.query(`insert into item values (7000, 'nobody takes it')`);
      await expectCleanStop(daemon as RunningIbex);
    } finally {
      for (const { pid } of rows) process.kill(pid, 'SIGCONT');
    }
    await expectCode(0, ['run', '--until-caught-up']);
    await expectEqual();
  });

  test('before a server has answered at all', async () => {
    await freshTables();
    const silent = createServer().listen(0, '127.0.0.1');
    await waitFor(() => silent.listening, { what: 'a port' });
    const { port } = silent.address() as { port: number };
    const env = {
      ...urls(databases),
      IBEX_TARGET_URL: `postgres://app:pass@127.0.0.1:${port}/app?connect_timeout=600`,
    };
    let connected = false;
    silent.on('connection', () => {
      connected = true;
    });
    await start([], { env });
    await waitFor(() => connected, { what: 'a connection' });
    await expectCleanStop(daemon as RunningIbex);
    silent.close();
  });
});

describe('several syncs of one file', () => {
  let more: Databases;
  let directory: string;

  beforeAll(async () => {
    await freshTables();
    more = await freshDatabases(servers);
    await more.target.query(TWO_TABLES);
    directory = await mkdtemp(join(tmpdir(), 'ibex-file-'));
    await writeFile(
      join(directory, 'ibex.yaml'),
      `nodes:
  a: "${databases.sourceUrl}"
  b: {url: "${databases.targetUrl}"}
  c: {url_file: c-url}
syncs:
  - {name: all, from: a, to: b}
  - {name: items, from: a, to: c, tables: [public.item]}
`,
    );
    await writeFile(join(directory, 'c-url'), `${more.targetUrl}\n`);
  });

  afterAll(async () => {
    await leave();
    await more.dropAll();
    await rm(directory, { recursive: true });
  });

  const itemOf = async (client: pg.Client, id: number) =>
    (await client.query('select name from item where id = $1', [id])).rows[0]?.name;

  test('run in one daemon; --sync picks one', async () => {
    const here = { env: {}, cwd: directory };
    await start([], here);
    await daemon?.waitForLog(/sync all runs/);
    await daemon?.waitForLog(/sync items runs/);
    for (const sync of ['all', 'items']) await expectCode(0, ['wait', '--sync', sync], here);
    await databases.source.query(`insert into item values (900, 'for both')`);
    for (const sync of ['all', 'items']) await expectCode(0, ['wait', '--sync', sync], here);
    expect([await itemOf(databases.target, 900), await itemOf(more.target, 900)]).toEqual([
      'for both',
      'for both',
    ]);
    await expectEqual();
    expect((await more.target.query('select from sale')).rowCount).toBe(0);
    expect(await ready(here)).toMatchObject([
      { sync: 'all', verdict: 'READY' },
      { sync: 'items', verdict: 'READY', tables: [{ table: 'public.item' }] },
    ]);
    const one = await waitFor(() => json(0, ['status', '--sync', 'items'], here), {
      what: 'one to be READY',
    });
    expect(one).toMatchObject([{ sync: 'items' }]);
    await expectCleanStop(daemon as RunningIbex);

    await start(['--sync', 'items'], here);
    await databases.source.query(`insert into item values (901, 'for one')`);
    await expectCode(0, ['wait', '--sync', 'items'], here);
    expect([await itemOf(databases.target, 901), await itemOf(more.target, 901)]).toEqual([
      undefined,
      'for one',
    ]);
    const [all] = await waitFor(
      async () => {
        const both = await json(1, ['status'], here);
        return both[1].verdict === 'READY' && both;
      },
      { what: 'the other to be READY' },
    );
    expect([all.verdict, all.daemon]).toEqual(['NOT READY', null]);

    // The other one goes; this one does not notice.
    const gone = await json(0, ['teardown', '--yes', '--sync', 'all'], here);
    expect([gone.source.left > 0, gone.target.left]).toEqual([true, 0]);
    await databases.source.query(`insert into item values (902, 'still')`);
    await expectCode(0, ['wait', '--sync', 'items'], here);
    expect(await itemOf(more.target, 902)).toBe('still');
    // Nor when it comes again.
    const other = startIbex(['run', '--sync', 'all'], here);
    await other.waitForLog(/sync all runs/);
    await databases.source.query(`insert into item values (903, 'for both again')`);
    for (const sync of ['all', 'items']) await expectCode(0, ['wait', '--sync', sync], here);
    await expectEqual();
    expect(await itemOf(more.target, 903)).toBe('for both again');
    await expectCleanStop(other);
    expect((await json(0, ['teardown', '--yes', '--sync', 'all'], here)).target.left).toBe(0);
    await expectCleanStop(daemon as RunningIbex);
    const last = await json(0, ['teardown', '--yes', '--sync', 'items'], here);
    expect([last.source.left, last.target.left]).toEqual([0, 0]);
  });
});
