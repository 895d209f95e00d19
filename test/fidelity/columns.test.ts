/**
 * Columns that are not the same on both sides: their order, their number, what fills them. Without any configuration
 * whatever has a place on the target is carried into it, and nothing else there is touched.
 */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { compareTables, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** Rows as text, in order. */
async function read(client: pg.Client, query: string): Promise<string[]> {
  const { rows } = await client.query({ text: query, rowMode: 'array' });
  return rows.map((row) => row.join('|')).sort();
}

describe.each(MODES)('$mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  /** Waits, then expects a query to give the same rows on both sides. */
  async function same(...queries: string[]): Promise<void> {
    await pair.sync.caughtUp();
    for (const query of queries) {
      expect(await read(pair.target, query), query).toEqual(await read(pair.source, query));
    }
  }

  test('columns in another order and columns that only the target has, which keep what they hold', async () => {
    await pair.source.query(
      'create table t (id int primary key, a text, u int unique deferrable, b numeric)',
    );
    await pair.target.query(
      `create table t (plain text, b numeric, given text not null default 'given', u int unique, id int primary key,
                       counted serial not null, a text, numbered int not null generated always as identity (start 100))`,
    );
    await pair.source.query(`insert into t select i, 'a' || i, i, i / 3.0 from generate_series(1, 100) i`);
    await pair.target.query(`insert into t (id, a, u, plain, given) values (1, 'old', 999, 'mine', 'mine')`);
    pair.start();
    const carried = 'select id, a, u, b from t';
    await same(carried);
    expect(await read(pair.target, 'select plain, given, counted, numbered from t where id = 1')).toEqual([
      'mine|mine|1|100',
    ]);
    expect(
      await read(
        pair.target,
        `select distinct plain is null, given, counted > 1, numbered > 100 from t where id > 1`,
      ),
    ).toEqual(['true|given|true|true']);

    await pair.target.query(`update t set plain = 'p' || id, given = 'g' || id`);
    const before = await read(pair.target, 'select id, plain, given, counted, numbered from t');
    await pair.source.query(`update t set a = 'new', b = null where id % 2 = 0`);
    await same(carried);
    // Unique values that swap places are solved by writing rows anew.
    await pair.source.query('update t set u = 101 - u');
    await same(carried);
    expect(await read(pair.target, 'select id, plain, given, counted, numbered from t')).toEqual(before);
    // To the target another key is another row.
    await pair.source.query('update t set id = 1000 where id = 5');
    await same(carried);
    expect(await read(pair.target, 'select plain, given from t where id = 1000')).toEqual(['|given']);
  });

  test('columns that were dropped before and while it runs, on either side', async () => {
    await pair.source.query(
      `create table t (gone1 text, id int, gone2 int default 3, a text, gone3 timestamptz default now(), b int);
       insert into t (id, a, b) select i, 'a' || i, i from generate_series(1, 50) i;
       alter table t drop gone1, drop gone3, add primary key (id)`,
    );
    await pair.target.query(
      `create table t (a text, x int, y int not null, id int primary key, b int, gone2 int, z text default 'z');
       alter table t drop x, drop y`,
    );
    pair.start();
    await same('select id, a, b, gone2 from t');
    await pair.source.query(
      `update t set a = 'x' where id < 10; delete from t where id = 11; insert into t values (99)`,
    );
    await same('select id, a, b, gone2 from t');
    await pair.source.query('alter table t drop gone2');
    await pair.source.query(`update t set b = -b; insert into t values (100, 'later', 1)`);
    await same('select id, a, b from t');
    await pair.target.query('alter table t drop z');
    await pair.source.query(`update t set a = a || '!'; insert into t values (101, 'last', 1)`);
    await same('select id, a, b from t');
  });

  test('generated columns: on both sides, on one, and with another expression', async () => {
    const rest = 'b int';
    await pair.source.query(
      `create table t (id int primary key, a int, twice int generated always as (a * 2) stored,
                       on_source int generated always as (a + 1) stored, on_target int, otherwise text, ${rest})`,
    );
    await pair.target.query(
      `create table t (id int primary key, a int, twice int generated always as (a * 2) stored, ${rest},
                       on_source int, on_target int generated always as (coalesce(a, 0) * 100) stored,
                       otherwise text generated always as (lower('A' || id)) stored)`,
    );
    await pair.source.query(
      `insert into t (id, a, on_target, otherwise, b) select i, nullif(i % 7, 0), -1, 'source', i from generate_series(1, 60) i`,
    );
    await pair.target.query('insert into t (id, a, on_source) values (3, 3, 3)');
    pair.start();
    const carried = 'select id, a, twice, on_source, b from t';
    const generated =
      "select count(*)::int from t where on_target = coalesce(a, 0) * 100 and otherwise = lower('A' || id)";
    await same(carried);
    expect(await read(pair.target, generated)).toEqual(['60']);
    await pair.source.query(
      'update t set a = a + 1, on_target = 5; delete from t where id = 7; insert into t (id) values (70)',
    );
    await pair.source.query('update t set id = id + 1000 where id % 3 = 0');
    await same(carried);
    expect(await read(pair.target, generated)).toEqual(['60']);
  });

  test('a key with a generated column, of which both sides or the source alone make it', async () => {
    const both = `create table both_sides (a int, b text, k text generated always as (lower(b)) stored not null, v int, primary key (a, k))`;
    await onBoth(pair.databases, both);
    await pair.source.query(
      'create table one (a int, k int generated always as (a * 10) stored primary key, v int)',
    );
    await pair.target.query('create table one (a int, k int primary key, v int)');
    await pair.source.query(
      `insert into both_sides (a, b, v) select i, 'Key' || i, i from generate_series(1, 40) i; insert into one (a, v) select i, i from generate_series(1, 40) i`,
    );
    pair.start();
    await pair.equal();
    await pair.source.query(
      `update both_sides set v = -v where a % 2 = 0; update both_sides set b = 'X' || b where a % 5 = 0;
       update both_sides set b = upper(b) where a % 3 = 0; delete from both_sides where a = 1;
       update one set v = -v; update one set a = -a where a % 5 = 0; delete from one where a = 2;
       insert into one (a) values (500); insert into both_sides (a, b) values (500, 'New')`,
    );
    await pair.equal();
    await pair.source.query('truncate one; insert into one (a) values (1)');
    await pair.equal();
  });

  test('identity columns, ALWAYS and BY DEFAULT, as key and beside it, on either side and on both', async () => {
    const kinds = {
      always: 'generated always as identity',
      default: 'generated by default as identity',
      none: 'not null',
    };
    const tables: string[] = [];
    for (const [here, there] of [
      ['always', 'always'],
      ['default', 'always'],
      ['none', 'always'],
      ['always', 'default'],
      ['always', 'none'],
      ['default', 'default'],
    ] as const) {
      for (const part of ['key', 'beside'] as const) {
        const name = `${part}_${here}_${there}`;
        const definition = (kind: keyof typeof kinds) =>
          part === 'key'
            ? `create table ${name} (n bigint primary key ${kinds[kind].replace('not null', '')}, id int, v text)`
            : `create table ${name} (id int primary key, n bigint ${kinds[kind]}, v text)`;
        await pair.source.query(definition(here));
        await pair.target.query(definition(there));
        await pair.source.query(
          here === 'none'
            ? `insert into ${name} (n, id, v) select i * 2, i, 'v' from generate_series(1, 30) i`
            : `insert into ${name} (id, v) select i, 'v' from generate_series(1, 30) i`,
        );
        tables.push(name);
      }
    }
    // Rows that were there before with other numbers.
    await pair.target.query(
      "insert into beside_always_always (id, n, v) overriding system value values (3, 777, 'old'), (4, 778, 'old')",
    );
    // Without a key rows are noted whole.
    await onBoth(pair.databases, 'create table keyless (n int generated always as identity, v text)');
    await pair.source.query(`insert into keyless (v) select 'v' from generate_series(1, 5)`);
    pair.start();
    await pair.equal();
    for (const name of tables) {
      const numbered = name.includes('none_') ? 'n = n + 5000' : 'n = default';
      await pair.source.query(
        `update ${name} set v = 'w' where id % 2 = 0; update ${name} set ${numbered} where id in (3, 4, 5); delete from ${name} where id = 9`,
      );
    }
    await pair.source.query(`update keyless set n = default where n = 2; delete from keyless where n = 3`);
    await pair.equal();
  });

  test('defaults, serials and identities of the target do not fill what is carried as NULL', async () => {
    await pair.source.query('create table t (id int primary key, a text, b int, c int, d timestamptz)');
    await pair.target.query(
      `create domain filled as text default 'domain';
       create table t (id serial primary key, a filled, b int default 7, c int default 0, d timestamptz default now())`,
    );
    await pair.source.query('insert into t select i from generate_series(1, 20) i');
    await pair.target.query('insert into t (id) values (1)');
    pair.start();
    await pair.equal();
    await pair.source.query(`insert into t values (100); update t set a = 'x', b = 1 where id < 5`);
    await pair.equal();
    await pair.source.query('update t set a = null, b = null; insert into t values (101, null, 1)');
    await pair.equal();
  });

  test('tables whose columns are all part of the key', async () => {
    await onBoth(
      pair.databases,
      `create table one (id int primary key); create table two (a int, b text, primary key (b, a));
       create table exact (a numeric, b float8, primary key (a, b))`,
    );
    await pair.source.query(
      `insert into one select generate_series(1, 50); insert into two select i, 'b' || i from generate_series(1, 50) i;
       insert into exact values (1.0, 0), (2, 2)`,
    );
    pair.start();
    await pair.equal();
    await pair.source.query(
      `update one set id = id + 125; delete from two where a < 9; update two set b = 'c' || a where a > 30;
       update exact set a = 1.00, b = '-0' where a = 1; insert into one values (1)`,
    );
    await pair.equal();
    await pair.source.query('truncate one, two');
    await pair.equal();
    expect(await compareTables(pair.source, pair.target, ['public.exact'])).toEqual([]);
  });
});
