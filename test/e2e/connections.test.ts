/**
 * Connections that break, fall silent or are refused for a while: the daemon comes back by itself, however long it takes,
 * with the credentials of the day, and what goes wrong with one target is no matter of the other sync's.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import { Session } from '../../src/postgres/session.ts';
import { SilenceWatch } from '../../src/postgres/silence.ts';
import { type RunningIbex, startIbex } from '../support/ibex.ts';
import { type Network, startNetwork } from '../support/network.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const PATIENT = 90_000;
const TABLE = 'create table t (id int primary key)';

let databases: Databases;
let directory: string;
let daemon: RunningIbex | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  directory = await mkdtemp(join(tmpdir(), 'ibex-connections-'));
  await databases.source.query(TABLE);
  await databases.target.query(TABLE);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
  await rm(directory, { recursive: true });
});

async function arrives(target: pg.Client, id: number): Promise<void> {
  const has = async () => (await target.query('select from t where id = $1', [id])).rowCount === 1;
  await waitFor(has, { what: `row ${id}`, timeout: PATIENT }).catch((error) => {
    throw new Error(`${error.message}\n${daemon?.stderr}`);
  });
}

const logged = (message: RegExp) => daemon?.logs.filter(({ msg }) => message.test(msg)).length ?? 0;

test('passwords that change while it runs: refused for a while, then read again, from a file and from a command', async () => {
  const files = { source: join(directory, 'source'), target: join(directory, 'target') };
  await writeFile(files.source, databases.sourceUrl);
  await writeFile(files.target, databases.targetUrl);
  daemon = startIbex(['run', '--log-format', 'json'], {
    env: { IBEX_SOURCE_URL_FILE: files.source, IBEX_TARGET_URL_COMMAND: `cat '${files.target}'` },
  });
  await databases.source.query('insert into t values (1)');
  await arrives(databases.target, 1);
  for (const [side, id] of [
    ['source', 2],
    ['target', 3],
  ] as const) {
    const refused = logged(/password authentication failed/);
    const admin = databases[`${side}Admin`];
    const { user } = (await databases[side].query('select current_user as user')).rows[0];
    await admin.query(`alter role ${user} password 'changed'`);
    const END = `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'ibex:%' and datname = current_database()`;
    await admin.query(END);
    await databases.source.query('insert into t values ($1)', [id]);
    await waitFor(() => logged(/password authentication failed/) > refused, {
      what: `the ${side} to refuse it`,
      timeout: PATIENT,
    });
    // A file that is just being written.
    await writeFile(files[side], '');
    if (side === 'source') await daemon.waitForLog(/it gave nothing/, PATIENT);
    await writeFile(
      files[side],
      Object.assign(new URL(databases[`${side}Url`]), { password: 'changed' }).href,
    );
    await arrives(databases.target, id);
    expect(daemon.running).toBe(true);
  }
  expect((await daemon.stop()).code).toBe(0);
});

test('a name that leads to several servers: nothing is done on any of them, and it is said', async () => {
  const elsewhere = await freshDatabases(servers);
  let connections = 0;
  const ports = [servers.source, servers.target].map(({ port }) => port);
  const network = await startNetwork({
    get port() {
      return ports[connections++ % 2] as number;
    },
  });
  try {
    // The same database name, role and password on another server, such as one that is about to take the place.
    const { username, password } = new URL(databases.sourceUrl);
    const secret = decodeURIComponent(password).replaceAll("'", "''");
    await databases.targetAdmin.query(`alter role ${username} password '${secret}'`);
    daemon = startIbex(['run', '--log-format', 'json'], {
      env: { IBEX_SOURCE_URL: network.through(databases.sourceUrl), IBEX_TARGET_URL: elsewhere.targetUrl },
    });
    await daemon.waitForLog(
      /two sessions reached different servers.*Give a URL that leads to one server/,
      PATIENT,
    );
    for (const one of [databases.source, databases.target, elsewhere.target]) {
      const { rows } = await one.query(`select to_regnamespace('ibex') as ibex`);
      expect(rows).toEqual([{ ibex: null }]);
    }
  } finally {
    await daemon?.kill9();
    await network.close();
    await elsewhere.dropAll();
  }
});

describe('the network takes a daemon in the middle of setting up, and does not tell the server', () => {
  let network: Network;

  beforeEach(async () => {
    network = await startNetwork(servers.target);
  });

  afterEach(async () => {
    await daemon?.kill9();
    await network.close();
  });

  const start = () => {
    daemon = startIbex(['run', '--log-format', 'json'], {
      env: {
        IBEX_SOURCE_URL: databases.sourceUrl,
        IBEX_TARGET_URL: network.through(databases.targetUrl),
      },
    });
  };

  /** Starts a daemon whose setup waits for our open transaction; then the daemon loses its connections, and setup goes on. */
  async function takeAway(): Promise<void> {
    start();
    const waiting = () =>
      databases.targetAdmin.query(`select from pg_stat_activity where application_name = 'ibex:main:control'
        and datname = current_database() and wait_event_type = 'Lock'`);
    await waitFor(async () => (await waiting()).rowCount === 1, { what: 'setup to wait', timeout: PATIENT });
    expect(network.halfClose('near')).toBeGreaterThan(0);
    await databases.target.query('rollback');
    await databases.source.query('insert into t values (2)');
    await arrives(databases.target, 2);
  }

  test('while it makes the schema: the lock of that is let go', async () => {
    await databases.target.query('begin; create schema ibex');
    await takeAway();
  });

  test('while it registers tables: the checkpoint is let go', async () => {
    start();
    await databases.source.query('insert into t values (1)');
    await arrives(databases.target, 1);
    await daemon?.stop();
    for (const side of ['source', 'target'] as const)
      await databases[side].query('create table later (id int primary key)');
    await databases.target.query('begin; lock table ibex.target_table in exclusive mode');
    await takeAway();
  });
});

describe('two targets of one daemon', () => {
  let other: Databases;
  let networks: Network[] = [];
  let port: number;

  beforeAll(async () => {
    networks = await Promise.all([servers.source, servers.target, servers.target].map(startNetwork));
  });

  afterAll(async () => {
    await Promise.all(networks.map((network) => network.close()));
  });

  beforeEach(async () => {
    other = await freshDatabases(servers);
    await other.target.query(TABLE);
    port = await freePort();
    const [a, b, c] = networks as [Network, Network, Network];
    const file = {
      listen: port,
      nodes: {
        a: a.through(databases.sourceUrl),
        b: b.through(databases.targetUrl),
        c: c.through(other.targetUrl),
      },
      syncs: [
        { name: 'one', from: 'a', to: 'b' },
        { name: 'two', from: 'a', to: 'c' },
      ],
    };
    await writeFile(join(directory, 'ibex.yaml'), JSON.stringify(file));
    daemon = startIbex(['run', '--log-format', 'json'], { cwd: directory });
    await insert(1, [databases, other]);
  });

  afterEach(async () => {
    await daemon?.kill9();
    for (const network of networks) network.mend();
    await other.dropAll();
  });

  /** Writes a row and waits until it is on these targets. */
  async function insert(id: number, at: readonly Databases[]): Promise<void> {
    await databases.source.query('insert into t values ($1)', [id]);
    for (const { target } of at) await arrives(target, id);
  }

  const status = async () =>
    (await (await fetch(`http://127.0.0.1:${port}/status`)).json()) as {
      sync: string;
      verdict: string;
      why: string[];
    }[];

  async function expectEqual(): Promise<void> {
    for (const { target } of [databases, other])
      expect(await compareTables(databases.source, target)).toEqual([]);
    expect(daemon?.running).toBe(true);
  }

  test('one is away: the other goes on, status has both, and the deltas of the one are kept', async () => {
    const [, , c] = networks as [Network, Network, Network];
    c.cut();
    await waitFor(() => logged(/trying again/) > 0, { what: 'the loss to be noticed', timeout: PATIENT });
    await databases.source.query(`select ibex.rotate('t'::regclass)`);
    await insert(2, [databases]);
    const [one, two] = await status();
    expect(one).toMatchObject({ sync: 'one', tables: [{ table: 'public.t', state: 'streaming' }] });
    expect(two).toEqual({
      sync: 'two',
      verdict: 'NOT READY',
      why: [expect.stringMatching(/127\.0\.0\.1:\d+/)],
    });
    c.mend();
    await insert(3, [databases, other]);
    await expectEqual();
  });

  test('open connections to either side fall silent: it is noticed, and what they held is let go', async () => {
    const [a, b] = networks as [Network, Network, Network];
    for (const network of [a, b]) network.freeze(false);
    await waitFor(() => logged(/although the server waits/) > 0, { what: 'silence', timeout: PATIENT });
    await insert(2, [databases, other]);
    await expectEqual();
    const { rows } = await databases.sourceAdmin.query(
      `select application_name, count(*)::int as n from pg_stat_activity
        where datname = current_database() and application_name ~ ':(control|read)$' group by 1 having count(*) > 1`,
    );
    expect(rows).toEqual([]);
  });
});

test('a connection that dies while its settings are made is given up', async () => {
  const network = await startNetwork(servers.target);
  try {
    network.freezeAt('set_config');
    const opening = Session.open({ url: network.through(databases.targetUrl), name: 'unlucky' });
    await expect(opening).rejects.toMatchObject({ kind: 'connection' });
  } finally {
    await network.close();
  }
});

describe('a watch over connections', () => {
  let network: Network;
  let watch: SilenceWatch;

  beforeEach(async () => {
    network = await startNetwork(servers.target);
    const open = () => Session.open({ url: network.through(databases.targetUrl), name: 'probe' });
    watch = new SilenceWatch(open, { lookMs: 50, silentMs: 500, answerMs: 1500 });
    await databases.target.query('create table wide (pad text)');
    await databases.source.query(
      `create table wide (pad text); insert into wide select repeat('x', 1000) from generate_series(1, 30000)`,
    );
  });

  afterEach(async () => {
    watch.stop();
    await network.close();
  });

  async function open(url: string): Promise<Session> {
    const session = await Session.open({ url, name: 'watched' });
    watch.add(session);
    return session;
  }

  const farSession = () => open(network.through(databases.targetUrl));
  const COPY_IN = 'copy public.wide from stdin';

  test('lets those be that work, wait for a lock, for us, or rest', async () => {
    const rows = Array.from({ length: 100 }, () => Buffer.from(`${'y'.repeat(1000)}\n`));
    const [working, waiting, fed, resting] = await Promise.all([1, 2, 3, 4].map(farSession));
    await databases.targetAdmin.query('begin; lock table t in access exclusive mode');
    const locked = waiting?.run('insert into public.t values (1)');
    const copy = fed?.copyIn(COPY_IN);
    await copy?.write(rows[0] as Buffer);
    await working?.run('select pg_sleep(4)');
    await databases.targetAdmin.query('commit');
    for (const row of rows.slice(1)) await copy?.write(row);
    expect(await locked).toBe(1);
    expect(await copy?.end()).toBe(100);
    expect(await resting?.run('select')).toBe(1);
    for (const session of [working, waiting, fed, resting]) await session?.close();
  });

  test.each([
    ['and new ones come about', false, /although the server waits/],
    ['and new ones do not', true, /no new connection comes about/],
  ])('ends those over which nothing comes, %s', async (_what, all, why) => {
    const [asking, fed, into, read] = await Promise.all([1, 2, 3, 4].map(farSession));
    const near = await Session.open({ url: databases.sourceUrl, name: 'near' });
    const piping = (async () => {
      await near.pipe(['copy public.wide to stdout'], into as Session, [COPY_IN], {
        throttle: () => 100,
        signal: new AbortController().signal,
      });
    })();
    const copy = fed?.copyIn(COPY_IN);
    const reading = (async () => {
      for await (const _ of (read as Session).copyOutTogether(['copy (select pg_sleep(60)) to stdout']));
    })();
    reading.catch(() => undefined);
    network.freeze(all);
    const feeding = (async () => {
      for (;;) await copy?.write(Buffer.from(`${'z'.repeat(1000)}\n`));
    })();
    const outcomes = await Promise.allSettled([asking?.run('select'), feeding, piping]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { kind: 'connection' } });
      expect((outcome as PromiseRejectedResult).reason.message).toMatch(why);
    }
    // What the server works for cannot be told from what it works for in vain, as long as it can be asked.
    const end = all
      ? undefined
      : databases.targetAdmin.query('select pg_terminate_backend($1)', [read?.motion.pid]);
    await end;
    await expect(reading).rejects.toMatchObject({ kind: 'connection' });
    await near.close();
  });
});
