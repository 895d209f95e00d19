/** Every way in which an application writes rows is captured and arrives: each case ends with both sides equal. */

import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import { describe, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers({ max_prepared_transactions: '20' });

/** Of the test that touches very many: TEST_MANY_ROWS gives another number, such as 10000000. */
const MANY_ROWS = Number(process.env.TEST_MANY_ROWS ?? 300_000);
const MANY_ROWS_MS = Math.max(300_000, MANY_ROWS / 4);

const SCHEMA = `
  create table t (id int primary key, v int, note text);
  create table u (id int primary key, t int references t on delete cascade on update cascade, v int);
  create table w (id int primary key, u int default 1 references u on delete set default on update set null, up int references w on delete set null);
  create table audit (at timestamptz default clock_timestamp(), what text, id int);
  create table tally (what text primary key, n int not null);
  create table parts (id int, k int, v int, primary key (id, k)) partition by hash (k);
  create table parts_0 partition of parts for values with (modulus 2, remainder 0);
  create table parts_1 partition of parts for values with (modulus 2, remainder 1);
  create table "Mixed Case" ("Id" int primary key, "select" int);`;

/** What only the source has: the application's triggers, rules and views. */
const APPLICATION = `
  create function note() returns trigger language plpgsql as $$ begin
    insert into audit (what, id) values (tg_op, coalesce(new.id, old.id)); return null; end $$;
  create trigger note after insert or update or delete on t for each row execute function note();
  create function count_rows() returns trigger language plpgsql as $$ begin
    insert into tally select tg_table_name, 1 on conflict (what) do update set n = tally.n + 1; return null; end $$;
  create trigger count_rows after insert or update or delete on u for each statement execute function count_rows();
  create function key_by_trigger() returns trigger language plpgsql as $$ begin
    if new.id < 0 then new.id := 10000 - new.id; end if; new.note := upper(new.note); return new; end $$;
  create trigger key_by_trigger before insert or update on t for each row execute function key_by_trigger();
  create function at_commit() returns trigger language plpgsql as $$ begin
    update tally set n = n + 1000 where what = 'commit'; insert into audit (what, id) values ('late', new.id); return null; end $$;
  create constraint trigger at_commit after insert or update on w deferrable initially deferred for each row execute function at_commit();
  create view both_of as select t.id, t.v, u.id as u from t join u on u.t = t.id;
  create function into_both() returns trigger language plpgsql as $$ begin
    if tg_op = 'DELETE' then delete from u where id = old.u; return old; end if;
    insert into t values (new.id, new.v) on conflict do nothing; insert into u values (new.u, new.id, new.v); return new; end $$;
  create trigger into_both instead of insert or delete on both_of for each row execute function into_both();
  create view positive as select id, v from t where v > 0 with check option;
  create table old_t (id int, v int);
  create rule redirect as on insert to old_t do instead insert into t (id, v) values (new.id, new.v);
  create rule also as on delete to "Mixed Case" do also update t set v = v + 1 where id = old."Id";`;

const ROWS = `
  insert into t select i, i, 'n' from generate_series(1, 200) i;
  insert into u select i, 1 + i % 200, i from generate_series(1, 200) i;
  insert into w select i, i, nullif(i / 2, 0) from generate_series(1, 200) i;
  insert into tally values ('commit', 0);
  insert into parts select i, i, i from generate_series(1, 100) i;
  insert into "Mixed Case" select i, i from generate_series(1, 20) i;`;

/** One transaction each, statement after statement. */
const CASES: Record<string, string> = {
  'UPDATE of nothing':
    'update t set v = 0 where false; delete from t where id = -5; insert into t select 1 where false',
  'UPDATE that changes nothing': 'update t set v = v, id = id; update parts set k = k',
  'DELETE .. USING, UPDATE .. FROM': `delete from u using t where u.t = t.id and t.id % 50 = 0; update t set v = u.v + 7 from u where u.t = t.id and u.id < 20`,
  'ON CONFLICT DO UPDATE': `insert into t values (1, -1, 'x'), (5001, 1, 'new') on conflict (id) do update set v = excluded.v, id = t.id + 7000`,
  'ON CONFLICT DO NOTHING': `insert into t values (2, -1, 'x'), (5002, 1, 'new') on conflict do nothing`,
  'ON CONFLICT DO UPDATE WHERE false': `insert into t values (3, -1, 'x') on conflict (id) do update set v = 0 where t.v > 1000000`,
  'MERGE with all its actions': `merge into t using (values (120), (121), (122), (6000), (6001)) s(id) on s.id = t.id
     when matched and t.id = 120 then delete when matched and t.id = 121 then update set id = 6003, v = 1 when matched then do nothing
     when not matched and s.id = 6000 then insert values (s.id, 1, 'm') when not matched then do nothing`,
  'MERGE with WHEN NOT MATCHED BY SOURCE': `merge into u using (select 1 as id) s on u.id = s.id when not matched by source and u.id > 190 then delete
     when matched then update set v = 99`,
  'MERGE that moves rows between partitions': `merge into parts using generate_series(1, 30) s(k) on s.k = parts.k when matched then update set k = parts.k + 500`,
  'UPDATE that moves rows between partitions': 'update parts set k = k + 1 where id < 60',
  'one writable CTE after the other': `with gone as (delete from u where id between 20 and 25 returning *), back as (insert into u select id + 800, t, v from gone returning id)
     insert into audit (what, id) select 'cte', id from back`,
  'the same table twice in one statement': `with a as (update t set v = v + 1 where id = 10 returning id), b as (insert into t values (5100, 1, 'cte') returning id),
       c as (delete from t where id = 11 returning id) update t set v = v + 100 where id = 12`,
  'cascades of foreign keys':
    'delete from t where id in (30, 31); update t set id = id + 3000 where id in (40, 41); delete from u where id in (50, 51)',
  'cascades over themselves': 'delete from w where id between 2 and 9',
  'triggers that write other tables': `insert into u values (2000, 60, 1); update u set v = v + 1 where id > 100; delete from u where id = 2000`,
  'a trigger that sets the key': `insert into t values (-7, 1, 'set by trigger'); update t set id = -id where id = 70`,
  'a constraint trigger that writes at COMMIT':
    'update w set u = 3 where id between 100 and 110; insert into w values (3000, 1, null)',
  'INSTEAD OF triggers of a view':
    'insert into both_of values (7000, 1, 7000), (7001, 1, 7001); delete from both_of where u = 7001',
  'an updatable view':
    'update positive set v = v + 1 where id < 15; delete from positive where id = 16; insert into positive values (7100, 5)',
  'rules DO INSTEAD and DO ALSO':
    'insert into old_t values (7200, 1), (7201, 2); delete from "Mixed Case" where "Id" in (1, 2)',
  'names that need quotes': 'update "Mixed Case" set "Id" = "Id" + 100, "select" = null',
  'savepoints and rollbacks': `savepoint a; delete from w; delete from t where id between 80 and 99; savepoint b; insert into t values (8000, 1); rollback to a; update t set v = -1 where id = 81;
     savepoint c; update t set id = 8100 where id = 82; release c; savepoint d; truncate w; rollback to d`,
  'more subtransactions than a snapshot knows by name': `do $$ begin for i in 1 .. 150 loop begin insert into t values (9000 + i, i, 's');
       if i % 3 = 0 then raise exception 'undone'; end if; exception when raise_exception then null; end; end loop; end $$`,
  'keys that go and come back': `delete from t where id = 90; insert into t values (90, 1, 'again'); update t set id = 9900 where id = 91; update t set id = 91 where id = 9900`,
  'rows that come and go': `insert into t values (9950, 1, 'x'); delete from t where id = 9950; insert into parts values (900, 900, 1); delete from parts where id = 900`,
  'TRUNCATE of nothing': 'truncate old_t',
  'TRUNCATE then rows': `truncate audit; insert into audit (what, id) values ('first', 1), ('first', 1)`,
  'rows then TRUNCATE': `insert into audit (what, id) values ('lost', 1); truncate audit restart identity; savepoint s; truncate tally; rollback to s`,
  'rows, TRUNCATE, rows, TRUNCATE of a partition': `insert into parts values (950, 950, 1); truncate parts_0; insert into parts values (951, 951, 1), (952, 952, 1), (953, 953, 1); update parts set v = 0`,
  'TRUNCATE .. CASCADE over foreign keys': `insert into t values (9990, 1); truncate u cascade; insert into u select i, (select min(id) from t), i from generate_series(1, 5) i; insert into w values (1, 1, 1)`,
  'TRUNCATE of several tables': `truncate t, u, w, tally; insert into t values (1, 1, 'z'), (2, 2, 'z'); insert into u values (1, 2, 1); insert into tally values ('commit', 0)`,
  'TRUNCATE and nothing more': 'truncate t, parts, "Mixed Case" cascade',
};

describe('statements of the application', () => {
  const pair = usePair(servers);

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: pair.databases.sourceUrl });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  test('statements of every kind are carried, alone and all in one batch', async () => {
    await pair.databases.source.query(SCHEMA);
    await pair.databases.target.query(SCHEMA);
    await pair.source.query(ROWS + APPLICATION);
    const names = ['t', 'u', 'w', 'audit', 'tally', 'parts', 'Mixed Case'].map((name) => `public.${name}`);
    pair.start({ tables: names });
    await pair.sync.caughtUp();
    for (const [what, statements] of Object.entries(CASES)) {
      await pair.source.query(`begin; ${statements}; commit`).catch((error) => {
        throw new Error(`${what}: ${error.message}`);
      });
      await pair.sync.caughtUp();
      await pair.becomesEqual(names).catch((error) => {
        throw new Error(`${what}: ${error.message}`);
      });
    }
    // Once more without a pause, so that one batch has several of them.
    await pair.source.query(
      ROWS.replaceAll(';', ' on conflict do nothing;').replace(/insert into audit.*;/, ''),
    );
    for (const statements of Object.values(CASES)) await pair.source.query(`begin; ${statements}; commit`);
    await pair.sync.caughtUp();
    await pair.becomesEqual(names);
    for (const table of (await pair.sync.status()).tables) {
      expect(table.applied + table.coalesced, table.table).toBe(table.captured);
    }
  });

  test('COPY, also with FREEZE', async () => {
    await pair.inStep('create table t (id int primary key, v text); create table k (v text)');
    const copy = async (statement: string, rows: string[]) =>
      pipeline(Readable.from(rows), pair.source.query(copyFrom(statement)));
    const lines = Array.from({ length: 2000 }, (_, i) => `${i}\tline ${i}\n`);
    await copy('copy t from stdin', lines);
    await copy('copy k from stdin', ['a\n', 'a\n', '\\N\n']);
    await pair.equal();
    await pair.source.query('begin; truncate t');
    await copy('copy t from stdin with (freeze)', lines.slice(0, 500));
    await pair.source.query('commit');
    await pair.equal();
    expect((await pair.target.query('select from t')).rowCount).toBe(500);
  });

  test('prepared transactions, committed in any order or rolled back', async () => {
    await pair.inStep(
      'create table t (id int primary key, v int); create table k (v int)',
      'insert into t select i, 0 from generate_series(1, 50) i',
    );
    const { source } = pair;
    const prepare = (name: string, statements: string) =>
      source.query(`begin; ${statements}; prepare transaction '${name}'`);
    const of = (name: string) => `${name} ${pair.databases.sourceUrl.split('/').at(-1)}`;
    await prepare(of('a'), 'update t set v = 1 where id <= 10; insert into k values (1)');
    await prepare(
      of('b'),
      'update t set id = id + 100 where id between 11 and 20; delete from t where id = 21',
    );
    await source.query('update t set v = 9 where id = 30');
    await prepare(of('c'), 'delete from t where id between 31 and 40; insert into k values (3)');
    await prepare(
      of('d'),
      'savepoint s; insert into t values (500, 1); rollback to s; insert into t values (501, 1)',
    );
    await pair.equal();
    await source.query(`commit prepared '${of('c')}'`);
    await pair.equal();
    await source.query('insert into k values (4)');
    await source.query(`rollback prepared '${of('b')}'`);
    await source.query(`commit prepared '${of('d')}'`);
    await source.query(`commit prepared '${of('a')}'`);
    await pair.equal();
    expect((await pair.target.query('select from t where v = 1')).rowCount).toBe(11);
  });

  test('writers that race for the same rows at every isolation level', async () => {
    await pair.inStep(
      'create table t (id int primary key, v int not null); create table sums (id int primary key, n int)',
      'insert into t select i, 0 from generate_series(1, 20) i; insert into sums values (1, 0)',
    );
    const levels = ['read committed', 'repeatable read', 'serializable'];
    const clients = await Promise.all(
      levels.flatMap((level) => [level, level]).map(async (level) => ({ level, client: await connect() })),
    );
    let committed = 0;
    await Promise.all(
      clients.map(async ({ level, client }, writer) => {
        for (let i = 0; i < 40; i++) {
          const id = 1 + ((i * 7 + writer) % 10);
          try {
            await client.query(`begin isolation level ${level}`);
            await client.query(
              'update t set v = v + 1, id = case when id < 100 then id + 100 else id - 100 end where id in ($1, $1 + 100)',
              [id],
            );
            await client.query('update sums set n = n + 1 where id = 1');
            await client.query('insert into t values ($1, 1) on conflict (id) do update set v = t.v + 1', [
              15 + (i % 3),
            ]);
            await client.query('commit');
            committed++;
          } catch {
            await client.query('rollback');
          }
        }
        await client.end();
      }),
    );
    expect(committed).toBeGreaterThan(20);
    await pair.equal();
  });

  test('statements that touch very many rows', { timeout: MANY_ROWS_MS }, async () => {
    await pair.inStep('create table t (id int primary key, v int)');
    await pair.source.query(`insert into t select i, i from generate_series(1, ${MANY_ROWS}) i`);
    await pair.equal(MANY_ROWS_MS);
    await pair.source.query('update t set v = -v');
    await pair.equal(MANY_ROWS_MS);
    await pair.source.query('update t set id = -id where id % 3 = 0');
    await pair.source.query('delete from t where id > 1000');
    await pair.equal(MANY_ROWS_MS);
  });
});
