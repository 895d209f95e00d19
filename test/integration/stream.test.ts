/** The path of a changed key from trigger to checkpoint, on real servers, under concurrent writers. */
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { RedisServer } from '../../src/embedded/redis.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let sync: RunningSync | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await sync?.stop();
  sync = undefined;
  await databases.dropAll();
});

async function connectMany(count: number): Promise<pg.Client[]> {
  const clients = Array.from(
    { length: count },
    () => new pg.Client({ connectionString: databases.sourceUrl }),
  );
  for (const client of clients) client.on('error', () => undefined);
  await Promise.all(clients.map((client) => client.connect()));
  return clients;
}

const SCHEMA = `
  create type mood as enum ('glad', 'calm', 'sad');
  create table account (id int primary key, email text unique, balance numeric not null, mood mood, notes jsonb, tags text[]);
  create table entry (id bigint generated always as identity primary key, account int not null references account, amount numeric(12,2));
  create table audit (at timestamptz, what text, amount numeric);
  create table event (id int, day date, what text, primary key (id, day)) partition by range (day);
  create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01');
  create table event_2 partition of event for values from ('2026-02-01') to ('2026-03-01');
`;

const ROWS = `
  insert into account select i, 'a' || i, i * 1.10, (array['glad','calm','sad'])[1 + i % 3]::mood, jsonb_build_object('n', i), array['x', i::text]
    from generate_series(1, 500) i;
  insert into entry (account, amount) select 1 + i % 500, i from generate_series(1, 2000) i;
  insert into audit select now(), 'start', i % 3 from generate_series(1, 50) i;
  insert into event select i, date '2026-01-01' + i % 59, 'e' || i from generate_series(1, 400) i;
`;

async function load(): Promise<void> {
  await onBoth(databases, SCHEMA);
  await databases.source.query(ROWS);
}

describe.each(['in-process', 'redis'])('through the %s queue', (kind) => {
  let redis: RedisServer | undefined;

  beforeEach(async (context) => {
    redis = kind === 'redis' ? await redisForTests() : undefined;
    if (kind === 'redis' && redis === undefined) context.skip('no redis-server on the PATH');
  });

  afterEach(async () => {
    await sync?.stop();
    sync = undefined;
    await redis?.stop();
  });

  const start = () => startSync(databases, redis === undefined ? {} : { redis: redis.url });

  test('existing rows and every kind of change arrive', async () => {
    await load();
    sync = start();
    await expectEqual(databases, sync);
    const { source } = databases;
    await source.query(`update account set balance = balance + 1, mood = 'sad' where id % 7 = 0`);
    await source.query(
      'update account set id = id + 10000, email = email || $1 where id between 490 and 495 and not exists (select from entry where account = account.id)',
      ['x'],
    );
    await source.query('delete from entry where id % 3 = 0');
    await source.query(`insert into audit select now(), 'more', i from generate_series(1, 20) i`);
    await source.query(`update audit set what = 'changed' where amount = 2`);
    await source.query(`delete from audit where ctid in (select ctid from audit where amount = 1 limit 5)`);
    await source.query(`update event set day = day + 25 where day < '2026-01-20'`);
    await source.query(
      `begin; savepoint s; delete from event; rollback to s; insert into event values (9999, '2026-02-02', 'kept'); commit`,
    );
    await expectEqual(databases, sync);
    await source.query('truncate audit; insert into audit values (now(), $1, 1)'.replace('$1', `'after'`));
    await source.query('truncate event_1');
    await source.query('begin; truncate entry; insert into entry (account, amount) values (1, 5); commit');
    await expectEqual(databases, sync);
    const { rows } = await databases.target.query('select count(*)::int as n from event where day >= $1', [
      '2026-02-01',
    ]);
    expect(rows[0].n).toBeGreaterThan(0);
  });

  test('300 concurrent writers lose nothing, and a transaction open throughout is carried when it commits last', async () => {
    await load();
    sync = start();
    await sync.caughtUp();
    const [late, rolledBack, ...writers] = await connectMany(302);
    await late?.query(
      `begin; insert into account values (777777, 'late', 1); insert into audit values (now(), 'late', 1)`,
    );
    await rolledBack?.query(
      `begin; savepoint s; insert into account values (888888, 'never', 1); rollback to s; update account set balance = 0 where id = 1`,
    );
    await Promise.all(
      writers.map(async (client, writer) => {
        for (let i = 0; i < 15; i++) {
          const id = (writer * 31 + i * 97) % 500 || 500;
          if (id === 1) continue;
          await client.query('update account set balance = balance + 1 where id = $1', [id]);
          await client.query('insert into entry (account, amount) values ($1, $2)', [id, i]);
          await client.query(`insert into audit values (now(), $1, $2)`, [`w${writer}`, i]);
        }
      }),
    );
    await sync.caughtUp();
    expect((await databases.target.query('select from account where id = 777777')).rowCount).toBe(0);
    await late?.query('commit');
    await rolledBack?.query('commit');
    await expectEqual(databases, sync);
    expect((await databases.target.query('select from account where id = 777777')).rowCount).toBe(1);
    expect((await databases.target.query('select from account where id = 888888')).rowCount).toBe(0);
    await Promise.all([late, rolledBack, ...writers].map((client) => client?.end()));
  });
});

test('unique values that swap owners, and cascades, converge with foreign keys in place and without replica rights', async () => {
  await onBoth(
    databases,
    `create table parent (id int primary key, code text unique not null, tree int references parent);
     create table child (id int primary key, parent int references parent on delete cascade on update cascade, note text)`,
  );
  await databases.source.query(`insert into parent select i, 'c' || i, nullif(i / 2, 0) from generate_series(1, 20) i;
    insert into child select i, 1 + i % 20, 'n' from generate_series(1, 100) i`);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  const { source } = databases;
  await source.query(
    `begin; update parent set code = 'tmp' where id = 1; update parent set code = 'c1' where id = 2; update parent set code = 'c2' where id = 1; commit`,
  );
  await expectEqual(databases, sync);
  await source.query(
    `begin; update parent set tree = null; delete from parent where id = 3; insert into parent values (103, 'c3', 1); update parent set id = 200 where id = 4; commit`,
  );
  await expectEqual(databases, sync);
  // The foreign keys are checked and whole again soon after.
  await waitFor(
    async () => {
      const { rows } = await databases.target.query(
        `select conname from pg_constraint
          where contype = 'f' and connamespace = 'public'::regnamespace and convalidated order by 1`,
      );
      const { parked } = (await sync?.status()) ?? { parked: ['unknown'] };
      return (
        rows.map((row) => row.conname).join() === 'child_parent_fkey,parent_tree_fkey' && parked.length === 0
      );
    },
    { what: 'both foreign keys to be valid' },
  );
});

test('rows with an identity ALWAYS beside their key are updated in place: nothing cascades from them', async () => {
  await onBoth(
    databases,
    `create table ticket (id uuid primary key, number bigint generated always as identity, title text);
     create table comment (id int primary key, ticket uuid not null references ticket on delete cascade)`,
  );
  await databases.source.query(`insert into ticket (id, title) select md5(g::text)::uuid, 't' || g from generate_series(1, 10) g;
    insert into comment select g, md5(g::text)::uuid from generate_series(1, 10) g`);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  await databases.source.query(`update ticket set title = title || '!'`);
  await expectEqual(databases, sync);
  await databases.source.query(`update ticket set number = default where title = 't3!'`);
  await expectEqual(databases, sync);
  expect((await databases.target.query('select from comment')).rowCount).toBe(10);
});

test('user triggers of the target do not fire for replicated rows, and are disabled by name only', async () => {
  await onBoth(databases, `create table t (id int primary key, v int); create table log (id int)`);
  await databases.target.query(`
    create function spoil() returns trigger language plpgsql as $$ begin new.v := -1; return new; end $$;
    create trigger spoil before insert or update on t for each row execute function spoil();
    create rule swallow as on delete to t do instead nothing`);
  await databases.source.query('insert into t select i, i from generate_series(1, 10) i');
  sync = startSync(databases, { tables: ['public.t'] });
  await sync.caughtUp();
  await databases.source.query('update t set v = v * 2; delete from t where id = 3');
  await sync.caughtUp();
  expect(await compareTables(databases.source, databases.target, ['public.t'])).toEqual([]);
});

test('a table that cannot be applied is held with its reason, the others go on, and it heals by itself', async () => {
  await onBoth(
    databases,
    'create table good (id int primary key, v int); create table bad (id int primary key, v int)',
  );
  sync = startSync(databases);
  await sync.caughtUp();
  await databases.target.query('alter table bad add constraint small check (v < 10)');
  await databases.source.query('insert into bad values (1, 100); insert into good values (1, 1)');
  const status = sync.status;
  // In one look: a held table is free while it is tried again.
  const verdict = await waitFor(
    async () => {
      const { verdict, tables } = await status();
      const bad = tables.find((table) => table.table === 'public.bad');
      const isHeld = bad?.state === 'held' && /small/.test(bad.reason ?? '');
      return isHeld && bad.held === 1 && bad.captured === 1 ? verdict : undefined;
    },
    { what: 'the table to be held, and its row counted' },
  );
  expect(verdict).toBe('NOT READY');
  await databases.source.query('insert into good values (2, 2)');
  const goodDiffers = () => compareTables(databases.source, databases.target, ['public.good']);
  await waitFor(async () => (await goodDiffers()).length === 0, { what: 'the other table' });
  await databases.target.query('alter table bad drop constraint small');
  await databases.source.query('insert into bad values (2, 5)');
  await waitFor(async () => (await status()).tables.every((table) => table.state !== 'held'), {
    what: 'none to be held',
  });
  await expectEqual(databases, sync);
});
