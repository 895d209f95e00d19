/** Keys as tables have them: of several columns, under any name, changed by UPDATE, and what else can stand for one. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** The columns by which `ibex.captured` says that each table is noted, in their order. */
const NOTED = `select table_name as table, mode, columns from ibex.captured order by 1`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('keys of one and of several columns swap, rotate, shift by one and change their sign', async () => {
    await pair.inStep(
      `create table one (id int primary key, u int not null unique, v text);
       create table two (a int, b text, u int, v int, primary key (b, a), unique (u));
       create table late (id int primary key deferrable initially deferred, u int unique deferrable, v text)`,
      `insert into one select i, i + 1000, 'v' || i from generate_series(1, 300) i;
       insert into two select i, 'b' || i, i, i from generate_series(1, 300) i;
       insert into late select i, i, 'v' || i from generate_series(1, 300) i`,
    );
    const run = async (...statements: string[]) => {
      for (const statement of statements) await pair.source.query(statement);
      await pair.equal();
    };
    // Swap two, and rotate three, beside the statements that must go through another value.
    await run(
      `update late set id = case id when 1 then 2 else 1 end where id in (1, 2)`,
      `update late set id = case id when 3 then 4 when 4 then 5 else 3 end, u = case u when 3 then 5 when 4 then 3 else 4 end where id in (3, 4, 5)`,
      `begin; update one set id = 0 where id = 1; update one set id = 1 where id = 2; update one set id = 2 where id = 0; commit`,
      `begin; update one set u = 0 where id = 7; update one set u = 1007 where id = 8; update one set u = 1008 where id = 7; commit`,
      `begin; update two set a = 0, b = 'x' where a = 1; update two set a = 1, b = 'b1' where a = 2; update two set a = 2, b = 'b2' where a = 0; commit`,
    );
    await run('update late set id = id + 1, u = u + 1', 'update late set id = -id');
    await run(
      'begin; update one set id = -id; update one set id = -id + 1, u = -u; update one set u = 1 - u; commit',
      `begin; update two set a = -a; update two set a = 1 - a, b = 'b' || (1 - a), u = -u; commit`,
    );
    await run(
      'update one set id = -id',
      'update two set a = -a',
      'update one set id = -id, v = v',
      'delete from two where a % 2 = 0',
    );
  });

  test('a key that referencing rows follow by ON UPDATE CASCADE, and one that a trigger of the source sets', async () => {
    await pair.inStep(
      `create table p (id numeric primary key, v int);
       create table c (id int primary key, p numeric references p on update cascade on delete cascade);
       create table made (id text primary key, v text);
       create function make() returns trigger language plpgsql as
         $$ begin new.id := 'made of ' || new.v; return new; end $$;
       create trigger make before insert or update on made for each row execute function make()`,
      `insert into p select i, 0 from generate_series(1, 50) i; insert into c select i, i from generate_series(1, 50) i;
       insert into made values ('x', 'a'), ('y', 'b')`,
    );
    await pair.source.query(
      'update p set id = -id where id < 10; update p set id = 20.00 where id = 20; delete from p where id > 40',
    );
    await pair.source.query(
      `update made set v = 'c' where v = 'a'; insert into made values ('z', 'd'); delete from made where v = 'b'`,
    );
    await pair.equal();
    expect((await pair.target.query('select p::text from c where p = 20')).rows).toEqual([{ p: '20.00' }]);
    expect((await pair.target.query('select id from made order by id')).rows).toEqual([
      { id: 'made of c' },
      { id: 'made of d' },
    ]);
  });

  test('a key that is deferrable on one side only, and one that is not unique on the target', async () => {
    await pair.source.query(
      `create table s (id int primary key deferrable initially deferred, v int); create table t (id int primary key, v int);
       create table bare (id int primary key, v int); create table other (id int primary key, v int unique)`,
    );
    await pair.target.query(
      `create table s (id int primary key, v int); create table t (id int primary key deferrable, v int);
       create table bare (id int, v int); create table other (id int, v int primary key)`,
    );
    for (const table of ['s', 't', 'bare', 'other'])
      await pair.source.query(`insert into ${table} select i, i from generate_series(1, 200) i`);
    await pair.target.query('insert into bare select i, 0 from generate_series(1, 100) i');
    pair.start();
    await pair.equal();
    for (const table of ['s', 't', 'bare', 'other']) {
      await pair.source.query(
        `begin; update ${table} set id = -id where id > 3; update ${table} set id = 1 - id where id < 0; commit`,
      );
      await pair.source.query(
        `delete from ${table} where id % 5 = 0; insert into ${table} values (1000, 1000); update ${table} set v = -v`,
      );
    }
    await pair.equal();
  });
});

describe('keys', () => {
  const pair = usePair(servers);

  test('with INCLUDE, in another order than the table, under names that are ours, or none for anybody, and of 32 columns', async () => {
    const names = [
      'at',
      'origin',
      'xid',
      'op',
      'k1',
      'k2',
      'n',
      'present',
      'relation',
      'o',
      'v',
      'c',
      't',
      's',
      'tg_op',
      'new',
      'old',
      'ibex_k1',
      'excluded',
    ];
    const odd = ['Upper "Case"', 'sp ace', 'select', "it's", 'ä', '%I$1{}', `${'x'.repeat(60)}yz`, 'c1'];
    const quoted = [...names, ...odd].map((name) => `"${name.replaceAll('"', '""')}"`);
    const many = Array.from({ length: 32 }, (_, i) => `k${i + 1}`);
    await pair.inStep(
      `create table inc (v text, b int, a int, primary key (a, b) include (v));
       create table named (${quoted.map((name) => `${name} int`).join(', ')}, w int, primary key (${quoted.toReversed().join(', ')}));
       create table many (v int, ${many.map((name) => `${name} int`).join(', ')}, primary key (${many.toReversed().join(', ')}));
       create table only_key (a int, b text, primary key (b, a))`,
      `insert into inc select 'v', i, i % 7 from generate_series(1, 50) i;
       insert into named select ${quoted.map((_, i) => `i + ${i}`).join(', ')}, 0 from generate_series(1, 20) i;
       insert into many select 0, ${many.map((_, i) => `i * ${i}`).join(', ')} from generate_series(1, 20) i;
       insert into only_key select i, 'b' from generate_series(1, 20) i`,
    );
    const { rows } = await pair.source.query<{ table: string; columns: string[] }>(NOTED);
    expect(rows.find(({ table }) => table === 'inc')?.columns).toEqual(['a', 'b']);
    expect(rows.find(({ table }) => table === 'many')?.columns).toEqual(many.toReversed());
    await pair.source.query(
      `update inc set v = 'w' where a = 3; update inc set a = -a, b = -b where b < 9; delete from inc where b = 20`,
    );
    for (const name of quoted)
      await pair.source.query(`update named set ${name} = -${name}, w = w + 1 where ${quoted[0]} < 5`);
    await pair.source.query(
      'update many set k32 = -k32, k1 = 7, v = 1; delete from many where k2 = 4; insert into many select * from many where false',
    );
    await pair.source.query(
      `update only_key set a = -a, b = b || a; delete from only_key where a = -7; insert into only_key values (7, 'b')`,
    );
    await pair.equal();
  });

  test('that are the replica identity, or a unique index, of the best kind that there is', async () => {
    await pair.inStep(
      `create table pk (id int primary key, u int not null unique);
       create table identity (a int not null, b text not null, c int unique); create unique index by_ab on identity (b, a);
       create unique index by_a on identity (a); alter table identity replica identity using index by_ab;
       create table narrow (a int not null, b int not null, c int not null, unique (a, b), unique (c));
       create table unfit (a int, b int not null, c int not null, d text not null, unique (a), unique (b) deferrable);
       create unique index on unfit (c) where c > 0; create unique index on unfit (lower(d));
       create table nulls (a int not null, b int, unique nulls not distinct (a))`,
      `insert into pk values (1, 1), (2, 2); insert into identity values (1, 'a', 1), (2, 'b', null);
       insert into narrow values (1, 1, 1), (2, 2, 2); insert into unfit values (1, 1, 1, 'a'), (null, 2, 2, 'b'); insert into nulls values (1, 1)`,
    );
    const { rows } = await pair.source.query(NOTED);
    expect(rows).toEqual([
      { table: 'identity', mode: 'key', columns: ['b', 'a'] },
      { table: 'narrow', mode: 'key', columns: ['c'] },
      { table: 'nulls', mode: 'key', columns: ['a'] },
      { table: 'pk', mode: 'key', columns: ['id'] },
      { table: 'unfit', mode: 'row', columns: ['a', 'b', 'c', 'd'] },
    ]);
    await pair.source.query(
      `update pk set id = id + 10, u = u + 10; update identity set a = a + 10, c = 7 where a = 1; delete from identity where a = 2`,
    );
    await pair.source.query(
      `update narrow set c = c + 10; update narrow set a = a + 10, b = 0; update nulls set a = 2, b = null`,
    );
    await pair.source.query(`delete from unfit where a = 1; insert into unfit values (null, 9, 22, 'z')`);
    await pair.equal();
  });

  test('a unique index that holds apart what is equal for its column is none', async () => {
    const schema = `
      create extension citext; create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
      create table bytewise (id citext not null, v int); create unique index on bytewise (id text_ops);
      create table exact (id text collate ci not null, v int); create unique index on exact (id collate "C");
      create table loose (id text not null, v int); create unique index on loose (id collate ci);
      create table pattern (id text not null, v int); create unique index on pattern (id text_pattern_ops)`;
    await pair.inStep(
      schema,
      `insert into bytewise values ('a', 1), ('A', 2); insert into exact values ('a', 1), ('A', 2);
       insert into loose values ('a', 1), ('b', 2); insert into pattern values ('a', 1), ('A', 2)`,
    );
    const { rows } = await pair.source.query(NOTED);
    expect(rows).toEqual([
      { table: 'bytewise', mode: 'row', columns: ['id', 'v'] },
      { table: 'exact', mode: 'row', columns: ['id', 'v'] },
      { table: 'loose', mode: 'row', columns: ['id', 'v'] },
      { table: 'pattern', mode: 'key', columns: ['id'] },
    ]);
    for (const { table } of rows)
      await pair.source.query(
        `delete from ${table} where id::text collate "C" in ('A', 'b'); insert into ${table} values ('c', 3)`,
      );
    await pair.equal();
  });

  test('of a hundred thousand rows that one statement changes, in a session that has changed single rows before', async () => {
    await pair.inStep(
      'create table t (id int primary key, v int)',
      'insert into t select i, 0 from generate_series(1, 100000) i; analyze t',
    );
    for (let id = 1; id <= 10; id++) await pair.source.query(`update t set v = 1 where id = ${id}`);
    // Row by row, with the plan for a single one, this would take hours.
    await pair.source.query("set statement_timeout = '250s'; update t set v = v + 1");
    await pair.equal();
  });

  test('that the target has several times already are named', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key, v int)');
    await pair.source.query('create table twice (id int primary key, v int)');
    await pair.target.query('create table twice (id int, v int)');
    await pair.source.query('insert into twice values (1, 1); insert into t values (1, 1)');
    await pair.target.query('insert into twice values (1, 1), (1, 1)');
    pair.start();
    const twice = async () =>
      (await pair.sync.status()).tables.find(({ table }) => table === 'public.twice')?.reason;
    const reason = 'public.twice has several rows of the same key on the target';
    await waitFor(async () => (await twice())?.includes(reason), { what: reason });
    await pair.becomesEqual(['public.t']);
  });

  test('of periods that may not overlap', async () => {
    await pair.inStep(
      `create extension btree_gist; create table t (id int, during daterange, v int, primary key (id, during without overlaps));
       create table m (id citext_free, during datemultirange, primary key (id, during without overlaps))`.replace(
        'citext_free',
        'text',
      ),
      `insert into t select i % 5, daterange(date '2024-01-01' + i * 10, date '2024-01-01' + i * 10 + 10), i from generate_series(1, 50) i;
       insert into m values ('a', '{[2024-01-01,2024-02-01),[2024-03-01,2024-04-01)}')`,
    );
    await pair.source.query('update t set v = -v where id = 1; delete from t where id = 2');
    await pair.source.query(
      `update t set during = daterange(lower(during) + 3650, upper(during) + 3650) where id = 3`,
    );
    await pair.source.query(
      `begin; delete from t where id = 4; insert into t values (4, '[2024-01-01,2030-01-01)', 1); commit`,
    );
    await pair.source.query(
      `update m set during = during - datemultirange '{[2024-01-10,2024-01-20)}'; insert into m values ('a', '{[2024-01-10,2024-01-20)}')`,
    );
    await pair.equal();
  });
});
