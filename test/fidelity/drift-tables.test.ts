/** Tables that are dropped, created and renamed under a running sync, and what somebody takes away of ours. */
import { expect, test } from 'vitest';
import { remedyOf, runRemedy, versionsOf } from '../support/drift.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const table = (name: string) => `create table ${name} (id int primary key, v text)`;
const rows = (name: string, v = 'v') =>
  `insert into ${name} select i, '${v}' || i from generate_series(1, 40) i`;

test('a table that is dropped on the source is not waited for, and one that takes its name later is copied anew', async () => {
  await pair.inStep(`${table('gone')}; ${table('stays')}`, `${rows('gone')}; ${rows('stays')}`);
  await pair.source.query('drop table gone');
  await waitFor(async () => (await pair.sync.status()).tables.some(({ state }) => state === 'dropped'), {
    what: 'the drop to be noticed',
  });
  await pair.source.query(`insert into stays values (99, 'on')`);
  await pair.sync.caughtUp();
  await pair.ready();
  const status = await pair.sync.status();
  expect(status.tables.find(({ table }) => table === 'public.gone')).toMatchObject({
    state: 'dropped',
    reason: expect.stringMatching(/dropped on the source/),
  });
  expect((await pair.target.query('select from gone')).rowCount).toBe(40);
  // What it left on the source is gone with it.
  expect((await pair.source.query('select from ibex.captured')).rowCount).toBe(1);

  await pair.source.query(
    `create table gone (id int primary key, v text); insert into gone values (1, 'another')`,
  );
  await pair.becomesEqual();
  await pair.source.query(`insert into gone values (2, 'streams'); drop table gone; create table gone (id int primary key, v text);
    insert into gone values (5, 'and again')`);
  await pair.becomesEqual();
  await pair.source.query(`update gone set v = 'streams'`);
  await pair.equal();
});

test('tables whose names are swapped wait until they are swapped on the target, and are not copied again', async () => {
  await pair.inStep(
    `${table('one')}; ${table('two')}; ${table('live')}`,
    `${rows('one', 'a')}; ${rows('two', 'b')}; ${rows('live', 'c')}`,
  );
  const versions = [await versionsOf(pair.target, 'one'), await versionsOf(pair.target, 'two')];
  await pair.source.query(`begin; alter table one rename to x; alter table two rename to one; alter table x rename to two; commit;
    update one set v = 'was two' where id = 40; update two set v = 'was one' where id = 40`);
  expect(await remedyOf(pair, 'public.one')).toBe(
    'alter table public.one rename to one_other; alter table public.two rename to one;',
  );
  await runRemedy(pair, 'public.one');
  const next = /alter table public\.one_other rename to two;$/;
  await runRemedy(pair, 'public.two', next);
  await pair.becomesEqual();
  const now = [await versionsOf(pair.target, 'two'), await versionsOf(pair.target, 'one')];
  expect(now.map((all) => all.split(', ').slice(0, 39))).toEqual(
    versions.map((all) => all.split(', ').slice(0, 39)),
  );

  // The usual way to exchange a table: the new one is nobody's wish yet, and never gets among the old one's rows.
  await pair.source.query(`begin; alter table live rename to live_old; ${table('live')}; insert into live values (1, 'new'); commit;
    update live_old set v = 'still carried' where id = 2`);
  expect(await remedyOf(pair, 'public.live_old')).toBe('alter table public.live rename to live_old;');
  expect((await pair.target.query(`select from live where v = 'new'`)).rowCount).toBe(0);
  await runRemedy(pair, 'public.live_old');
  await pair.becomesEqual(['public.live_old']);
  await pair.target.query(table('live'));
  await pair.sync.stop();
  pair.start();
  await pair.becomesEqual();
  await pair.equal();
});

test('a table that is dropped and created on the target is copied again; triggers set aside follow a rename', async () => {
  await pair.inStep(`${table('anew')}; ${table('moved')}`, `${rows('anew')}; ${rows('moved')}`);
  await pair.target.query(`
    create function spoil() returns trigger language plpgsql as $$ begin new.v := 'spoilt'; return new; end $$;
    create trigger spoil before insert or update on moved for each row execute function spoil()`);
  await pair.sync.stop();
  pair.start();
  await pair.equal();
  await pair.target.query(`drop table anew; ${table('anew')}`);
  await onBoth(
    pair.databases,
    'create schema elsewhere; alter table moved set schema elsewhere; alter table elsewhere.moved rename to "Moved"',
  );
  await pair.source.query(
    `update anew set v = 'w' where id = 1; update elsewhere."Moved" set v = 'w' where id < 5`,
  );
  await pair.becomesEqual();
  await pair.equal();
  const { rows: parked } = await pair.target.query(
    'select schema_name, table_name, restore from ibex.parked',
  );
  expect(parked).toEqual([
    {
      schema_name: 'elsewhere',
      table_name: 'Moved',
      restore: 'alter table only elsewhere."Moved" enable trigger spoil',
    },
  ]);
});

test('triggers, functions and delta tables that somebody disabled or dropped are put back, and what went unseen is copied', async () => {
  const names = ['disabled', 'dropped', 'functions', 'deltas', 'recreated'];
  await pair.inStep(names.map(table).join(';'), names.map((name) => rows(name)).join(';'));
  const oid = (name: string) =>
    pair.source.query(`select '${name}'::regclass::oid::int8::text as oid`).then((r) => r.rows[0].oid);
  const unseen = (name: string) =>
    `delete from ${name} where id = 7; update ${name} set v = 'unseen' where id > 30; insert into ${name} values (100, 'unseen')`;
  await pair.source.query(
    `begin; alter table disabled disable trigger user; ${unseen('disabled')}; alter table disabled enable trigger user; commit`,
  );
  await pair.source.query(
    `begin; drop trigger ibex_update_${await oid('dropped')} on dropped; ${unseen('dropped')}; commit`,
  );
  const relid = await oid('functions');
  await pair.source.query(`begin; drop function ibex.insert_${relid}, ibex.update_${relid}, ibex.delete_${relid}, ibex.truncate_${relid} cascade;
    ${unseen('functions')}; commit`);
  await pair.source.query(
    `update deltas set v = 'noted' where id = 3; drop table ibex.delta_${await oid('deltas')}_1`,
  );
  // As pg_restore --clean does it.
  await pair.source.query(
    `begin; drop table recreated; ${table('recreated')}; ${rows('recreated', 'restored')}; commit`,
  );
  await waitFor(
    async () => (await pair.source.query(`update deltas set v = 'works' where id = 4`)).rowCount,
    {
      what: 'writes to work again',
    },
  );
  await pair.becomesEqual();
  for (const name of names)
    await pair.source.query(
      `update ${name} set v = 'seen' where id % 2 = 0; delete from ${name} where id = 9`,
    );
  await pair.becomesEqual();
  await pair.equal();
});

test('a table that the source does not note for the sync any more is taken up again', async () => {
  await pair.inStep(table('t'), rows('t'));
  await pair.source.query(
    `delete from ibex.source_table; delete from t where id = 7; update t set v = 'unseen' where id > 30`,
  );
  await pair.becomesEqual();
  await pair.source.query(`update t set v = 'seen' where id < 5`);
  await pair.equal();
  // Until somebody looks after it nobody is told that it is over there.
  await pair.sync.stop();
  await pair.source.query(`delete from ibex.source_table; update t set v = 'late' where id < 5`);
  await expect(waitUntilCaughtUp(pair.databases, 500)).rejects.toThrow('does not note it for this sync');
});
