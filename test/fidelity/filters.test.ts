/**
 * What a user chose to carry of a table (`carry` in ibex.yaml): some columns, expressions, some rows. Expected is what
 * the choice says, asked of the source at the end.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { redisForTests, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

async function read(client: pg.Client, query: string): Promise<string[]> {
  const { rows } = await client.query({ text: query, rowMode: 'array' });
  return rows.map((row) => row.join('|')).sort();
}

const USERS = `create table users (id int primary key, tenant_id int, name text, email text, secret text)`;
const SOME_USERS = `insert into users select i, i % 6, 'n' || i, 'e' || i || '@x', 's' || i from generate_series(1, 300) i`;
const RULE = {
  'public.users': {
    columns: ['id', 'tenant_id', 'name'],
    select: { email: 'md5(email)', initial: 'left(name, 1) -- and no more' },
    where: 'tenant_id = 4',
  },
};
const CHOSEN = 'select id, tenant_id, name, md5(email), left(name, 1) from users where tenant_id = 4';
const CARRIED = 'select id, tenant_id, name, email, initial from users';

describe.each(MODES)('$mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  async function chosen(expected = CHOSEN, carried = CARRIED): Promise<void> {
    await pair.sync.caughtUp();
    expect(await read(pair.target, carried)).toEqual(await read(pair.source, expected));
    for (const table of (await pair.sync.status()).tables) {
      expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
    }
  }

  test('some columns, expressions and some rows, copied and streamed', async () => {
    await onBoth(pair.databases, 'create table whole (id int primary key, v text)');
    await pair.source.query(
      `${USERS}; ${SOME_USERS}; insert into whole select i from generate_series(1, 20) i`,
    );
    await pair.target.query(
      `create table users (id int primary key, secret text default 'none', initial varchar(1), email char(32),
                           tenant_id int check (tenant_id = 4), name text)`,
    );
    pair.start({ carry: RULE });
    await chosen();
    // No more than the chosen rows were read.
    expect((await pair.sync.status()).tables.map(({ table, copied }) => `${table} ${copied}`)).toEqual([
      'public.users 50',
      'public.whole 20',
    ]);
    // Rows enter the filter and leave it, by a value, by NULL and by another key.
    await pair.source.query('update users set tenant_id = 4 where id % 10 = 1');
    await pair.source.query('update users set tenant_id = 5 where id % 10 = 4');
    await pair.source.query('update users set tenant_id = null where id % 20 = 6');
    await pair.source.query(`update users set name = 'x' || id, email = null where id % 3 = 0`);
    await chosen();
    await pair.source.query('update users set id = id + 1000 where id between 40 and 80');
    await pair.source.query('update users set id = id + 1000, tenant_id = 4 where id between 81 and 90');
    await pair.source.query('update users set id = id + 1000, tenant_id = 3 where id between 91 and 110');
    await pair.source.query('delete from users where id between 120 and 140');
    await chosen();
    await pair.source.query(
      `begin; insert into users values (2000, 4, 'in'), (2001, 5, 'out'), (2002, null, 'null');
       update users set tenant_id = 9 - tenant_id where id >= 2000; update users set tenant_id = 4 where id = 2002; commit`,
    );
    await chosen();
    expect(await read(pair.target, 'select distinct secret from users')).toEqual(['none']);
    expect(await read(pair.target, 'select count(*)::int from whole')).toEqual(['20']);
  });

  test('TRUNCATE and rows of the target that nobody carried', async () => {
    await pair.source.query(`${USERS}; ${SOME_USERS}`);
    await pair.target.query(USERS);
    await pair.target.query(`insert into users values (1, 1, 'mine'), (5000, 1, 'mine')`);
    pair.start({ carry: { 'public.users': { where: 'tenant_id = 4' } } });
    const expected = `select * from users where tenant_id = 4`;
    await chosen(
      `${expected} union select 1, 1, 'mine', null, null union select 5000, 1, 'mine', null, null`,
      'select * from users',
    );
    // The source writes the key, and its row is not carried: the target has none.
    await pair.source.query('update users set name = name where id = 1');
    await chosen(`${expected} union select 5000, 1, 'mine', null, null`, 'select * from users');
    await pair.source.query(`begin; truncate users; ${SOME_USERS}; delete from users where id > 100; commit`);
    await chosen(expected, 'select * from users');
  });

  test('a partitioned table, a copy that meets rows, and unique values that swap', async () => {
    const table = 'create table pt (id int, k int, u int, v text, primary key (id, k)';
    await pair.source.query(
      `${table}) partition by range (k); create table pt_a partition of pt for values from (0) to (100);
       create table pt_b (v text, gone int, k int not null, u int, id int not null, primary key (id, k));
       alter table pt_b drop gone; alter table pt attach partition pt_b for values from (100) to (200);
       insert into pt select i, i % 200, i, 'v' || i from generate_series(1, 400) i`,
    );
    await pair.target.query(
      `${table}, unique (u)); insert into pt values (2, 2, 2, 'old'), (3, 3, 1000, 'mine')`,
    );
    pair.start({ carry: { 'public.pt': { where: 'u % 2 = 0', select: { v: `upper(v) || '/' || k` } } } });
    const expected = `select id, k, u, upper(v) || '/' || k from pt where u % 2 = 0`;
    await chosen(`${expected} union select 3, 3, 1000, 'mine'`, 'select * from pt');
    await pair.source.query(
      'update pt set u = 402 - u where id > 3; update pt set k = 199 - k where id % 5 = 0',
    );
    await pair.source.query("truncate pt_b; insert into pt_b (id, k, u, v) values (1, 150, 5000, 'direct')");
    await chosen(`${expected} union select 3, 3, 1000, 'mine'`, 'select * from pt');
  });
});

describe('choices', () => {
  const pair = usePair(servers);

  test('names that Ibex uses itself, functions of the application, and types that differ', async () => {
    await pair.source.query(
      `create schema app; create function app.twice(int) returns int immutable language sql as 'select $1 * 2';
       create type app.mood as enum ('sad', 'glad');
       create table app.odd (k1 int, n int, t text, s int, present bool, "or ""der" app.mood, tableoid_ text, primary key (k1, n));
       insert into app.odd select i, -i, 't' || i, i, i % 2 = 0, case when i % 3 = 0 then 'sad' else 'glad' end::app.mood
         from generate_series(1, 60) i`,
    );
    await pair.target.query(
      `create schema app; create table app.odd (k1 int, n int, t text, s bigint, present text, "or ""der" text, made jsonb, primary key (k1, n))`,
    );
    pair.start({
      carry: {
        'app.odd': {
          select: {
            s: 'app.twice(n + s) + k1',
            present: 'present::text',
            'or "der': '"or ""der"',
            made: `('{"n": ' || n || '}')::jsonb /* t */`,
          },
          columns: ['k1', 'n', 't'],
          where: `"or ""der" = 'glad' or (present and t <> '); drop table app.odd; --')`,
        },
      },
    });
    const expected = `select k1, n, t, app.twice(n + s) + k1, present::text, "or ""der"::text, ('{"n": ' || n || '}')::jsonb::text
                        from app.odd where "or ""der" = 'glad' or present`;
    const carried = 'select k1, n, t, s, present, "or ""der", made::text from app.odd';
    await pair.sync.caughtUp();
    expect(await read(pair.target, carried)).toEqual(await read(pair.source, expected));
    await pair.source.query(
      `update app.odd set "or ""der" = 'sad' where k1 % 4 = 0; update app.odd set present = not present where k1 % 5 = 0;
       update app.odd set n = n - 1000 where k1 % 7 = 0; delete from app.odd where k1 = 1`,
    );
    await pair.sync.caughtUp();
    expect(await read(pair.target, carried)).toEqual(await read(pair.source, expected));
  });

  test('a choice that has changed since the table was copied has it copied again', async () => {
    await onBoth(pair.databases, `${USERS}; create table other (id int primary key)`);
    await pair.source.query(`${SOME_USERS}; insert into other values (1)`);
    const lines: string[] = [];
    const again = () => lines.filter((line) => line.includes('copied with another choice')).length;
    const steps: [rule: object, expected: string, copies: number][] = [
      [
        { columns: ['id', 'tenant_id'], where: 'tenant_id < 2' },
        'select id, tenant_id, null, null, null from users where tenant_id < 2',
        0,
      ],
      // The same, said otherwise in no way that matters.
      [
        { where: 'tenant_id < 2', columns: ['tenant_id', 'id'] },
        'select id, tenant_id, null, null, null from users where tenant_id < 2',
        0,
      ],
      [
        { columns: ['id', 'tenant_id'], where: 'tenant_id < 4' },
        'select id, tenant_id, null, null, null from users where tenant_id < 4',
        1,
      ],
      [
        { columns: ['id', 'tenant_id', 'name'], where: 'tenant_id < 4' },
        'select id, tenant_id, name, null, null from users where tenant_id < 4',
        2,
      ],
      [
        { select: { name: 'upper(name)' }, where: 'tenant_id = 1' },
        'select id, tenant_id, upper(name), email, secret from users where tenant_id = 1',
        3,
      ],
      [
        { select: { name: 'lower(name)' }, where: 'tenant_id = 1' },
        'select id, tenant_id, lower(name), email, secret from users where tenant_id = 1',
        4,
      ],
    ];
    for (const [rule, expected, copies] of steps) {
      pair.start({ carry: { 'public.users': rule }, logTo: (line) => lines.push(line) });
      await pair.sync.caughtUp();
      expect(again()).toBe(copies);
      expect(await read(pair.target, 'select * from users')).toEqual(await read(pair.source, expected));
      await pair.sync.stop();
      await pair.source.query(`update users set name = name || '!' where id % 3 = 0`);
    }
    pair.start({ logTo: (line) => lines.push(line) });
    await pair.equal();
    expect(again()).toBe(5);
  });

  test('a column that the choice needs is dropped: the table is held, the others go on, and nothing is lost', async () => {
    await onBoth(pair.databases, `${USERS}; create table other (id int primary key)`);
    await pair.source.query(SOME_USERS);
    const carry = { 'public.users': { columns: ['id', 'name'], where: 'tenant_id = 4' } };
    pair.start({ carry });
    const carried = 'select id, name from users';
    await pair.sync.caughtUp();
    expect(await read(pair.target, carried)).toEqual(
      await read(pair.source, 'select id, name from users where tenant_id = 4'),
    );
    await pair.source.query('alter table users rename tenant_id to tenant');
    await pair.source.query(`insert into other values (1); update users set name = 'late' where id % 5 = 0`);
    await waitFor(
      async () =>
        (await pair.sync.status()).why.some((why) =>
          /public\.users: where, tenant_id = 4: .*tenant_id.* does not exist/.test(why),
        ),
      { what: 'the table to be held by name' },
    );
    await waitFor(async () => (await read(pair.target, 'select * from other')).length === 1, {
      what: 'the other table',
    });
    await pair.sync.stop();
    pair.start({ carry: { 'public.users': { columns: ['id', 'name'], where: 'tenant = 4' } } });
    const expected = await read(pair.source, 'select id, name from users where tenant = 4');
    await waitFor(async () => `${await read(pair.target, carried)}` === `${expected}`, { what: 'the rows' });
    await pair.sync.caughtUp();
  });

  test('columns that the choice does not name may come and go on the source', async () => {
    await pair.source.query(`${USERS}; ${SOME_USERS}`);
    await pair.target.query('create table users (id int primary key, name text)');
    pair.start({ carry: { 'public.users': { columns: ['id', 'name'] } } });
    const query = 'select id, name from users';
    await pair.sync.caughtUp();
    expect(await read(pair.target, query)).toEqual(await read(pair.source, query));
    await pair.source.query(
      `alter table users add extra text, drop secret; update users set extra = 'x', name = 'new' where id < 9`,
    );
    await pair.sync.caughtUp();
    expect(await read(pair.target, query)).toEqual(await read(pair.source, query));
    expect((await pair.sync.status()).tables[0]).toMatchObject({ state: 'streaming', reason: null });
  });

  test('a table that is renamed on the source does not travel whole under its new name', async () => {
    await onBoth(pair.databases, USERS);
    await pair.source.query(SOME_USERS);
    const options = { carry: { 'public.users': { where: 'tenant_id = 4' } } };
    pair.start(options);
    await pair.sync.caughtUp();
    await onBoth(pair.databases, 'alter table users rename to people');
    await pair.source.query(`update people set name = 'late'`);
    // Either it goes on by its rule, or it waits for somebody to look at the rule.
    const late = async () =>
      (await read(pair.target, `select from people where name = 'late'`)).length === 50;
    await waitFor(async () => (await late()) || (await stopped()), {
      what: 'an answer to the new name',
    });
    await pair.sync.stop().catch(() => undefined);
    pair.start(options);
    await waitFor(async () => (await late()) || (await stopped()), {
      what: 'an answer to the new name',
    });
    expect(await read(pair.target, `select id from people where tenant_id is distinct from 4`)).toEqual([]);
  });

  /** The daemon has ended, or holds a table. */
  async function stopped(): Promise<boolean> {
    const ended = await pair.sync.caughtUp(0).then(String, String);
    return /ended/.test(ended) || (await pair.sync.status()).tables.some((table) => table.reason !== null);
  }

  test('through Redis', async (context) => {
    const redis = await redisForTests();
    if (redis === undefined) return context.skip();
    try {
      await pair.source.query(`${USERS}; ${SOME_USERS}`);
      await pair.target.query(`${USERS}; alter table users add initial text`);
      pair.start({ carry: RULE, redis: redis.url });
      await pair.sync.caughtUp();
      expect(await read(pair.target, CARRIED)).toEqual(await read(pair.source, CHOSEN));
      await pair.source.query(
        'update users set tenant_id = (tenant_id + 1) % 6; update users set id = -id where id % 4 = 0',
      );
      await pair.sync.caughtUp();
      expect(await read(pair.target, CARRIED)).toEqual(await read(pair.source, CHOSEN));
      await pair.source.query(`begin; truncate users; ${SOME_USERS}; commit`);
      await pair.sync.caughtUp();
      expect(await read(pair.target, CARRIED)).toEqual(await read(pair.source, CHOSEN));
    } finally {
      await redis.stop();
    }
  });
});
