/** DDL on the source under a running sync, after which every row still has its place on the target. */
import { describe, expect, test } from 'vitest';
import { statesOf, versionsOf, versionsOfAll } from '../support/drift.ts';
import { MODES, usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const NAMES = ['narrow', 'wide', 'free', 'other', 'packed', 'clustered'];

describe('what changes no row', () => {
  const pair = usePair(servers);

  test('a dropped column, wider types, constraints, indexes, comments, grants, VACUUM FULL and CLUSTER are followed without holding or copying', async () => {
    await pair.inStep(
      NAMES.map((name) => `create table ${name} (id int primary key, gone text, v varchar(9) not null)`).join(
        ';',
      ),
      NAMES.map((name) => `insert into ${name} select i, 'g', 'v' || i from generate_series(1, 50) i`).join(
        ';',
      ),
    );
    const versions = () => versionsOfAll(pair.target, NAMES);
    const before = { states: await statesOf(pair.target), versions: await versions() };
    await pair.target.query('alter table wide alter v type text; alter table free alter v drop not null');
    await pair.source.query(`
      alter table narrow drop column gone;
      alter table wide alter v type varchar(90); alter table wide alter v type text;
      alter table free alter v drop not null, alter v set default 'd';
      create unique index on other (v); alter table other add check (id < 1000000);
      comment on column other.v is 'c'; grant select (v), update on other to public; alter table other alter v set statistics 7;
      analyze other; drop index other_v_idx`);
    await pair.source.query('vacuum full packed');
    await pair.source.query('cluster clustered using clustered_pkey');
    for (const name of NAMES) {
      const wide = name === 'wide' ? `'much too wide for nine'` : name === 'free' ? 'null' : `'new'`;
      await pair.source.query(`insert into ${name} (id, v) values (100, ${wide})`);
    }
    await pair.sync.caughtUp();
    await pair.target.query(`delete from ${NAMES.join(' where id = 100; delete from ')} where id = 100`);
    expect({ states: await statesOf(pair.target), versions: await versions() }).toEqual(before);
    for (const name of NAMES)
      await pair.source.query(`update ${name} set v = 'changed' where id <= 3 or id = 100`);
    await pair.target.query('alter table narrow drop column gone');
    await pair.equal();
  });
});

describe.each(MODES)('a column that is added where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('is carried where the target has it already, with the value that it gave to rows from before it', async () => {
    const names = ['plain', 'same', 'lacks', 'differs', 'odd', 'busy'];
    await pair.inStep(
      `create type mood as enum ('glad', 'sad, so');
       ${names.map((name) => `create table ${name} (id int primary key, v text)`).join(';')}`,
      names.map((name) => `insert into ${name} select i, 'v' from generate_series(1, 50) i`).join(';'),
    );
    const untouched = () => versionsOfAll(pair.target, ['plain', 'same']);
    const before = await untouched();
    const odd = `alter table odd add a text default 'it''s {"q", \\}', add b numeric[] default '{1.0,NULL}', add c mood default 'sad, so',
      add d jsonb default '{"k": [1]}', add e timestamptz default now(), add f box default '(1,1),(0,0)', add g text default '', add h bytea default '\\x00ff'`;
    await pair.target.query(`
      alter table plain add c int; alter table same add c int default 7; alter table lacks add c int;
      alter table differs add c int default 8; update differs set c = id; ${odd}; alter table busy add c numeric(9,2)`);
    await pair.source.query(`
      alter table plain add c int; alter table same add c int default 7; alter table lacks add c int default 7;
      alter table differs add c int default 9; ${odd}`);
    await pair.source.query(`
      begin; update busy set v = 'before' where id <= 5; alter table busy add c numeric(9,2) default 1.5;
      update busy set c = 2.5 where id between 10 and 20; insert into busy values (100, 'new', null); delete from busy where id = 30; commit`);
    await pair.becomesEqual();
    expect(await untouched()).toEqual(before);
    for (const name of names) await pair.source.query(`update ${name} set v = 'w' where id % 7 = 0`);
    await pair.source.query('update lacks set c = null where id = 1');
    await pair.equal();
    await pair.ready();
  });
});

describe('columns that change places', () => {
  const pair = usePair(servers);

  test('names that are swapped, and a column that is dropped and added anew, never leave values in the wrong column', async () => {
    const names = ['swapped', 'anew', 'taken', 'there'];
    await pair.inStep(
      names.map((name) => `create table ${name} (id int primary key, a int, b int)`).join(';'),
      names.map((name) => `insert into ${name} select i, i, -i from generate_series(1, 50) i`).join(';'),
    );
    const swap =
      'alter table swapped rename a to x; alter table swapped rename b to a; alter table swapped rename x to b';
    await pair.source.query(`begin; ${swap}; update swapped set a = 1000 where id = 1; commit`);
    await pair.source.query(`alter table anew drop column a; alter table anew add column a int default 5`);
    await pair.source.query(`alter table taken rename a to old; alter table taken add column a int`);
    await pair.target.query(`alter table there drop column a; alter table there add column a int`);
    await onBoth(pair.databases, 'create table unrelated (id int)');
    await pair.target.query('alter table taken add column old int');
    await pair.becomesEqual(names.map((name) => `public.${name}`));
    // Both sides in the same way: the values are where they belong already.
    const before = await versionsOf(pair.target, 'swapped');
    await onBoth(pair.databases, swap);
    await pair.source.query('update swapped set b = 7 where id = 50');
    await pair.becomesEqual(['public.swapped']);
    expect((await versionsOf(pair.target, 'swapped')).split(', ').slice(0, 40)).toEqual(
      before.split(', ').slice(0, 40),
    );
  });
});
