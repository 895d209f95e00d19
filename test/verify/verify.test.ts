/** What verify finds, and what it does not take for a difference. */
import { describe, expect, test } from 'vitest';
import { bytes } from '../support/churn.ts';
import { BANK, BANK_ROWS, startLoad } from '../support/load.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { named, runVerify, tableOf } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);

/** A table of several ranges, with an index that orders by two columns, and rows that are stored out of line. */
const WIDE = 'create table wide (region text, id int, pad text, primary key (region, id))';
const WIDE_ROWS = `insert into wide select 'r' || i % 7, i, ${bytes(40_000, 'i')} from generate_series(1, 600) i`;

describe('under full load', () => {
  test('nothing is taken for a difference, and each real one is named', async () => {
    await pair.inStep(`${BANK} ${WIDE}`, `${BANK_ROWS} ${WIDE_ROWS}`);
    const load = await startLoad(pair.databases.sourceUrl, { clients: 4, pauseMs: 0 });
    try {
      const clean = await runVerify(pair.databases);
      expect(named(clean)).toEqual([]);
      expect(clean.verdict).toBe('equal');
      expect(tableOf(clean, 'public.wide').ranges.all).toBeGreaterThan(1);
      expect(tableOf(clean, 'public.branch').looked).toBeGreaterThan(0);

      // Accounts above 2900 come and go; from 2901 on they are left alone by the rest of the load.
      await pair.target.query(`
        update wide set pad = overlay(pad placing 'X' from 20000) where id = 77;
        delete from wide where id = 560;
        insert into wide values ('r0', 5000, 'extra'), ('zz', -1, null);
        insert into branch values (77, 0)`);
      const broken = await runVerify(pair.databases);
      expect(named(broken)).toEqual([
        'public.branch extra 77',
        'public.wide different r0,77',
        'public.wide extra r0,5000',
        'public.wide extra zz,-1',
        'public.wide missing r0,560',
      ]);
      expect(broken.verdict).toBe('different');
      expect(
        tableOf(broken, 'public.wide').rows.find(({ finding }) => finding === 'different')?.columns,
      ).toEqual([expect.objectContaining({ column: 'pad' })]);

      const repaired = await runVerify(pair.databases, { repair: true });
      expect(named(repaired)).toEqual([]);
      expect(repaired.tables.reduce((sum, table) => sum + table.repaired, 0)).toBe(5);
    } finally {
      await load.stop();
    }
    expect(load.errors).toEqual([]);
    await pair.equal();
  });
});

describe('at rest', () => {
  test('what is equal for its type and not the same is a difference, whatever the order of columns', async () => {
    const columns =
      'n numeric, f float8, j json, i interval, a numeric[], c char(5), z timestamptz, b bytea, e text';
    await pair.source.query(`create table v (id int primary key, ${columns})`);
    await pair.target.query(
      `create table v (b bytea, e text, z timestamptz, own int default 7, id bigint primary key,
                       c char(5), a numeric[], i interval, j json, f float8, n numeric)`,
    );
    await pair.source.query(`
      insert into v values (1, 1.0, 0, '{"a": 1}', '1 day', '{1.0}', 'a', now(), '\\x00ff', ''),
                           (2, 1.0, 0, '{"a": 1}', '1 day', '{1.0}', 'a', now(), '\\x00ff', null),
                           (3, 'NaN', 0.1::float4, null, null, null, null, 'infinity', '', E'\\\\"( ,\\n)')`);
    pair.start();
    await pair.sync.caughtUp();
    expect(await runVerify(pair.databases)).toMatchObject({ verdict: 'equal' });
    await pair.target.query(`
      update v set n = 1.00, f = '-0', j = '{"a":1}', i = '24 hours', a = '{1.00}', e = null where id = 1;
      update v set own = 8 where id = 2`);
    const report = await runVerify(pair.databases);
    expect(named(report)).toEqual(['public.v different 1']);
    expect(tableOf(report, 'public.v').rows[0]?.columns.map(({ column }) => column)).toEqual([
      ...['n', 'f', 'j', 'i', 'a', 'e'],
    ]);
    expect(tableOf(report, 'public.v').rows[0]?.columns[0]).toEqual({
      column: 'n',
      source: '1.0',
      target: '1.00',
    });
  });

  test('of many columns each counts, and whether it is null, a row of nulls, or empty', async () => {
    const names = Array.from({ length: 130 }, (_, i) => `c${i}`);
    const columns = `p pair, w char(5), n inet, b bool, ${names.map((name) => `${name} text`).join(', ')}`;
    for (const side of [pair.source, pair.target]) {
      await side.query('create type pair as (x int, y int)');
      await side.query(`create table many (id int primary key, ${columns})`);
    }
    await pair.target.query('alter table many alter w type text, alter n type text, alter b type text');
    await pair.source.query(
      `insert into many (id, p, w, n, b, c0, c129)
       values (1, row(null, null), 'a', '10.0.0.1', true, 'x', ''), (2, null, 'b', '::1', false, 'y', null),
              (3, row(1, 2), 'c', '10.0.0.0/8', true, 'z', '-')`,
    );
    pair.start();
    await pair.sync.caughtUp();
    expect(await runVerify(pair.databases)).toMatchObject({ verdict: 'equal' });
    await pair.target.query(`
      update many set p = null where id = 1;
      update many set c129 = '' where id = 2;
      update many set c0 = c129, c129 = c0 where id = 3`);
    const rows = tableOf(await runVerify(pair.databases), 'public.many').rows.map(({ key, columns }) => [
      ...(key ?? []),
      ...columns.map(({ column }) => column),
    ]);
    expect(rows.sort()).toEqual([
      ['1', 'p'],
      ['2', 'c129'],
      ['3', 'c0', 'c129'],
    ]);
  });

  test('rows of a table without key are counted, and sequences may not be behind', async () => {
    await pair.inStep(
      'create table k (a int, b text); create table s (id serial primary key)',
      `insert into k select i % 50, 'x' from generate_series(1, 5000) i; insert into s default values`,
    );
    await pair.sync.stop();
    expect(await runVerify(pair.databases)).toMatchObject({ verdict: 'equal', sequences: { compared: 1 } });
    await pair.target.query(`
      delete from k where ctid in (select ctid from k where a = 7 limit 3);
      insert into k values (null, 'more'), (null, 'more'); select setval('s_id_seq', 1, false)`);
    // Not applied, and known to the deltas: no difference.
    await pair.source.query(`insert into k values (7, 'x'), (8, 'new'); delete from k where a = 9`);
    const report = await runVerify(pair.databases);
    expect(tableOf(report, 'public.k').counts).toMatchObject({ missing: 3, extra: 2, pending: 0, moving: 0 });
    expect(tableOf(report, 'public.k').rows.map(({ columns }) => columns[0])).toEqual(
      expect.arrayContaining([
        { column: 'row', source: '(7,x)', target: null },
        { column: 'row', source: null, target: '(,more)' },
      ]),
    );
    expect(report.sequences.faults).toEqual([expect.stringMatching(/public\.s_id_seq is behind/)]);
  });

  test('what is not applied yet is no difference and no pass', async () => {
    await pair.inStep(
      'create table t (id int primary key, v int)',
      'insert into t select i, i from generate_series(1, 100) i',
    );
    await pair.sync.stop();
    await pair.source.query(
      'update t set v = 0 where id <= 3; delete from t where id = 4; insert into t values (101)',
    );
    await pair.target.query('update t set v = 5 where id = 6');
    const report = await runVerify(pair.databases);
    expect(named(report)).toEqual([
      'public.t different 6',
      ...['1', '101', '2', '3', '4'].map((id) => `public.t pending ${id}`),
    ]);
    await pair.target.query('update t set v = 6 where id = 6');
    expect(await runVerify(pair.databases)).toMatchObject({ verdict: 'undecided' });
  });

  test('a table that is not in step is undecided', async () => {
    await pair.inStep('create table t (id int primary key); create table u (id int primary key)');
    await pair.sync.stop();
    await pair.target.query(
      `update ibex.target_table set state = 'held', reason = 'because' where table_name = 'u'`,
    );
    const report = await runVerify(pair.databases);
    expect(report.verdict).toBe('undecided');
    expect(tableOf(report, 'public.u')).toMatchObject({ verdict: 'undecided', reason: 'because' });
  });
});

describe('shapes', () => {
  test('partitions that differ, generated columns, keys of many types, duplicates of a key', async () => {
    await pair.source.query(`
      create table p (id int, k text collate "C", v int, g int generated always as (v * 2) stored, primary key (id, k))
        partition by range (id);
      create table p1 partition of p for values from (0) to (500);
      create table p2 partition of p for values from (500) to (5000)`);
    await pair.target.query(
      'create table p (id int, k text, v int, g int generated always as (v * 2) stored, primary key (k, id))',
    );
    await onBoth(
      pair.databases,
      `create type mood as enum ('sad', 'ok'); create domain pos as int check (value > 0)`,
    );
    await pair.source.query(
      'create table e (m mood, d pos, c char(4), n numeric, at timestamptz, u uuid, x text, primary key (m, d, c, n, at, u))',
    );
    await pair.target.query(
      'create table e (m mood, d pos, c char(4), n numeric, at timestamptz, u uuid, x text)',
    );
    await pair.source.query(`
      insert into p select i, 'ä' || i, i from generate_series(1, 1000) i;
      insert into e select 'ok', i, 'a', i / 3.0, 'epoch'::timestamptz + i * interval '1 s',
                           md5(i::text)::uuid, 'x' from generate_series(1, 500) i`);
    pair.start();
    await pair.sync.caughtUp();
    expect(await runVerify(pair.databases)).toMatchObject({ verdict: 'equal' });
    await pair.target.query(`
      update p set v = -1 where id in (3, 900); insert into e select * from e where d = 17; delete from e where d = 20`);
    const report = await runVerify(pair.databases, { repair: false });
    expect(named(report).map((line) => line.split(',').slice(0, 2).join())).toEqual([
      'public.e different ok,17',
      'public.e missing ok,20',
      'public.p different 3,ä3',
      'public.p different 900,ä900',
    ]);
  });
});

describe('a choice', () => {
  test('of columns, expressions and rows is compared, and nothing else', async () => {
    const columns = ['id', 'tenant', 'name'];
    const choice = { columns, select: { mail: 'md5(mail)' }, where: 'tenant = 4' };
    const select = [{ column: 'mail', expression: 'md5(mail)' }];
    const wishes = {
      name: 'main',
      carry: [{ schema: 'public', name: 'person', ...choice, select, place: 'test' }],
      keyless: 'carry' as const,
    };
    await onBoth(
      pair.databases,
      'create table person (id int primary key, tenant int, name text, mail text, secret text)',
    );
    await pair.source.query(
      `insert into person select i, i % 6, 'n' || i, 'm' || i, 's' || i from generate_series(1, 300) i`,
    );
    pair.start({ carry: { 'public.person': choice } });
    await pair.sync.caughtUp();
    await pair.sync.stop();
    const equal = await runVerify(pair.databases, { wishes });
    expect(equal).toMatchObject({ verdict: 'equal', tables: [{ source: { rows: 50 }, looked: 0 }] });

    // Outside: a column that is not carried, and rows of other tenants.
    await pair.target.query(`update person set secret = 'forged' where id = 10`);
    await pair.source.query(`update person set name = 'changed', secret = 'changed' where tenant = 5`);
    expect(await runVerify(pair.databases, { wishes })).toMatchObject({ verdict: 'equal' });

    await pair.target.query(`update person set name = 'forged' where id = 16; update person set mail = 'm22' where id = 22;
      delete from person where id = 28; insert into person values (9, 3, 'n9', md5('m9'))`);
    expect(named(await runVerify(pair.databases, { wishes }))).toEqual([
      'public.person different 16',
      'public.person different 22',
      'public.person extra 9',
      'public.person missing 28',
    ]);
  });
});

describe('between encodings', () => {
  const other = usePair(servers, { targetIs: `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'` });

  test('texts are compared, not their bytes', async () => {
    await other.inStep(
      'create table t (id text primary key, v text)',
      `insert into t values ('ä', 'é'), ('b', 'ü')`,
    );
    expect(await runVerify(other.databases)).toMatchObject({ verdict: 'equal' });
    await other.target.query(`update t set v = 'è' where id = 'ä'`);
    expect(named(await runVerify(other.databases))).toEqual(['public.t different ä']);
  });
});
