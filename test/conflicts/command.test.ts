/**
 * `ibex conflicts` on a record that is known: what it lists and shows, what it says another strategy would have done, and
 * what a person's decision does to rows, keys and record. What becomes of the decision is for the daemon to carry.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { prepareCaptures } from '../../src/capture/trigger/arming.ts';
import { registerSync } from '../../src/capture/trigger/registry.ts';
import { parseRule } from '../../src/cli/conflict-flags.ts';
import { type Outcome, previewConflict } from '../../src/conflict/preview.ts';
import { type Conflict, readConflicts } from '../../src/conflict/recorded.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { Session } from '../../src/postgres/session.ts';
import { armAll } from '../../src/setup/setup.ts';
import { type IbexResult, ibex } from '../support/ibex.ts';
import { type Databases, freshDatabases, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

let databases: Databases;
let directory: string;

/** `a` is the first node, `b` the second. */
const TABLES = `
  create table stock (id int primary key, name text, n numeric, v int not null default 0);
  create table person (id int primary key, email text unique);
  create function bigger(a stock, b stock, meta jsonb) returns stock language sql as
    $$ select case when a.n > b.n then a else b end $$;
  create function summed(a stock, b stock, meta jsonb) returns stock language sql as
    $$ select row(a.id, a.name, a.n + b.n, a.v)::public.stock $$;`;

beforeAll(async () => {
  databases = await freshDatabases(servers);
  const { sourceUrl, targetUrl } = databases;
  await onBoth(databases, TABLES);
  for (const url of [sourceUrl, targetUrl]) await prepareNode(url);
  directory = await mkdtemp(join(tmpdir(), 'ibex-conflicts-'));
  const config = {
    nodes: { a: sourceUrl, b: targetUrl },
    syncs: [{ name: 'pair', between: ['a', 'b'], tables: ['public.*'] }],
  };
  await writeFile(join(directory, 'ibex.yaml'), JSON.stringify(config));
});

afterAll(async () => {
  await databases.dropAll();
  await rm(directory, { recursive: true });
});

afterEach(async () => {
  for (const client of [databases.source, databases.target]) {
    await client.query(
      `delete from stock; delete from person; delete from ibex.held_key; delete from ibex.conflict`,
    );
    const deltas = await client.query<{ name: string }>(
      `select format('ibex.delta_%s_%s', relid, n) as name from ibex.generation`,
    );
    await client.query(`truncate ${deltas.rows.map(({ name }) => name).join(', ')}`);
  }
});

/** Captured there and a target too, as a node of a two-way sync is. */
async function prepareNode(url: string): Promise<void> {
  await using session = await Session.open({ url, name: 'test' });
  await migrate(session, 'source');
  await migrate(session, 'target');
  await registerSync(session, 'pair', 0);
  const tables = await session.rows<{ relid: number }>(
    `select c.oid::int8::float8 as relid from pg_class c where c.relname in ('stock', 'person')`,
  );
  const relids = tables.map(({ relid }) => relid);
  expect(await prepareCaptures(session, 'pair', relids)).toEqual(new Map());
  await armAll(session, 'pair', relids, 1_000);
  await session.run(`insert into ibex.checkpoint (sync, system, database, timeline)
                     values ('pair', 's', 'd', 1), ('pair.back', 's', 'd', 1)`);
}

function conflicts(...args: string[]): Promise<IbexResult> {
  return ibex(['conflicts', ...args], { cwd: directory });
}

interface Listed {
  readonly conflicts: readonly { readonly id: string; readonly preview?: { readonly otherwise: boolean } }[];
  readonly more: number;
  readonly otherwise?: number;
}

async function listed(...args: string[]): Promise<Listed> {
  const { code, stdout, stderr } = await conflicts('list', '--json', ...args);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Listed;
}

interface Given {
  readonly on?: 'a' | 'b';
  readonly table?: string;
  readonly type?: string;
  readonly key?: string[];
  readonly columns?: string[];
  readonly local: (string | null)[] | null;
  readonly incoming: (string | null)[] | null;
  readonly localAt?: string;
  readonly incomingAt?: string;
  readonly strategy?: string;
  readonly winner?: string;
  readonly state?: string;
}

const STOCK = ['id', 'name', 'n', 'v'];

/** Writes down one conflict, as the applier does. Resolves to its id. */
async function record(given: Given): Promise<string> {
  const { on = 'b', table = 'stock', type = 'update_origin_differs', key = ['1'], columns = STOCK } = given;
  const { winner = 'incoming', state = 'resolved', strategy = 'newest' } = given;
  const [client, other, sync] =
    on === 'b' ? [databases.target, 'a', 'pair'] : [databases.source, 'b', 'pair.back'];
  const { rows } = await client.query<{ id: string }>(
    `insert into ibex.conflict (at, sync, schema_name, table_name, type, key, columns, local_node, incoming_node,
                                local_row, incoming_row, local_at, incoming_at, strategy, winner, batch, state)
     values (clock_timestamp(), $1, 'public', $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, '1-1', $14) returning id`,
    [
      ...[sync, table, type, key, columns, on, other, given.local, given.incoming],
      ...[given.localAt ?? '2026-01-01T00:00:02Z', given.incomingAt ?? '2026-01-01T00:00:03Z'],
      ...[strategy, winner, state],
    ],
  );
  return `${on}/${rows[0]?.id}`;
}

const LOCAL = ['1', 'local', '10', '7'];
const INCOMING = ['1', 'incoming', '9', '8'];

describe('list and show', () => {
  test('gather what both nodes have recorded, by every filter', async () => {
    const first = await record({ local: LOCAL, incoming: INCOMING });
    const second = await record({ on: 'a', local: null, incoming: INCOMING, type: 'update_missing' });
    const third = await record({ table: 'person', columns: ['id', 'email'], ...HELD, key: ['4'] });
    const ids = async (...args: string[]) => (await listed(...args)).conflicts.map(({ id }) => id);
    expect(await ids()).toEqual([third, second, first]);
    expect(await ids('--type', 'update_missing', '--since', '1h', '--sync', 'pair')).toEqual([second]);
    expect(await ids('--state', 'held,aborted', '--tables', 'public.per*')).toEqual([third]);
    expect(await ids('--since', '2999-01-01')).toEqual([]);
    expect(await listed('--limit', '1')).toMatchObject({ conflicts: [{ id: third }], more: 2 });
  });

  test('show says what each row was, and where they differ', async () => {
    const id = await record({ local: LOCAL, incoming: INCOMING });
    const { stdout } = await conflicts('show', id);
    expect(stdout).toContain(`conflict ${id}: update_origin_differs in public.stock (1)`);
    expect(stdout).toMatch(/name +incoming +local +differs/);
    expect(stdout).toMatch(/\bid +1 +1$/m);
    expect(stdout).toContain('newest: the row of a');
  });

  test.each([
    [['list', '--state', 'open'], 'There are held, aborted, resolved, closed'],
    [['list', '--preview', 'latest'], 'There are source, target, newest'],
    [['list', '--preview', 'column'], 'Write column=COLUMN'],
    [['show', 'b/999'], 'there is no conflict b/999'],
    [['resolve', 'b/999', '--to', '[1]'], 'source, target, a row'],
  ])('%j is refused in words', async (args, words) => {
    const { code, stderr } = await conflicts(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(words);
  });
});

const HELD = {
  strategy: 'hold',
  winner: 'none',
  state: 'held',
  local: ['4', 'here@example.org'],
  incoming: ['4', 'there@example.org'],
} as const satisfies Given;

const ROWS = { local: LOCAL, incoming: INCOMING };

/** What a strategy would have made of the only conflict on b. */
async function preview(flag: string): Promise<Outcome> {
  await using session = await Session.open({ url: databases.targetUrl, name: 'test' });
  const all = { types: null, states: null, since: null, number: null, covers: () => true };
  const [conflict] = await readConflicts(session, 'b', { ...all, syncs: ['pair'] });
  return await previewConflict(session, conflict as Conflict, parseRule(flag));
}

test.each([
  ['newest', 'a'],
  ['oldest', 'b'],
  ['source', 'a'],
  ['target', 'b'],
  ['priority=b,a', 'b'],
  ['column=v', 'a'],
  // As numbers, not as text.
  ['column=n', 'b'],
  ['function=public.bigger', 'b'],
])('%s would have had the row of %s stand', async (strategy, node) => {
  await record(ROWS);
  expect(await preview(strategy)).toEqual({ stands: node, made: null, unknown: null });
});

test('a preview knows new rows, and what it cannot know', async () => {
  await record(ROWS);
  expect(await preview('function=public.summed')).toMatchObject({ made: { n: '19' }, unknown: null });
  expect((await preview('function=public.nothing')).unknown).toContain('public.nothing fails');
  expect((await preview('column=nothing')).unknown).toContain('no column nothing');
  expect(await preview('hold')).toEqual({ stands: null, made: null, unknown: null });
});

test('a preview knows rows that are gone', async () => {
  await record({ local: null, incoming: INCOMING, type: 'update_missing' });
  expect(await preview('column=v')).toMatchObject({ stands: 'a' });
  expect(await preview('function=public.bigger')).toMatchObject({ stands: 'b' });
});

test('ties go to the node whose name comes first', async () => {
  await record({ ...ROWS, localAt: '2026-01-01T00:00:03Z', incoming: LOCAL });
  for (const strategy of ['newest', 'oldest']) expect(await preview(strategy)).toMatchObject({ stands: 'a' });
});

test('rows with equal values are compared as text', async () => {
  await record(ROWS);
  expect(await preview('column=id')).toMatchObject({ stands: 'a' });
  await record({ local: INCOMING, incoming: LOCAL });
  expect(await preview('column=id')).toMatchObject({ stands: 'b' });
});

test('list --preview says of each how it would have ended, and of how many otherwise', async () => {
  await record(ROWS);
  await record({ on: 'a', ...ROWS });
  const { conflicts: found, otherwise } = await listed('--preview', 'source');
  expect(found.map((one) => one.preview?.otherwise)).toEqual([true, false]);
  expect(otherwise).toBe(1);
});

describe('resolve', () => {
  const noted = async (client: pg.Client, table: string) => {
    const { rows } = await client.query<{ name: string }>(
      `select format('ibex.delta_%s_%s', relid, generation) as name from ibex.captured where table_name = $1`,
      [table],
    );
    const keys = await client.query<{ k: string }>(`select k1::text as k from ${rows[0]?.name} order by xid`);
    return keys.rows.map(({ k }) => k);
  };
  const stateOf = async (id: string) => {
    const { conflicts: all } = await listed();
    return all.find((one) => one.id === id);
  };

  test('a held key is let go on both nodes, and carried from the node whose row is to stand', async () => {
    const { source, target } = databases;
    const here = await record({ ...HELD, table: 'person', columns: ['id', 'email'], key: ['4'] });
    const there = await record({ ...HELD, on: 'a', table: 'person', columns: ['id', 'email'], key: ['4'] });
    await target.query(
      `insert into ibex.held_key values ('pair', 'public', 'person', '{4}', 1), ('pair', 'public', 'person', '{5}', 1)`,
    );
    await source.query(`insert into ibex.held_key values ('pair.back', 'public', 'person', '{4}', 1)`);
    const { code, stderr } = await conflicts('resolve', here, there, '--to', 'target');
    expect(code, stderr).toBe(0);
    expect(await noted(target, 'person')).toEqual(['4']);
    expect(await noted(source, 'person')).toEqual([]);
    expect((await source.query('select from ibex.held_key')).rowCount).toBe(0);
    expect((await target.query('select key from ibex.held_key')).rows).toEqual([{ key: ['5'] }]);
    for (const id of [here, there]) {
      expect(await stateOf(id)).toMatchObject({
        state: 'closed',
        reason: 'decided by a person: the row of b',
      });
    }
    const again = await conflicts('resolve', here, '--to', 'source');
    expect(again.code).toBe(2);
    expect(again.stderr).toContain('decided already');
  });

  test('what has stopped a lane is decided as that lane sees it', async () => {
    const { source, target } = databases;
    const here = await record({
      ...HELD,
      state: 'aborted',
      table: 'person',
      columns: ['id', 'email'],
      key: ['4'],
    });
    await record({
      ...HELD,
      state: 'aborted',
      on: 'a',
      table: 'person',
      columns: ['id', 'email'],
      key: ['4'],
    });
    expect((await conflicts('resolve', here, '--to', 'source')).code).toBe(0);
    const decisions = async (client: pg.Client) =>
      (await client.query('select sync, key, decision from ibex.held_key')).rows;
    expect(await decisions(target)).toEqual([{ sync: 'pair', key: ['4'], decision: 'incoming' }]);
    expect(await decisions(source)).toEqual([{ sync: 'pair.back', key: ['4'], decision: 'local' }]);
  });

  test('a row that a strategy has thrown away is put back', async () => {
    const { target } = databases;
    await target.query(`insert into stock values (1, 'incoming', 9, 8)`);
    const id = await record({ local: LOCAL, incoming: INCOMING });
    expect((await conflicts('resolve', id, '--to', 'target')).code).toBe(0);
    expect((await target.query('select * from stock')).rows).toEqual([
      { id: 1, name: 'local', n: '10', v: 7 },
    ]);
    expect(await noted(target, 'stock')).toContain('1');
    expect(await stateOf(id)).toMatchObject({
      state: 'resolved',
      reason: 'decided by a person: the row of b',
    });
  });

  test('a row of one’s own, or none, takes the place of both', async () => {
    const { target } = databases;
    const id = await record({ local: LOCAL, incoming: INCOMING });
    const give = (row: unknown) => conflicts('resolve', id, '--to', JSON.stringify(row));
    const rows = async () => (await target.query('select * from stock')).rows;
    expect((await give({ id: 1, name: null, n: '2.50', v: 3 })).code).toBe(0);
    expect(await rows()).toEqual([{ id: 1, name: null, n: '2.50', v: 3 }]);
    const file = join(directory, 'row.json');
    await writeFile(file, 'null');
    expect((await conflicts('resolve', id, '--to', file)).code).toBe(0);
    expect(await rows()).toEqual([]);
    expect((await give({ id: 1, name: 'x', n: 1 })).stderr).toContain('lacks the column v');
    expect((await give({ id: 1, name: 'x', n: 1, v: 1, w: 1 })).stderr).toContain('has a column w');
    expect((await give({ id: 2, name: 'x', n: 1, v: 1 })).stderr).toContain('another id than its key');
  });

  test('of two rows with one unique value the one that yields goes', async () => {
    const { target } = databases;
    await target.query(`insert into person values (7, 'one@example.org')`);
    const id = await record({
      ...{ ...HELD, type: 'update_exists', table: 'person', columns: ['id', 'email'], key: ['4'] },
      ...{ local: ['7', 'one@example.org'], incoming: ['4', 'one@example.org'] },
    });
    expect((await conflicts('resolve', id, '--to', 'source')).code).toBe(0);
    expect((await target.query('select from person')).rowCount).toBe(0);
    expect(await noted(target, 'person')).toEqual(['7', '7']);
    expect(await noted(databases.source, 'person')).toEqual(['4']);
  });
});
