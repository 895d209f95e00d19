/** What is refused, with the reason, and leaves everything as it was; hooks, and the rehearsal. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { move } from '../../src/cutover/move/procedure.ts';
import { ibex } from '../support/ibex.ts';
import { Pair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { cutover, options, ROWS, SCHEMA, type Wish, write } from './move.ts';

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

describe('a cutover is refused', () => {
  test('without a terminal, unless it is said that it is meant', async () => {
    const { sourceUrl, targetUrl } = pair.databases;
    const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
    const { code, said } = await ibex(['cutover'], { env });
    expect(code).toBe(2);
    expect(said.join(' ')).toMatch(/--yes/);
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
      hooks: { before_fence: 'sleep 1' },
    });
    await waitFor(async () => (await pair.source.query(`select ibex.fence_is_up('main') as up`)).rows[0].up, {
      what: 'the fence of the first',
    });
    await expect(cutover(pair)).rejects.toMatchObject({ kind: 'taken' });
    await writer.query('rollback');
    expect((await first).live).toBe('target');
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
