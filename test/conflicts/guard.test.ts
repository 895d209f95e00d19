/** The guard of a sync that goes one way: what others write on its target is noted, and decided about where it is in the way. */
import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { reversed, type SyncConfig } from '../../src/config/syncs.ts';
import type { GuardedTable } from '../../src/conflict/guarded.ts';
import type { TableName } from '../../src/core/plan.ts';
import { probeGuard } from '../../src/cutover/doctor/tables.ts';
import { findReasons } from '../../src/cutover/move/preflight.ts';
import { Session } from '../../src/postgres/session.ts';
import { PROOF } from '../../src/setup/teardown.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import {
  directoryWith,
  onBoth,
  type RunningSync,
  readSyncStatus,
  startSync,
  waitUntilCaughtUp,
} from '../support/sync.ts';

const servers = await useServers();

const NAMES = ['newest', 'source', 'target', 'function', 'hold'] as const;
type Name = (typeof NAMES)[number];

const CONFLICTS = {
  default: 'newest',
  tables: {
    'public.by_source': 'source',
    'public.by_target': 'target',
    'public.by_hold': 'hold',
    'public.by_function': { strategy: 'function', function: 'public.joined' },
  },
};

const TABLES = [
  ...NAMES.map((name) => `create table by_${name} (id int primary key, v text)`),
  'create table person (id int primary key, email text unique)',
  'create table emptied (id int primary key, v text)',
  `create function joined(a by_function, b by_function, meta jsonb) returns by_function language sql as
     $$ select row(a.id, a.v || ' and ' || b.v)::public.by_function $$`,
].join(';');

let databases: Databases;
let directory: string;
let sync: RunningSync;

beforeAll(async () => {
  databases = await freshDatabases(servers);
  directory = directoryWith(databases, { guard: true, conflicts: CONFLICTS });
  await onBoth(databases, TABLES);
  for (const table of [...NAMES.map((name) => `by_${name}`), 'emptied'])
    await databases.source.query(`insert into ${table} select i, 'old' from generate_series(1, 9) i`);
});

afterAll(async () => {
  await sync?.stop();
  await databases.dropAll();
  await rm(directory, { recursive: true });
});

const atSource = (sql: string) => databases.source.query(sql);
const atTarget = (sql: string) => databases.target.query(sql);

async function guardOf(table: string): Promise<GuardedTable | undefined> {
  return (await readSyncStatus(databases)).guard?.find((one) => one.table === `public.${table}`);
}

/** What others have written of a table and nothing has settled. */
async function keysOf(table: string): Promise<number | undefined> {
  return (await guardOf(table))?.keys;
}

async function cell(table: string, id: number): Promise<string | undefined> {
  return (await atTarget(`select v from ${table} where id = ${id}`)).rows[0]?.v;
}

async function recordsOf(table: string): Promise<string[]> {
  const { rows } = await atTarget(
    `select key[1] || ' ' || type || ' ' || winner as text from ibex.conflict where table_name = '${table}' order by id`,
  );
  return rows.map(({ text }) => text);
}

/** `there` is committed on the source first, `here` on the target, and only then the lane gets at the table. */
async function laterHere(table: string, there: string, here: string): Promise<void> {
  await atTarget(`begin; lock table ${table} in share row exclusive mode`);
  await atSource(there);
  await atTarget(`${here}; commit`);
}

async function notedOnTarget(): Promise<number> {
  const { rows } = await atTarget(`select coalesce(sum((xpath('/row/n/text()', query_to_xml(format(
    'select count(*) as n from ibex.delta_%s_%s', relid, n), false, true, '')))[1]::text::int), 0)::int as n from ibex.generation`);
  return rows[0].n;
}

test('what is written there is noted, what the lane brings is not, also where the daemon was killed', async () => {
  const run = () => startIbex(['run'], { cwd: directory });
  const killed = run();
  await waitFor(async () => (await guardOf('emptied'))?.armed, { what: 'the guard to stand' }).catch(
    (error) => {
      throw new Error(`${killed.stderr}`, { cause: error });
    },
  );
  await waitUntilCaughtUp(databases, 60_000);
  await atTarget(`update by_newest set v = 'here' where id = 9; insert into by_newest values (90, 'alone')`);
  killed.signal('SIGKILL');
  await killed.exited;
  await atTarget(`update by_newest set v = 'here' where id = 8`);
  await atSource(`update by_newest set v = 'there' where id >= 8`);
  sync = startSync(databases, { guard: CONFLICTS });
  await sync.caughtUp();
  expect(await recordsOf('by_newest')).toEqual([
    '8 update_origin_differs incoming',
    '9 update_origin_differs incoming',
  ]);
  expect([await cell('by_newest', 8), await cell('by_newest', 9)]).toEqual(['there', 'there']);
  // Nothing came against the third.
  expect(await keysOf('by_newest')).toBe(1);
  await atTarget('delete from by_newest where id = 90');
  await atSource(`insert into by_newest values (90, 'there')`);
  await sync.caughtUp();
  await atSource(`update emptied set v = v || 'x'; insert into emptied select i, 'load' from generate_series(100, 3000) i;
                  delete from emptied where id > 2000`);
  await sync.caughtUp();
  expect(await notedOnTarget()).toBe(0);
});

test('a change there loses, and is settled; or it stands until a later one comes', async () => {
  await atTarget(`update by_newest set v = 'here' where id in (1, 4, 5); delete from by_newest where id = 3;
                  insert into by_newest values (10, 'here'); delete from by_newest where id = 6`);
  await atSource(`update by_newest set v = 'there' where id in (1, 3); delete from by_newest where id in (4, 6);
                  update by_newest set v = 'here' where id = 5; insert into by_newest values (10, 'there')`);
  await sync.caughtUp();
  expect((await recordsOf('by_newest')).slice(3).sort()).toEqual([
    '1 update_origin_differs incoming',
    '10 insert_exists incoming',
    '3 update_missing incoming',
    '4 delete_origin_differs incoming',
  ]);
  expect(await keysOf('by_newest')).toBe(0);
  await laterHere(
    'by_newest',
    `update by_newest set v = 'earlier' where id = 2`,
    `update by_newest set v = 'later' where id = 2`,
  );
  await atSource(`update by_newest set v = 'again' where id in (1, 3, 5, 10)`);
  await sync.caughtUp();
  expect((await recordsOf('by_newest')).slice(7)).toEqual(['2 update_origin_differs local']);
  expect([await cell('by_newest', 2), await keysOf('by_newest')]).toEqual(['later', 1]);
  await atSource(`update by_newest set v = 'at last' where id = 2`);
  await sync.caughtUp();
  expect(await cell('by_newest', 2)).toBe('at last');
  expect(await keysOf('by_newest')).toBe(0);
  expect(await compareTables(databases.source, databases.target, ['public.by_newest'])).toEqual([]);
});

test('source, target and function', async () => {
  const write = (name: Name) =>
    laterHere(
      `by_${name}`,
      `update by_${name} set v = 'there' where id = 1`,
      `update by_${name} set v = 'here' where id = 1`,
    );
  for (const name of ['source', 'target', 'function'] as const) await write(name);
  await sync.caughtUp();
  const ends = async () => {
    const values = [];
    for (const name of ['source', 'target', 'function'])
      values.push([await cell(`by_${name}`, 1), await keysOf(`by_${name}`)]);
    return values;
  };
  expect(await ends()).toEqual([
    ['there', 0],
    ['here', 1],
    ['there and here', 1],
  ]);
  for (const name of ['source', 'target', 'function'])
    await atSource(`update by_${name} set v = 'more' where id = 1`);
  await sync.caughtUp();
  expect(await ends()).toEqual([
    ['more', 0],
    ['here', 1],
    ['more and there and here', 1],
  ]);
});

test('a person decides between the two, and is asked again where the row of the target was to stand', async () => {
  await atTarget(`update by_hold set v = 'here' where id in (1, 2)`);
  await atSource(`update by_hold set v = 'there' where id in (1, 2)`);
  await sync.caughtUp();
  const held = async () => {
    const { rows } = await atTarget(
      `select id, key[1] as key from ibex.conflict where state = 'held' order by key`,
    );
    return new Map(rows.map(({ id, key }) => [key, `target/${id}`]));
  };
  const before = await held();
  expect([...before.keys()]).toEqual(['1', '2']);
  await atSource(
    `update by_hold set v = 'there again' where id = 1; update by_hold set v = 'goes on' where id = 3`,
  );
  await sync.caughtUp();
  expect([await cell('by_hold', 1), await cell('by_hold', 3)]).toEqual(['here', 'goes on']);
  for (const [key, to] of [
    ['1', 'source'],
    ['2', 'target'],
  ] as const) {
    const { code, stderr } = await ibex(['conflicts', 'resolve', before.get(key) as string, '--to', to], {
      cwd: directory,
    });
    expect(stderr).toBe('');
    expect(code).toBe(0);
  }
  await sync.caughtUp();
  expect([await cell('by_hold', 1), await cell('by_hold', 2)]).toEqual(['there again', 'here']);
  expect(await keysOf('by_hold')).toBe(1);
  expect((await held()).size).toBe(0);
  await atSource(`update by_hold set v = 'once more' where id <= 2`);
  await sync.caughtUp();
  expect([await cell('by_hold', 1), await cell('by_hold', 2)]).toEqual(['once more', 'here']);
  expect([...(await held()).keys()]).toEqual(['2']);
});

test('a TRUNCATE there holds the table, and a copy makes it as the source has it, with nothing left to decide', async () => {
  await atTarget(`truncate emptied; insert into emptied values (1, 'here')`);
  await atTarget(`insert into person values (1, 'one')`);
  await atSource(`update emptied set v = 'there' where id = 2; insert into person values (2, 'one')`);
  const reasonOf = async (name: string) =>
    (await sync.status()).tables.find(({ table, state }) => table === `public.${name}` && state === 'held')
      ?.reason;
  const reason = await waitFor(() => reasonOf('emptied'), { what: 'the table to be held' });
  expect(reason).toMatch(/truncated on the target.*ibex tables recopy 'public\.emptied'/);
  // A value of another row is none of its business: what is in the way there the source may have as well.
  expect(await waitFor(() => reasonOf('person'), { what: 'the other one too' })).toMatch(/person.*email/);
  const { stderr } = await ibex(['tables', 'recopy', 'public.emptied', 'public.person', 'public.by_hold'], {
    cwd: directory,
  });
  expect(stderr).toBe('');
  await sync.caughtUp();
  for (const name of ['emptied', 'person', 'by_hold'])
    expect(await guardOf(name)).toMatchObject({ keys: 0, truncated: false });
  expect(
    await compareTables(databases.source, databases.target, [
      'public.emptied',
      'public.person',
      'public.by_hold',
    ]),
  ).toEqual([]);
  expect((await atTarget('select from ibex.held_key')).rowCount).toBe(0);
});

test('a cutover is refused, and so is another sync that would carry on; doctor names tables that cannot have a guard', async () => {
  const [lane] = loadConfig({ flags: {}, env: {}, cwd: directory }).syncs as [SyncConfig];
  await databases.targetAdmin.query('create table not_ours (id int primary key)');
  await using old = await Session.open({ url: databases.sourceUrl, name: 'test' });
  await using fresh = await Session.open({ url: databases.targetUrl, name: 'test' });
  const move = { sync: { ...lane, guard: null }, lane, next: reversed(lane), old, fresh };
  expect(await findReasons(move)).toEqual([expect.stringMatching(/^its target is guarded: /)]);
  const tables = ['by_newest', 'not_ours'].map((name) => ({ schema: 'public', name }));
  expect((await probeGuard(fresh, 'main', tables)).map(({ what }) => what)).toEqual([
    expect.stringMatching(/does not own public\.not_ours/),
  ]);
  const { rows } = await atTarget(
    `select refusal from ibex.capture_all(array['by_newest'::regclass]::oid[], 'onwards')`,
  );
  expect(rows).toEqual([{ refusal: 'main.guard notes its changes, and a guard stands alone' }]);
  expect(await probeGuard(fresh, 'other', [tables[0] as TableName])).toHaveLength(1);
});

test('past its part of the disk a guard goes, loudly, and comes back with a copy', async () => {
  await atTarget(`update by_target set v = 'here' where id = 2`);
  await atTarget(`call ibex.relieve('main.guard', true)`);
  const isOff = async () =>
    (await sync.status()).why.some((why) => why.startsWith('public.by_target is not guarded'));
  await waitFor(isOff, { what: 'the status to say so' });
  await atTarget(`update by_target set v = 'unseen' where id = 3`);
  await ibex(['tables', 'recopy', 'public.by_target', 'public.by_source'], { cwd: directory });
  await waitFor(async () => (await guardOf('by_source'))?.armed && (await guardOf('by_target'))?.armed, {
    what: 'the guard',
  });
  await sync.caughtUp();
  expect(await guardOf('by_target')).toMatchObject({ keys: 0, givenUp: null });
  expect(await cell('by_target', 3)).toBe('old');
});

test('a guard that somebody takes away stands again; nothing is left after a teardown', async () => {
  await atTarget('alter table by_source disable trigger all');
  const noted = async () => {
    await atTarget(`insert into by_source values (50, 'here') on conflict (id) do update set v = 'here'`);
    return (await keysOf('by_source')) === 1;
  };
  await waitFor(noted, { what: 'the guard to stand again' });
  expect((await ibex(['tables', 'remove', 'public.person'], { cwd: directory })).code).toBe(0);
  const { rows } = await atTarget(
    `select from pg_trigger where tgrelid = 'person'::regclass and tgname like 'ibex%'`,
  );
  expect(rows).toEqual([]);
  await sync.stop();
  const { code, stdout } = await ibex(['teardown', '--yes'], { cwd: directory });
  expect({ code, stdout }).toMatchObject({ code: 0 });
  for (const side of [databases.source, databases.target])
    expect((await side.query(PROOF)).rows).toEqual([{ objects_left: '0' }]);
});
