/** ALTER TABLE that changes rows without firing a trigger, at rest and while a batch or a chunk is being read. */
import type pg from 'pg';
import { describe, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const tables = (names: string[], columns: string) =>
  names.map((name) => `create table ${name} (${columns})`).join(';');
const filled = (names: string[], values: string) =>
  names.map((name) => `insert into ${name} select ${values} from generate_series(1, 60) i`).join(';');

/** Waits until a session of ours runs a statement that matches. */
async function running(client: pg.Client, statement: string): Promise<void> {
  await waitFor(
    async () =>
      (
        await client.query(
          `select from pg_stat_activity where application_name like 'ibex:%' and state = 'active' and query ~ $1`,
          [statement],
        )
      ).rowCount,
    { what: `a statement such as ${statement}` },
  );
}

describe('a table that is rewritten', () => {
  test('is copied again by itself, whatever rewrote it', async () => {
    const names = ['same_type', 'wide', 'volatile', 'stored', 'numbered', 'keyed'];
    await pair.inStep(tables(names, 'id int primary key, v int'), filled(names, 'i, i'));
    await pair.target.query(`
      alter table wide alter v type bigint; alter table volatile add column r float8;
      alter table stored add column s int; alter table numbered add column n bigint`);
    await pair.source.query(`
      alter table same_type alter v type int using v * 2;
      alter table wide alter v type bigint using v + 3000000000;
      alter table volatile add column r float8 default random();
      alter table stored add column s int generated always as (v * 10) stored;
      alter table numbered add column n bigserial;
      begin; delete from keyed where id = 7; alter table keyed alter id type int using id + 1000; insert into keyed values (7, -7); commit`);
    await pair.becomesEqual();
    for (const name of names) await pair.source.query(`update ${name} set v = v + 1 where id % 3 = 0`);
    await pair.equal();
    await pair.ready();
  });

  test('or altered otherwise while a batch is being read is carried as it is', async () => {
    const names = ['b_rewritten', 'c_swapped', 'd_added', 'e_dropped', 'f_renamed'];
    await onBoth(
      pair.databases,
      `create function slow(text) returns text immutable language plpgsql as $$ begin perform pg_sleep(0.05); return $1; end $$;
       create table a_slow (id int primary key, v text); ${tables(names, 'id int primary key, v int, w int')}`,
    );
    await pair.source.query(
      `insert into a_slow select i, 'v' from generate_series(1, 60) i; ${filled(names, 'i, i, -i')}`,
    );
    // Reading a row of the first table takes its time, and all others of the batch are read after it.
    pair.start({ carry: { 'public.a_slow': { select: { v: 'public.slow(v)' } } } });
    await pair.becomesEqual();
    await pair.target.query('alter table d_added add column x int default 3');
    const writes = names.map(
      (name) => `update ${name} set v = v + 1 where id <= 30; delete from ${name} where id = 31`,
    );
    await pair.source.query(`begin; update a_slow set v = v || 'w'; ${writes.join(';')}; commit`);
    await running(pair.source, '^\\s*copy.*a_slow');
    await pair.source.query(`
      alter table b_rewritten alter v type int using v * 2;
      alter table c_swapped rename v to x; alter table c_swapped rename w to v; alter table c_swapped rename x to w;
      alter table d_added add column x int default 3; update d_added set x = 4 where id > 50;
      alter table e_dropped drop column w; alter table f_renamed rename w to z`);
    await pair.target.query('alter table f_renamed rename w to z; alter table e_dropped drop column w');
    await pair.becomesEqual();
    for (const name of names) await pair.source.query(`update ${name} set v = v + 1 where id % 3 = 0`);
    await pair.equal();
  });

  test('or altered otherwise while its chunks are being copied is carried as it is', async () => {
    const partitioned = (name: string) => `
      create table ${name} (id int primary key, v int, w int) partition by range (id);
      create table ${name}_1 partition of ${name} for values from (0) to (31);
      create table ${name}_2 partition of ${name} for values from (31) to (1000)`;
    const names = ['rewritten', 'swapped', 'added', 'packed'];
    await onBoth(pair.databases, names.map(partitioned).join(';'));
    await pair.source.query(filled(names, 'i, i, -i'));
    // Writing a row takes its time.
    await pair.target.query(`
      create function slow(int) returns bool language plpgsql as $$ begin perform pg_sleep(0.03); return true; end $$;
      ${names.map((name) => `alter table ${name} add check (slow(id))`).join(';')};
      alter table added add column x int`);
    pair.start();
    const ddl: Record<string, string> = {
      rewritten: 'alter table rewritten alter v type int using v * 2',
      swapped:
        'alter table swapped rename v to x; alter table swapped rename w to v; alter table swapped rename x to w',
      added: 'alter table added add column x int default 5',
      packed: 'cluster packed_2 using packed_2_pkey',
    };
    // In the order in which they are copied.
    for (const name of ['added', 'packed', 'rewritten', 'swapped']) {
      await running(pair.target, `^copy public.${name} `);
      const altered = pair.source.query(
        `${ddl[name]}; delete from ${name} where id in (3, 33); update ${name} set v = v + 1 where id in (4, 34)`,
      );
      await altered;
    }
    await pair.becomesEqual();
    await pair.equal();
  });
});
