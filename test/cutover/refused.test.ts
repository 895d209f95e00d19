/** What is refused, with the reason, and leaves everything as it was; hooks, and the rehearsal. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { move } from '../../src/cutover/move/procedure.ts';
import { ibex } from '../support/ibex.ts';
import { Pair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { cutover, FENCED, options, ROWS, SCHEMA, type Wish, write } from './move.ts';

const servers = await useServers({ max_prepared_transactions: '5' });
const pair = new Pair();
const clients: pg.Client[] = [];

beforeAll(async () => {
  await pair.open(servers, {});
  await pair.inStep(SCHEMA, ROWS);
  await pair.ready();
});

afterAll(() => pair.close());

/** Whatever was tried, the application goes on where it was. */
afterEach(async () => {
  for (const client of clients.splice(0)) await client.end().catch(() => undefined);
  await write(pair.source);
  await pair.equal();
});

async function session(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  clients.push(client);
  return client;
}

/** Does something once a phase has ended. */
function onceDone(phase: string, act: () => Promise<unknown>, wish: Wish = {}) {
  const given = options(pair, 'target', wish);
  const acting: Promise<unknown>[] = [];
  const say = (event: { phase: string; seconds: number | null }) => {
    if (event.phase === phase && event.seconds !== null) acting.push(act());
  };
  return move({ ...given, say }).finally(() => Promise.all(acting));
}

test('a rehearsal does everything short of the fence', async () => {
  const given = options(pair, 'target', { dryRun: true, hooks: { before_fence: 'exit 1' } });
  expect(await move(given)).toMatchObject({ outcome: 'rehearsed', live: 'source' });
  expect(given.events.map(({ phase }) => phase)).toEqual(['preflight', 'prepare']);
  await pair.target.query('delete from bare where false');
});

describe('a rehearsal with a scratch database', () => {
  test('holds off every write there, none on the source, and leaves the scratch as it was', async () => {
    const { source, databases } = pair;
    const { sourceAdmin, targetAdmin } = databases;
    await sourceAdmin.query(
      'create role clerk login; create role guest login; grant insert on goods to clerk, guest',
    );
    await targetAdmin.query(`create role clerk login; grant clerk to ${await roleOf(pair.target)}`);
    await source.query('alter table goods enable row level security');
    await using scratch = await scratchDatabase();
    const [outsider, application] = [await session(scratch.url), await session(databases.sourceUrl)];
    await using onScratch = keepDoing(() => outsider.query('delete from goods where false'));
    await using onSource = keepDoing(() => write(application));
    const given = options(pair, 'target', {
      dryRun: true,
      scratch: scratch.url,
      hooks: { before_fence: 'exit 1' },
    });
    const { outcome, reasons, rehearsal } = await move(given);
    expect({ outcome, reasons }).toEqual({ outcome: 'rehearsed', reasons: [] });
    expect(given.events.map(({ phase }) => phase)).toEqual([
      'preflight',
      'prepare',
      'scratch',
      'fence',
      'writers',
      'drain',
      'sequences',
      'check',
    ]);
    // Four kinds of writes on five tables and two partitions, by two roles.
    expect(rehearsal).toMatchObject({ held: 56, ways: ['owner', 'clerk'], untried: ['guest'] });
    expect(await onScratch.end()).toContain(FENCED.code);
    expect(await onSource.end()).toEqual([]);
    expect((await source.query(`select ibex.fence_is_up('main') as up`)).rows).toEqual([{ up: false }]);
    expect(await scratch.left()).toEqual([]);
    await source.query('alter table goods disable row level security');
    await sourceAdmin.query('revoke all on goods from clerk, guest; drop role clerk, guest');
    await targetAdmin.query('drop role clerk');
  });

  test('says who is writing for too long, and leaves the scratch as it was', async () => {
    await using scratch = await scratchDatabase();
    const writer = await session(pair.databases.sourceUrl);
    const { outcome, reasons } = await onceDone(
      'fence',
      () => writer.query('begin; delete from bare where false'),
      { dryRun: true, scratch: scratch.url, graceMs: 300 },
    );
    expect(outcome).toBe('undone');
    expect(reasons.join()).toMatch(/still writing: pid \d+/);
    expect(await scratch.left()).toEqual([]);
  });

  test('takes no database that is one of the sync, or that is not empty', async () => {
    const tried = async (scratch: string) => {
      const given = options(pair, 'target', { dryRun: true, scratch });
      const { reasons } = await move(given);
      // Found before anything is compared or placed.
      expect(given.events).toEqual([]);
      return reasons.join();
    };
    expect(await tried(pair.databases.sourceUrl)).toMatch(/which is one of the sync/);
    await using scratch = await scratchDatabase();
    const client = await session(scratch.url);
    await client.query('create table mine (id int)');
    expect(await tried(scratch.url)).toMatch(/is not empty: it has table public.mine/);
    expect((await client.query('select from mine')).rowCount).toBe(0);
  });
});

async function roleOf(client: pg.Client): Promise<string> {
  return (await client.query('select current_user as role')).rows[0].role;
}

/** An empty database beside the target, of the target's role; and what is in it beyond that. */
async function scratchDatabase() {
  const { targetAdmin, targetUrl } = pair.databases;
  await targetAdmin.query(`create database scratch owner ${await roleOf(pair.target)}`);
  const url = Object.assign(new URL(targetUrl), { pathname: 'scratch' }).href;
  const left = async () => {
    const client = await session(url);
    const { rows } = await client.query<{ what: string }>(
      `select relname::text as what from pg_class where relnamespace = 'public'::regnamespace
       union all select proname from pg_proc where pronamespace = 'public'::regnamespace
       union all select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$|public$)'`,
    );
    return rows.map(({ what }) => what);
  };
  const drop = async () => {
    await targetAdmin.query(`alter database scratch allow_connections false`);
    await targetAdmin.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = 'scratch'`,
    );
    await targetAdmin.query('drop database scratch');
  };
  return { url, left, [Symbol.asyncDispose]: drop };
}

/** Does something again and again; resolves, once stopped, to the SQLSTATEs of what was refused. */
function keepDoing(work: () => Promise<unknown>) {
  const stop = new AbortController();
  const refused = new Set<string>();
  const doing = (async () => {
    for (; !stop.signal.aborted; await sleep(2)) await work().catch(({ code }) => refused.add(code));
  })();
  const end = async () => {
    stop.abort();
    await doing;
    return [...refused];
  };
  return { end, [Symbol.asyncDispose]: async () => void (await end()) };
}

describe('a cutover is refused', () => {
  test('without a terminal, unless it is said that it is meant', async () => {
    const { sourceUrl, targetUrl } = pair.databases;
    const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
    const { code, said } = await ibex(['cutover'], { env });
    expect(code).toBe(2);
    expect(said.join(' ')).toMatch(/--yes/);
    const rehearsed = await ibex(['cutover', '--rehearse'], { env });
    expect({ code: rehearsed.code, said: rehearsed.said.join(' ') }).toMatchObject({
      code: 2,
      said: expect.stringMatching(/--scratch-url/),
    });
  });

  test('with a hook that cannot be run', async () => {
    const here = import.meta.filename;
    const { outcome, reasons } = await cutover(pair, {
      hooks: { before_fence: 'nobody-has-it', after_switch: here },
    });
    const cannot = 'is not there, or is no program that may be run';
    expect({ outcome, reasons }).toEqual({
      outcome: 'refused',
      reasons: [`the hook before_fence: nobody-has-it ${cannot}`, `the hook after_switch: ${here} ${cannot}`],
    });
  });

  test('of a choice of rows or columns: there is no way back from that', async () => {
    const { sync, ...given } = options(pair, 'target');
    const rule = {
      schema: 'public',
      name: 'goods',
      columns: null,
      select: [],
      where: 'stock > 0',
      place: '',
    };
    const { outcome, reasons } = await move({ ...given, sync: { ...sync, carry: [rule] } });
    expect(outcome).toBe('refused');
    expect(reasons.join()).toMatch(/public.goods: there is no way back/);
  });

  test('of a sync that is carried both ways', async () => {
    const { sync, ...given } = options(pair, 'target');
    const rivalry = { counterpart: 'main.back', first: 'source', second: 'target', rules: [] };
    const { outcome, reasons } = await move({
      ...given,
      sync: { ...sync, rivalry } as unknown as typeof sync,
    });
    expect({ outcome, reasons }).toMatchObject({
      outcome: 'refused',
      reasons: [expect.stringMatching(/both ways/)],
    });
  });

  test('while it is paused', async () => {
    await pair.target.query(`insert into ibex.restraint (sync, paused_at) values ('main', now())
      on conflict (sync) do update set paused_at = now()`);
    const { outcome, reasons } = await cutover(pair);
    await pair.target.query('update ibex.restraint set paused_at = null');
    expect(outcome).toBe('refused');
    expect(reasons.join()).toMatch(/paused since/);
  });

  test('with a held table', async () => {
    await pair.target.query(
      `update ibex.target_table set reason = 'somebody said so' where table_name = 'goods'`,
    );
    const { outcome, reasons } = await cutover(pair);
    await pair.target.query('update ibex.target_table set reason = null');
    expect({ outcome, reasons }).toMatchObject({
      outcome: 'refused',
      reasons: ['public.goods: somebody said so'],
    });
  });

  test('with rows that differ, whether or not a comparison was made before', async () => {
    await pair.target.query(`insert into goods (id, name) values (1000, 'of the target')`);
    for (const unverified of [true, false]) {
      const { outcome, reasons } = await cutover(pair, { unverified });
      expect(outcome).toBe('undone');
      expect(reasons.join()).toMatch(/comparison came to different.*public.goods/);
    }
    await pair.target.query('delete from goods where id = 1000');
  });

  test('while somebody else writes to the target', async () => {
    const other = await session(pair.databases.targetUrl);
    await other.query(`begin; insert into goods (id, name) values (1000, 'of the target')`);
    const { outcome, reasons } = await cutover(pair, { armTimeoutMs: 100, graceMs: 100 });
    expect(outcome).toBe('undone');
    expect(reasons.join()).toMatch(/locked by pid \d+|still writing: pid \d+/);
    await other.query('rollback');
  });

  test('twice at once', async () => {
    const writer = await session(pair.databases.sourceUrl);
    const first = onceDone('prepare', () => writer.query('begin; delete from bare where false'), {
      graceMs: 60_000,
      hooks: { before_fence: 'sleep 1', after_switch: 'exit 3' },
    });
    await waitFor(async () => (await pair.source.query(`select ibex.fence_is_up('main') as up`)).rows[0].up, {
      what: 'the fence of the first',
    });
    await expect(cutover(pair)).rejects.toMatchObject({ kind: 'taken' });
    await writer.query('rollback');
    expect(await first).toMatchObject({
      outcome: 'unfinished',
      live: 'target',
      error: { hint: expect.stringMatching(/is open.*IBEX_NEW_SIDE=target/) },
    });
    expect((await move(options(pair, 'source'))).outcome).toBe('done');
  });
});

describe('a cutover is given up', () => {
  test('when a session goes on writing past the grace time, which is named', async () => {
    const writer = await session(pair.databases.sourceUrl);
    const { outcome, reasons } = await onceDone(
      'prepare',
      () => writer.query('begin; delete from bare where false'),
      {
        graceMs: 100,
        hooks: { before_fence: 'sleep 1' },
      },
    );
    expect({ outcome, reasons }).toMatchObject({
      outcome: 'undone',
      reasons: [expect.stringMatching(/still writing: pid \d+ \(.*idle in transaction/)],
    });
    await writer.query('rollback');
  });

  test('when a prepared transaction is left, even if sessions may be ended', async () => {
    const writer = await session(pair.databases.sourceUrl);
    const { outcome, reasons } = await onceDone(
      'prepare',
      () => writer.query(`begin; delete from bare where false; prepare transaction 'left'`),
      { graceMs: 100, terminate: true, hooks: { before_fence: 'sleep 1' } },
    );
    expect(outcome).toBe('undone');
    expect(reasons.join()).toMatch(/prepared transaction 'left'/);
    await writer.query(`rollback prepared 'left'`);
  });

  test('when a connection breaks under the fence, which is lifted over another one', async () => {
    const { outcome } = await onceDone('fence', () =>
      pair.databases.sourceAdmin.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'ibex:main:cutover'`,
      ),
    );
    expect(outcome).toBe('undone');
  });

  test('when somebody lifts the fence, or the daemon is gone', async () => {
    const lifted = await onceDone('drain', async () => {
      const { rows } = await pair.source.query(`select lifts from ibex.fence where sync = 'main'`);
      await pair.source.query(rows[0].lifts);
    });
    expect(lifted).toMatchObject({ outcome: 'undone' });
    expect(lifted.reasons.join()).toMatch(/lifted by somebody else/);
    const alone = await onceDone('prepare', () => pair.sync.stop(), { hooks: { before_fence: 'sleep 2' } });
    expect(alone).toMatchObject({ outcome: 'undone' });
    expect((await cutover(pair)).reasons.join()).toMatch(/no daemon runs this sync/);
    pair.start();
    await pair.ready();
  });
});

describe('hooks', () => {
  test('of which one fails before the switch: nothing is done, and that is told', async () => {
    const told = await receiver();
    const { outcome, error } = await cutover(pair, {
      hooks: {
        before_fence:
          'test "$IBEX_SYNC $IBEX_PHASE $IBEX_NEW_SIDE" = "main before_fence target" && test -z "$IBEX_SOURCE_URL"',
        after_drain: 'exit 3',
        on_abort: told.url,
      },
    });
    expect(outcome).toBe('undone');
    expect(error?.message).toBe('the hook after_drain failed with exit code 3');
    expect(told.posted).toMatchObject([{ sync: 'main', phase: 'on_abort', command: 'cutover' }]);
    await told.close();
  });
});

async function receiver() {
  const posted: object[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (text) => {
      body += text;
    });
    request.on('end', () => {
      posted.push(JSON.parse(body));
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/hook`, posted, close: async () => void server.close() };
}
