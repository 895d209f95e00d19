/** Tables without a key: every row counts, as often as it is there. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('rows that are there several times are counted', async () => {
    await pair.inStep(
      'create table t (a int, b text)',
      `insert into t select i % 3, 'x' from generate_series(1, 30) i; insert into t values (null, null), (null, null), (null, '')`,
    );
    const source = pair.source;
    await source.query(`insert into t values (1, 'x'), (1, 'x'), (null, null)`);
    await pair.equal();
    await source.query('delete from t where ctid in (select ctid from t where a = 1 limit 5)');
    await pair.equal();
    await source.query(`update t set b = 'y' where ctid in (select ctid from t where a = 2 limit 4)`);
    await source.query('update t set a = 7 where ctid in (select ctid from t where a is null limit 2)');
    await pair.equal();
    await source.query(
      `insert into t values (9, 'z'); delete from t where a = 9; update t set b = b; insert into t values (9, 'z')`,
    );
    await pair.equal();
    await source.query(
      `begin; truncate t; insert into t values (5, 'new'), (5, 'new'); commit; delete from t where ctid = '(0,1)'`,
    );
    await pair.equal();
    expect((await pair.target.query('select from t')).rowCount).toBe(1);
  });

  test('rows that no operator compares, and such as are equal and not the same', async () => {
    await pair.inStep(
      `create table t (j json, x xml, p point, n numeric, f float8, c char(5), v varchar(9), i interval, a numeric[], b bool)`,
      `insert into t values
         ('{"a":1,  "a":2}', '<a>1</a>', '(0,-0)', 1.0, 0, 'a', 'a', '1 day', '{1.0}', true),
         ('{"a":2}', '<a> 1</a>', '(1,1)', 1.00, '-0', 'A', 'a ', '24 hours', '{1.00,NULL}', null)`,
    );
    await pair.source.query(`insert into t select * from t; update t set n = 1.000 where n::text = '1.0'`);
    await pair.equal();
    await pair.source.query(
      `update t set f = -f, i = '24 hours' where i::text = '1 day'; delete from t where n::text = '1.00'`,
    );
    await pair.equal();
    await pair.source.query(
      `update t set p = '(0,0)', j = '{"a":1, "a":2}', x = '<a>1 </a>', a = '{{1.000}}', b = null`,
    );
    await pair.equal();
  });

  test('unique columns that may be null swap their values', async () => {
    await pair.inStep(
      'create table t (a int unique, b int, unique (b)); create unique index part on t (a) where b > 0',
      'insert into t select i, -i from generate_series(1, 20) i; insert into t values (null, null), (null, null)',
    );
    await pair.source.query('update t set a = case a when 1 then 100 when 2 then 1 end where a <= 2');
    await pair.source.query(
      'update t set a = 2 where a = 100; update t set b = b - 1000; delete from t where a = 7',
    );
    await pair.equal();
    await pair.source.query('insert into t values (7, 7); update t set b = 8 where a is null and b = -1002');
    await pair.equal();
  });
});

describe('tables without key', () => {
  const pair = usePair(servers);

  test('where NULLS NOT DISTINCT leaves one null: by their whole rows; without nulls that index is the key', async () => {
    await pair.inStep(
      `create table n (a int, b text, unique nulls not distinct (a)); create table k (a int not null, b text, unique nulls not distinct (a))`,
      `insert into n values (null, 'one'), (1, 'x'); insert into k values (1, 'x'), (2, 'y')`,
    );
    const { rows } = await pair.source.query('select table_name, mode from ibex.captured order by 1');
    expect(rows).toEqual([
      { table_name: 'k', mode: 'key' },
      { table_name: 'n', mode: 'row' },
    ]);
    await pair.source.query(
      `update n set b = 'other' where a is null; update n set a = 2 where a = 1; update k set a = a + 2`,
    );
    await pair.equal();
  });

  test('are refused by name where the user wants none, also one that loses its key', async () => {
    await onBoth(
      pair.databases,
      'create table keyed (id int primary key, v int); create table bare (id int); create table loses (id int primary key)',
    );
    await pair.source.query(
      'insert into keyed values (1, 1); insert into bare values (1), (1); insert into loses values (1)',
    );
    pair.start({ keyless: 'refuse' });
    const states = async () =>
      Object.fromEntries(
        (await pair.sync.status()).tables.map(({ table, state, reason }) => [table, { state, reason }]),
      );
    await waitFor(async () => (await states())['public.loses']?.state === 'streaming', {
      what: 'the tables with keys',
    });
    await waitFor(
      async () => {
        const { state, reason } = (await states())['public.bare'] ?? {};
        const told = /public.bare has no primary key, replica identity or unique index.* refused/;
        return state === 'pending' && told.test(reason ?? '');
      },
      { what: 'the refusal of the other' },
    );
    await pair.source.query(
      'update keyed set v = 2; alter table loses drop constraint loses_pkey; insert into loses values (1)',
    );
    await waitFor(async () => /has no primary key/.test((await states())['public.loses']?.reason ?? ''), {
      what: 'the refusal',
    });
    await pair.becomesEqual(['public.keyed']);
    expect((await pair.target.query('select from bare')).rowCount).toBe(0);
    await pair.source.query(
      'delete from loses where ctid = $$(0,1)$$; alter table loses add primary key (id); alter table bare add x int generated always as identity primary key',
    );
    await pair.target.query('alter table bare add x int generated always as identity primary key');
    await pair.becomesEqual();
    await pair.equal();
  });

  test('once refused are carried when the user allows them', async () => {
    await onBoth(pair.databases, 'create table bare (id int)');
    await pair.source.query('insert into bare values (1), (1)');
    pair.start({ keyless: 'refuse' });
    await waitFor(async () => (await pair.sync.status()).tables[0]?.reason !== null, { what: 'the refusal' });
    await pair.sync.stop();
    await pair.source.query('insert into bare values (1), (2)');
    pair.start();
    await pair.becomesEqual();
    await pair.source.query('delete from bare where id = 2');
    await pair.equal();
  });
});
