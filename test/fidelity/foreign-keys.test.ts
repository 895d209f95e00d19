/** Foreign keys of the target: they stand while rows are written under them in any order, and stand afterwards as before. */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { MODES, type Pair, usePair } from '../support/pair.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** Every foreign key of a database, its own ones of partitions left out: what it says, how it is, what is said of it. */
async function foreignKeys(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ key: string }>(
    `select concat_ws(' ', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable,
                      k.condeferred, obj_description(k.oid, 'pg_constraint')) as key
       from pg_constraint k
      where k.contype = 'f' and k.conparentid = 0 and k.connamespace is distinct from to_regnamespace('ibex') order by 1`,
  );
  return rows.map(({ key }) => key);
}

/** Waits until nothing is set aside any more, and expects every foreign key to be what it was. */
async function areAsBefore(pair: Pair, before: readonly string[]): Promise<void> {
  await waitFor(async () => (await pair.sync.status()).parked.every(({ kind }) => kind !== 'foreign_key'), {
    what: 'the foreign keys to be back',
  });
  expect(await foreignKeys(pair.target)).toEqual(before);
}

/** One table a kind of foreign key; `x` is unique in all of them, so that its values can be handed over. */
const FAMILY = `
  create table region (id int primary key, x int unique);
  create table shop (id int primary key, x int unique,
    region int not null constraint "Shop's region" references region on delete cascade on update cascade);
  create table desk (id int primary key, x int, shop int references shop on delete set null on update cascade);
  create table clerk (id int primary key, x int unique, desk int default 0 references desk on delete set default,
    boss int references clerk on delete set null on update cascade);
  create table node (id int primary key, x int unique, up int references node on delete cascade deferrable);
  create table husband (id int primary key, x int unique, wife int not null);
  create table wife (id int primary key, x int unique, husband int not null references husband on delete cascade on update cascade);
  alter table husband add constraint married foreign key (wife) references wife on delete cascade on update cascade
    deferrable initially deferred;
  create table line (doc int, no int, x int unique, primary key (doc, no));
  create table parcel (id int primary key, x int, doc int, no int,
    foreign key (doc, no) references line match full on update cascade on delete restrict);
  create table code (id int primary key, x int unique not null);
  create table use (id int primary key, x int references code (x) on update cascade deferrable initially deferred);
  create table era (id int, k int, x int, primary key (id, k)) partition by hash (k);
  create table era_0 partition of era for values with (modulus 2, remainder 0);
  create table era_1 partition of era for values with (modulus 2, remainder 1);
  create table event (id int, k int, x int, primary key (id), foreign key (x, k) references era on delete cascade on update cascade)
    partition by range (id);
  create table event_a partition of event for values from (minvalue) to (50);
  create table event_b partition of event for values from (50) to (maxvalue);
  create table badge (id int primary key, event int references event_b on delete cascade);
  alter table event_b add constraint badge_of foreign key (x) references code (id) on delete set null;
  comment on constraint married on husband is 'it''s a cycle';
  comment on constraint event_x_k_fkey on event is 'of partitions';`;

const FAMILY_ROWS = `
  insert into region select i, i from generate_series(0, 9) i;
  insert into shop select i, i, i % 10 from generate_series(0, 19) i;
  insert into desk select i, i, i % 20 from generate_series(0, 29) i;
  insert into clerk select i, i, i % 30, nullif(i / 3, i) from generate_series(0, 39) i;
  insert into node select i, i, nullif(i / 2, i) from generate_series(0, 59) i;
  begin; insert into husband select i, i, i from generate_series(0, 9) i; insert into wife select i, i, i from generate_series(0, 9) i; commit;
  insert into line select i / 3, i % 3, i from generate_series(0, 29) i;
  insert into parcel select i, i, i / 3, i % 3 from generate_series(0, 14) i;
  insert into code select i, i from generate_series(0, 99) i; insert into use select i, i from generate_series(0, 19) i;
  insert into era select i, i, i from generate_series(0, 19) i;
  insert into event select i * 5, i, i from generate_series(0, 19) i; insert into badge select i, i * 5 from generate_series(10, 19) i;`;

/** Tables with their columns that refer to something, and how many ids they play with. */
const REFERENCES = [
  { table: 'region', refers: [], ids: 14 },
  { table: 'shop', refers: [['region', 14]], ids: 26 },
  { table: 'desk', refers: [['shop', 26]], ids: 40 },
  {
    table: 'clerk',
    refers: [
      ['desk', 40],
      ['boss', 50],
    ],
    ids: 50,
  },
  { table: 'node', refers: [['up', 70]], ids: 70 },
  { table: 'husband', refers: [['wife', 14]], ids: 14 },
  { table: 'wife', refers: [['husband', 14]], ids: 14 },
  { table: 'code', refers: [], ids: 120 },
  { table: 'use', refers: [['x', 120]], ids: 30 },
  { table: 'event', refers: [['k', 24]], ids: 100 },
  { table: 'badge', refers: [['event', 100]], ids: 30 },
] as const;

/** Some change that the source may refuse; then the application goes on without it. */
function randomChange(random: () => number): string {
  const below = (n: number) => Math.floor(random() * n);
  const { table, refers, ids } = REFERENCES[below(REFERENCES.length)] as (typeof REFERENCES)[number];
  const [id, other] = [below(ids), below(ids)];
  const [column, range] = refers[below(refers.length)] ?? ['x', ids];
  const changes = [
    `delete from ${table} where id = ${id}`,
    `update ${table} set ${column} = ${below(range)} where id in (${id}, ${other})`,
    `update ${table} set id = ${other} where id = ${id}`,
    `insert into ${table} (id, x${refers.map(([name]) => (name === 'x' ? '' : `, ${name}`)).join('')})
       values (${id}, ${below(ids)}${refers.map(([name, n]) => (name === 'x' ? '' : `, ${below(n)}`)).join('')})`,
    `with gone as (delete from ${table} where id = ${id} returning x) update ${table} set x = gone.x from gone where id = ${other}`,
    `update ${table} set x = -x where id = ${id}; update ${table} set x = ${id} where id = ${other}`,
    `update line set doc = ${below(12)} where doc = ${below(12)}`,
    `update parcel set doc = ${below(10)}, no = ${below(3)} where id = ${below(20)}`,
    `delete from line where doc = ${below(12)} and no = ${below(3)}`,
    `update era set k = ${below(24)} where id = ${below(20)}`,
    `set constraints all deferred`,
  ];
  return changes[below(changes.length)] as string;
}

/** Runs a transaction in which what is refused is rolled back by itself; false when COMMIT refuses all of it. */
async function transact(client: pg.Client, changes: readonly string[]): Promise<boolean> {
  await client.query('begin');
  for (const change of changes) {
    await client.query('savepoint change');
    await client.query(change).catch(() => client.query('rollback to change'));
  }
  return client.query('commit').then(
    () => true,
    () => false,
  );
}

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('rows change in every order under every kind of foreign key', async () => {
    const random = randomFrom(seedOf('foreign keys'));
    await onBoth(pair.databases, FAMILY);
    const before = await foreignKeys(pair.target);
    await pair.source.query(FAMILY_ROWS);
    pair.start();
    await pair.equal();
    let committed = 0;
    for (let round = 0; round < 12; round++) {
      for (let i = 0; i < 10; i++) {
        const changes = Array.from({ length: 1 + Math.floor(random() * 8) }, () => randomChange(random));
        if (await transact(pair.source, changes)) committed++;
      }
      await pair.equal();
    }
    expect(committed).toBeGreaterThan(40);
    await areAsBefore(pair, before);
  });

  test('rows that trade places while others refer to them keep those that refer to them', async () => {
    await onBoth(pair.databases, FAMILY);
    const before = await foreignKeys(pair.target);
    await pair.source.query(FAMILY_ROWS);
    pair.start();
    await pair.equal();
    for (const changes of [
      'update region set x = -1 where id = 1; update region set x = 1 where id = 2; update region set x = 2 where id = 1',
      'update node set x = -x - 1; update node set x = 59 + x',
      'update shop set x = -1 where id = 0; update shop set x = x - 1 where id > 0 and id < 0; update shop set region = 9 - region',
      'update husband set wife = 9 - wife; update wife set husband = 9 - husband',
      'update code set x = x + 1000; update code set x = (x - 1000 + 50) % 100',
      'delete from desk where id < 5; insert into desk select i, i, 3 from generate_series(0, 4) i; update clerk set desk = 4 where desk is null',
      `delete from clerk where id = 39; insert into clerk values (390, 39, 1, 2); update clerk set boss = 390 where id < 20;
       update clerk set id = 391 where id = 390`,
      'insert into node select 1000 + i, 1000 + i, case when i > 0 then 999 + i end from generate_series(0, 99) i; update node set up = 1099 where id = 5',
      'delete from region where id = 7',
      `set constraints all deferred; delete from wife; insert into wife select i, i, 19 - i from generate_series(10, 19) i;
       insert into husband select i, i, 19 - i + 10 - 10 + 10 from generate_series(10, 19) i`,
    ]) {
      await transact(pair.source, changes.split(';'));
      await pair.equal();
    }
    await areAsBefore(pair, before);
    expect((await pair.target.query('select from clerk where boss = 391')).rowCount).toBe(20);
  });

  test('foreign keys that are NOT VALID or NOT ENFORCED stay so', async () => {
    await onBoth(
      pair.databases,
      `create table p (id int primary key, x int unique); create table c (id int primary key, p int, x int unique)`,
    );
    await pair.source.query(
      'insert into p select i, i from generate_series(1, 9) i; insert into c select i, i * 3, i from generate_series(1, 9) i',
    );
    pair.start();
    await pair.equal();
    await pair.target.query(`
      alter table c add constraint lax foreign key (p) references p on delete cascade not valid;
      comment on constraint lax on c is 'some rows are older';
      alter table c add constraint loose foreign key (p) references p on delete cascade not enforced`);
    const before = await foreignKeys(pair.target);
    await pair.source.query(
      'begin; update p set x = -x; update p set x = 10 + x; update c set x = -x; update c set x = 10 + x; delete from p where id = 9; commit',
    );
    await pair.equal();
    await pair.source.query('delete from p where id = 4; update c set p = null where id = 9');
    await pair.equal();
    await areAsBefore(pair, before);
  });

  test('foreign keys of tables outside of the sync act as they say where they can, and hold what breaks them', async () => {
    await onBoth(
      pair.databases,
      `create table p1 (id int primary key, x int unique); create table p2 (id int primary key, x int unique); create table child (id int primary key, elder int); create table fine (id int primary key)`,
    );
    await pair.source.query(
      'insert into p1 select i, i from generate_series(1, 9) i; insert into p2 select i, i from generate_series(1, 9) i',
    );
    await pair.target.query(`
      create table follower (id int primary key, p1 int constraint follows references p1 on delete cascade on update cascade);
      create table strict (id int primary key, p2 int constraint insists references p2);
      create table elder (id int primary key); insert into elder values (1);
      alter table child add constraint needs foreign key (elder) references elder deferrable initially deferred`);
    const before = await foreignKeys(pair.target);
    pair.start({ tables: ['public.p1', 'public.p2', 'public.child', 'public.fine'] });
    await pair.sync.caughtUp();
    await pair.target.query(
      'insert into follower select i, i from generate_series(1, 9) i; insert into strict select i, i from generate_series(1, 9) i',
    );
    await areAsBefore(pair, before);
    // Values that trade places have rows written anew: those that refer to them stay.
    const swap = (table: string) => `update ${table} set x = -x; update ${table} set x = 10 + x;`;
    await pair.source.query(`begin; ${swap('p1')} ${swap('p2')} commit`);
    await pair.sync.caughtUp();
    await pair.becomesEqual(['public.p1', 'public.p2']);
    const count = async (table: string) => (await pair.target.query(`select from ${table}`)).rowCount;
    expect([await count('follower'), await count('strict')]).toEqual([9, 9]);
    await areAsBefore(pair, before);

    await pair.source.query(
      `begin; ${swap('p1')} delete from p1 where id = 5; commit; delete from p2 where id = 5; insert into fine values (1);
       insert into child select i, case i when 8 then 7 else 1 end from generate_series(1, 20) i`,
    );
    const reason = async (table: string) =>
      (await pair.sync.status()).tables.find((one) => one.table === table && one.state === 'held')?.reason ??
      '';
    await waitFor(async () => /insists.*\(5\)/.test(await reason('public.p2')), {
      what: 'p2 to be held',
    });
    await waitFor(async () => /needs.*row \(id\) = \(8\)/.test(await reason('public.child')), {
      what: 'child to be held',
    });
    if (replica) {
      await waitFor(async () => /follows.*\(5\)/.test(await reason('public.p1')), {
        what: 'p1 to be held',
      });
      await pair.target.query('delete from follower where p1 = 5');
    }
    await pair.becomesEqual(['public.fine']);
    await pair.target.query('delete from strict where p2 = 5; insert into elder values (7)');
    await pair.becomesEqual(['public.p1', 'public.p2', 'public.child', 'public.fine']);
    await pair.sync.caughtUp();
    expect([await count('follower'), await count('strict')]).toEqual([8, 8]);
    await areAsBefore(pair, before);
  });

  test('foreign keys that only the target has take no row with them', async () => {
    await onBoth(
      pair.databases,
      `create table p (id int primary key, x int unique); create table fine (id int primary key, p int references p on delete cascade);
       create table c (id int primary key, p int); create table n (id int primary key, p int); create table u (id int primary key, x int)`,
    );
    await pair.source.query(
      ['p', 'c', 'n', 'u', 'fine']
        .map((name) => `insert into ${name} select i, i from generate_series(1, 9) i`)
        .join(';'),
    );
    await pair.target.query(`
      alter table c add constraint takes foreign key (p) references p on delete cascade;
      alter table n add constraint clears foreign key (p) references p on delete set null;
      alter table u add constraint renames foreign key (x) references p (x) on update cascade on delete cascade`);
    pair.start();
    await pair.equal();
    await waitFor(async () => (await pair.sync.status()).parked.length === 0, {
      what: 'the foreign keys to be back',
    });
    await pair.source.query('delete from p where id = 3');
    await pair.equal();
    await pair.source.query('update p set x = 100 + x where id = 4');
    await pair.equal();
    if (replica) return;
    const parked = (await pair.sync.status()).parked.map(({ name }) => name).sort();
    expect(parked).toEqual(expect.arrayContaining(['clears', 'renames', 'takes']));
    await pair.source.query(
      'delete from c where p = 3; delete from n where p = 3; delete from u where x in (3, 4)',
    );
    await pair.equal();
    await waitFor(async () => (await pair.sync.status()).parked.length === 0, {
      what: 'the foreign keys to be back',
    });
  });

  test('a table that is copied again takes no row of others with it', async () => {
    await pair.inStep(
      `create table p (id int primary key, v int); create table c (id int primary key, p int not null references p on delete cascade);
       create table n (id int primary key, p int references p on delete set null)`,
      ['p', 'c', 'n']
        .map((name) => `insert into ${name} select i, i from generate_series(1, 50) i`)
        .join(';'),
    );
    await pair.source.query(
      'begin; alter table p disable trigger user; update p set v = -v; alter table p enable trigger user; commit',
    );
    await pair.becomesEqual();
    await pair.equal();
  });
});
