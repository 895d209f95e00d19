/** TRUNCATE: of tables that refer to each other, of partitions, amid other writes, and while batches are read. */
import pg from 'pg';
import { describe, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();

const SCHEMA = `
  create table a (id int primary key, v int);
  create table b (id int primary key, a int references a on delete cascade, v int);
  create table c (id int primary key, b int not null references b, v int);
  create table tree (id int primary key, up int references tree, v int);
  create table log (what text, v int);
  create table parts (id int primary key, v int) partition by range (id);
  create table parts_a partition of parts for values from (0) to (100);
  create table parts_b partition of parts for values from (100) to (1000);
  create table of_parts (id int primary key, part int references parts, v int);`;

const FILL = `
  insert into a select i, i from generate_series(1, 50) i;
  insert into b select i, 1 + i % 50, i from generate_series(1, 50) i;
  insert into c select i, 1 + i % 50, i from generate_series(1, 50) i;
  insert into tree select i, nullif(i / 2, 0), i from generate_series(1, 50) i;
  insert into log select 'n', i from generate_series(1, 50) i;
  insert into parts select i, i from generate_series(50, 149) i;
  insert into of_parts select i, i, i from generate_series(100, 149) i;`;

/** One transaction each; `fill` stands for new rows in all tables that are empty by then. */
const CASES = [
  'truncate c',
  'truncate b, c restart identity',
  'truncate a cascade',
  'truncate a, b, c; insert into a values (1, 1); insert into b values (1, 1, 1)',
  'insert into a values (999, 1); insert into log values (1, 2); truncate a, b, c, log; insert into a values (999, 2)',
  'delete from c; truncate c; insert into c select 7, min(id), 1 from b having count(*) > 0',
  'truncate tree; insert into tree values (5, null, 1), (6, 5, 1)',
  'update tree set v = -v; truncate tree',
  'truncate log; insert into log values (1, 1), (1, 1); truncate log; insert into log values (2, 2), (2, 2)',
  'truncate of_parts',
  'truncate of_parts, parts; insert into parts values (7, 1), (107, 1)',
  'delete from of_parts; delete from parts where id < 60; truncate of_parts, parts cascade',
  'savepoint s; truncate a, b, c, tree, log; rollback to s; update a set v = v + 1',
  'truncate a, b, c, tree, log, parts, of_parts',
];

const ALL = ['c', 'b', 'a', 'tree', 'log', 'of_parts', 'parts'];

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('TRUNCATE of tables with foreign keys, alone, together, cascading and amid other writes', async () => {
    await pair.inStep(SCHEMA, FILL);
    for (const statements of CASES) {
      await pair.source.query(`begin; ${statements}; commit`);
      await pair.equal();
      await pair.source.query(`${ALL.map((name) => `delete from ${name}`).join(';')}; ${FILL}`);
    }
    for (const statements of CASES) await pair.source.query(`begin; ${statements}; commit`);
    await pair.equal();
    await pair.ready();
  });

  test('TRUNCATE under load, while batches are read', async () => {
    const random = randomFrom(seedOf('truncate'));
    await pair.inStep(SCHEMA, FILL);
    await pair.source.query('alter table of_parts drop constraint of_parts_part_fkey');
    await waitFor(
      async () =>
        (await pair.target.query(`select from pg_constraint where conname = 'of_parts_part_fkey'`)).rowCount,
      { what: 'the foreign key to be back' },
    );
    await pair.target.query('alter table of_parts drop constraint of_parts_part_fkey');
    const writers = Array.from(
      { length: 4 },
      () => new pg.Client({ connectionString: pair.databases.sourceUrl }),
    );
    for (const client of writers) client.on('error', () => undefined);
    await Promise.all(writers.map((client) => client.connect()));
    const changes = [
      'truncate log; insert into log select $$t$$, i from generate_series(1, 300) i',
      'truncate a, b, c; insert into a select i, i from generate_series(1, 300) i',
      'truncate tree',
      'insert into tree select i, null, i from generate_series(1, 300) i on conflict do nothing',
      'truncate parts_a',
      'truncate parts_b; insert into parts select i, i from generate_series(100, 400) i',
      'insert into parts select i, i from generate_series(1, 99) i on conflict do nothing',
      'update parts set v = v + 1',
      'update a set v = v + 1; update log set v = v + 1',
      'delete from log where v % 3 = 0; delete from a where id % 7 = 0',
    ];
    const until = Date.now() + 4_000;
    let truncated = 0;
    await Promise.all(
      writers.map(async (client) => {
        while (Date.now() < until || truncated <= 20) {
          const change = changes[Math.floor(random() * changes.length)] as string;
          // Two that lock the same tables in another order are the application's own affair.
          const done = await client.query(`begin; ${change}; commit`).then(
            () => true,
            () => false,
          );
          if (!done) await client.query('rollback');
          if (done && change.startsWith('truncate')) truncated++;
        }
        await client.end();
      }),
    );
    await pair.becomesEqual();
    await pair.equal();
  });
});
