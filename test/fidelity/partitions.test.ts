/** Partitioned tables, whose partitions the target may have too, have otherwise, or not have at all. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers();

/** Levels, strategies and keys; on the target `pt` is plain, `deep` and `lst` are divided otherwise, `plain` by range. */
const SOURCE = `
  create table pt (id int, day date, v text, primary key (id, day)) partition by range (day);
  create table pt_1 partition of pt for values from ('2026-01-01') to ('2026-02-01');
  create table pt_2 partition of pt for values from ('2026-02-01') to ('2026-03-01');
  create table pt_rest partition of pt default;
  create table deep (id int, area text, k int, v text, primary key (id, area, k)) partition by list (area);
  create table deep_n partition of deep for values in ('n') partition by range (k);
  create table deep_n_1 partition of deep_n for values from (0) to (100);
  create table deep_n_2 partition of deep_n for values from (100) to (200);
  create table deep_s partition of deep for values in ('s', 'e') partition by hash (id);
  create table deep_s_0 partition of deep_s for values with (modulus 2, remainder 0);
  create table deep_s_1 partition of deep_s for values with (modulus 2, remainder 1);
  create table lst (id int primary key, v text) partition by list (id);
  create table lst_1 partition of lst for values in (1, 2, 3);
  create table lst_2 partition of lst for values in (4, 5, 6);
  create table hsh (id int primary key, v text) partition by hash (id);
  create table hsh_0 partition of hsh for values with (modulus 2, remainder 0);
  create table hsh_1 partition of hsh for values with (modulus 2, remainder 1);
  create table plain (id int primary key, v text);
  create table loose (day int, v text) partition by range (day);
  create table loose_1 partition of loose for values from (0) to (10);
  create table loose_2 partition of loose for values from (10) to (20);
`;
const TARGET = `
  create table pt (id int, day date, v text, primary key (id, day));
  create table deep (id int, area text, k int, v text, primary key (id, area, k)) partition by range (k);
  create table deep_n_1 partition of deep for values from (0) to (50);
  create table deep_high partition of deep for values from (50) to (1000);
  create table lst (id int primary key, v text) partition by list (id);
  create table lst_1 partition of lst for values in (1, 2);
  create table lst_2 partition of lst for values in (3, 4, 5, 6);
  create table hsh (id int primary key, v text);
  create table plain (id int primary key, v text) partition by range (id);
  create table plain_1 partition of plain for values from (-1000) to (20);
  create table plain_2 partition of plain for values from (20) to (1000);
  create table loose (day int, v text);
`;
const ROWS = `
  insert into pt select i, date '2026-01-01' + i % 80, 'v' from generate_series(1, 200) i;
  insert into deep select i, (array['n', 's', 'e'])[1 + i % 3], i % 200, 'v' from generate_series(1, 300) i;
  insert into lst select i, 'v' from generate_series(1, 6) i;
  insert into hsh select i, 'v' from generate_series(1, 50) i;
  insert into plain select i, 'v' from generate_series(1, 50) i;
  insert into loose select i % 20, 'v' || i % 3 from generate_series(1, 60) i;
`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  async function inStep(target: string): Promise<void> {
    await pair.source.query(SOURCE + ROWS);
    await pair.target.query(target);
    pair.start();
    await pair.equal();
  }

  async function change(): Promise<void> {
    const { source } = pair;
    await source.query(`
      update pt set day = day + 31 where id % 2 = 0; update pt set id = -id where id < 20; delete from pt_1 where id = 31;
      insert into pt_2 values (1, '2026-02-03', 'leaf') on conflict do nothing;
      update deep set area = 'n', k = 150 - k where id % 4 = 0 and k < 100; update deep_s_0 set v = 'leaf';
      delete from lst where id > 3; update lst set id = id + 3; update hsh set id = id + 100; update plain set id = id - 100;
      update loose set day = 19 - day where v = 'v1'; delete from loose_2 where v = 'v2'; insert into loose values (3, 'v0')`);
    await pair.equal();
    await source.query(`
      merge into pt using generate_series(1, 100) s(i) on s.i = pt.id when matched then update set day = pt.day - 20;
      merge into deep using generate_series(1, 300) s(i) on s.i = deep.id and area = 's'
        when matched and s.i % 2 = 0 then delete when matched then update set area = 'e', id = id + 1000;
      merge into loose using generate_series(0, 19) s(i) on s.i = loose.day and loose.v = 'v0'
        when matched then update set day = 19 - loose.day;
      merge into loose using (values (3), (4), (30)) s(i) on s.i = loose.day and loose.v = 'v1'
        when matched then delete when not matched and s.i < 20 then insert values (s.i, 'merged')`);
    await pair.equal();
    await source.query(
      'begin; update pt set day = day + 10; update pt set day = day - 10; update lst set id = id - 3; commit',
    );
    await pair.equal();
  }

  test('keys that move between partitions, by UPDATE and MERGE and through any level', async () => {
    await inStep(SOURCE);
    await change();
  });

  test('the same where the target is divided otherwise or not at all', async () => {
    await inStep(TARGET);
    await change();
  });

  test('TRUNCATE of a partition empties its rows and no others, whatever the target has', async () => {
    await inStep(TARGET);
    const { source, target } = pair;
    await source.query(
      'truncate pt_1; truncate pt_rest; insert into pt_1 values (1, $$2026-01-02$$, $$after$$)',
    );
    await source.query(
      'truncate deep_n_1; truncate lst_1; insert into lst values (3, $$after$$); truncate loose_1',
    );
    await pair.equal();
    expect((await target.query('select from pt')).rowCount).toBeGreaterThan(10);
    expect((await target.query('select from deep_n_1')).rowCount).toBeGreaterThan(0);
    await source.query('truncate deep_s; insert into deep values (5, $$s$$, 5, $$after$$)');
    await source.query('truncate hsh_0; insert into hsh values (1000, $$after$$)');
    await pair.becomesEqual();
    await source.query('truncate deep_n');
    await pair.equal();
    await source.query('truncate pt, deep, plain, loose; insert into loose values (1, $$after$$)');
    await pair.equal();
  });

  test('TRUNCATE of a partition that the target has too', async () => {
    await inStep(SOURCE);
    const { source, target } = pair;
    await source.query(
      'truncate pt_1, deep_n, hsh_1, loose_2; insert into pt_1 values (1, $$2026-01-02$$, $$after$$)',
    );
    await pair.equal();
    expect((await target.query('select from hsh')).rowCount).toBeGreaterThan(10);
    expect((await target.query(`select from deep where area = 's'`)).rowCount).toBeGreaterThan(10);
  });
});
