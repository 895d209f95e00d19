/** Indexes of an empty target are set aside while its rows come, and stand there afterwards exactly as before. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { teardownTarget } from '../../src/setup/teardown.ts';
import { Gate, passing } from '../support/gate.ts';
import { MODES, type Pair, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** Every index of a table and its partitions: what it says, what it serves, how it is marked, what is said of it. */
async function indexes(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ index: string }>(`
    select concat_ws(' | ', pg_get_indexdef(i.indexrelid), pg_get_constraintdef(k.oid), k.conparentid <> 0, k.conislocal,
             k.coninhcount, i.indisvalid, i.indimmediate, i.indisclustered, i.indisreplident, x.reloptions, s.spcname,
             h.inhparent::regclass, obj_description(x.oid, 'pg_class'), obj_description(k.oid, 'pg_constraint'),
             (select string_agg(a.attnum || ':' || a.attstattarget, ' ') from pg_attribute a
               where a.attrelid = x.oid and a.attstattarget >= 0)) as index
      from pg_index i join pg_class x on x.oid = i.indexrelid
      join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
      left join pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
      left join pg_tablespace s on s.oid = x.reltablespace
      left join pg_inherits h on h.inhrelid = i.indexrelid
     where n.nspname !~ '^(pg_.*|ibex|information_schema)$' order by 1`);
  return rows.map(({ index }) => index);
}

async function names(client: pg.Client, table: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    'select indexrelid::regclass::text as name from pg_index where indrelid = to_regclass($1) order by 1',
    [table],
  );
  return rows.map(({ name }) => name);
}

/** More than what is thought small: 10 MB. */
const ROWS = (table: string, columns = 'id, v, e') =>
  `insert into ${table} (${columns}) select i, repeat('x', 800) || i, 'mail' || i from generate_series(1, 12000) i`;

const TABLES = `
  create table t (id int constraint "The key" primary key, v text, e text, at tstzrange, n int not null default 0);
  alter table t add constraint t_e unique (e) deferrable initially deferred;
  alter table t add constraint t_at exclude using gist (at with &&);
  alter table t add constraint t_n unique (n, id) include (e) with (fillfactor = 60);
  create index t_v on t (v text_pattern_ops desc nulls last, lower(e) collate "C") include (n) with (fillfactor = 70) where n >= 0;
  create index "T's hash" on t using hash (e);
  create unique index t_x on t ((id + 1));
  alter index t_x alter column 1 set statistics 77;
  alter table t cluster on t_n;
  alter table t replica identity using index t_n;
  comment on constraint "The key" on t is 'it''s a key';
  comment on index "T's hash" is 'of mails';
  create table child (id int primary key, t int references t on delete cascade, x int references t (id));
  create table viewed (id int primary key, v text, e text unique);
  create view v as select id, v, count(*) from viewed group by id;
  create table small (id int primary key, v text);
  create index small_v on small (v);`;

/** The query that the documentation names. */
const BY_HAND = /"(select concat.*? from ibex\.parked [^"]*)"/.exec(
  readFileSync(join(import.meta.dirname, '../../docs/backfill.md'), 'utf8'),
)?.[1] as string;

async function allBack(pair: Pair): Promise<void> {
  await waitFor(async () => (await pair.sync.status()).parked.length === 0, {
    what: 'everything to be back',
  });
}

/** The transactions that wrote the rows. */
async function writers(client: pg.Client, table: string) {
  return (await client.query(`select distinct xmin::text from ${table} order by 1`)).rows;
}

/** Waits until somebody waits for a table. */
async function queued(admin: pg.Client): Promise<void> {
  await waitFor(
    async () =>
      (await admin.query(`select from pg_locks where locktype = 'relation' and not granted`)).rowCount === 1,
    { what: 'the lock to be waited for' },
  );
}

/** As if the daemon had been killed. */
async function endSessions(admin: pg.Client): Promise<void> {
  await admin.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name like 'ibex:%'`,
  );
}

/** Indexes in tablespaces, in one of which the role may make no more. Resolves to the name of that one. */
async function createElsewhere({ target, databases }: Pair): Promise<string[]> {
  const { rows } = await target.query<{ role: string; able: boolean }>(
    `select current_user as role, current_setting('server_version_num')::int >= 150000 as able`,
  );
  const { role = '', able = false } = rows[0] ?? {};
  if (!able) return [];
  await databases.targetAdmin.query('set allow_in_place_tablespaces = on');
  for (const space of ['open', 'closed']) {
    await databases.targetAdmin.query(`create tablespace "${space} ${role}" location ''`);
    await databases.targetAdmin.query(`grant create on tablespace "${space} ${role}" to ${role}`);
    await target.query(`create index t_${space} on t (id) tablespace "${space} ${role}"`);
  }
  await databases.targetAdmin.query(`revoke create on tablespace "closed ${role}" from ${role}`);
  return ['t_closed'];
}

/** One row a block, and so two chunks at the least. Resolves to the indexes. */
async function fillTwoChunks(pair: Pair): Promise<string[]> {
  await onBoth(pair.databases, 'create table t (id int primary key, v text, e text unique)');
  await pair.source.query(
    `alter table t alter v set storage plain; insert into t select i, repeat('x', 7000), i from generate_series(1, 9500) i`,
  );
  return indexes(pair.target);
}

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('of every kind come back as they were, what something depends on stays, and so do those of small tables', async () => {
    await onBoth(pair.databases, TABLES);
    const cannotComeBack = await createElsewhere(pair);
    const before = await indexes(pair.target);
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(`
      ${ROWS('t')};
      ${ROWS('viewed')}; insert into small values (1, 'a'); insert into child select i, i, i from generate_series(1, 20) i`);
    pair.start();
    await gate.reached();
    expect(await names(pair.target, 't')).toEqual(cannotComeBack);
    const { parked } = await pair.sync.status();
    expect(parked).toContainEqual({
      kind: 'index',
      table: 'public.t',
      name: 't_x',
      restore: expect.stringMatching(
        /^CREATE UNIQUE INDEX IF NOT EXISTS t_x ON public.t .*set statistics 77$/,
      ),
      reason: null,
    });
    await gate.open();
    await pair.equal();
    await waitFor(async () => (await pair.sync.status()).parked.length === 0, {
      what: 'everything to be back',
    });
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('rows that moved while they were copied came twice: the key stands again, and each has its last state', async () => {
    const before = await fillTwoChunks(pair);
    const gate = await Gate.shut(pair.target, 't', 1);
    pair.start({ flags: { jobs: '1' } });
    await gate.reached();
    expect((await pair.sync.status()).tables[0]?.chunks.all).toBeGreaterThan(1);
    const moved = pair.source.query(`
      begin; lock table t in access exclusive mode;
      update t set v = repeat('y', 7000) where id between 1 and 20; update t set e = null where id = 30;
      update t set e = '30', v = repeat('z', 7000) where id = 5; delete from t where id = 6; commit`);
    await queued(pair.databases.sourceAdmin);
    await gate.open();
    await moved;
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('a teardown in the middle puts everything back, also over rows that came twice', async () => {
    await onBoth(pair.databases, TABLES);
    const before = await indexes(pair.target);
    const gate = await Gate.shut(pair.target, 't', 12_000);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    await Promise.all([pair.sync.stop(), endSessions(pair.databases.targetAdmin)]);
    await gate.open();
    await pair.target.query(`insert into t (id, v) values (1, 'a'), (1, 'b'), (2, 'c')`);
    await using target = await Session.open({ url: pair.databases.targetUrl, name: 'test' });
    const { signal } = new AbortController();
    const options = { sync: 'main', filter: () => true, lockTimeoutMs: 100, patienceMs: 0, signal };
    expect(await teardownTarget(target, options)).toMatchObject({ left: 0, notRestored: [] });
    expect(await indexes(pair.target)).toEqual(before);
    expect((await pair.target.query('select id from t order by id')).rows).toEqual([{ id: 1 }, { id: 2 }]);
  });
});

describe('whatever happens meanwhile', () => {
  const pair = usePair(servers, {});

  test('a table that is rewritten between two chunks has its key built first, and the rest merged', async () => {
    const before = await fillTwoChunks(pair);
    const gate = await Gate.shut(pair.target, 't', 1);
    const second = await Gate.shut(pair.target, 't', 9000);
    pair.start({ flags: { jobs: '1' } });
    await gate.reached();
    expect((await pair.sync.status()).tables[0]?.chunks.all).toBeGreaterThan(1);
    const moved = pair.source.query('vacuum full t');
    await queued(pair.databases.sourceAdmin);
    await gate.open();
    await moved;
    await second.reached();
    expect(await names(pair.target, 't')).toContain('t_pkey');
    await second.open();
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('after the daemon was killed while they were built, what is missing is built, and no chunk is copied again', async () => {
    await onBoth(
      pair.databases,
      `create table t (id int primary key, v text, e text constraint mail unique); create index t_v on t (v);
       create function stop(i int) returns bool language plpgsql immutable as '${passing(77)}';
       create index t_stop on t (stop(id))`,
    );
    const before = await indexes(pair.target);
    const gate = await Gate.hold(pair.target, 77);
    await pair.source.query(ROWS('t'));
    pair.start();
    const builder = await gate.reached();
    const written = await writers(pair.target, 't');
    // The server has not noticed: what it builds would be in the way of the next.
    await pair.sync.stop();
    pair.start();
    await gate.reached(builder);
    await gate.open();
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
    expect(await writers(pair.target, 't')).toEqual(written);
  });

  test('what the record says, run by hand, puts everything back; the daemon takes it for done and goes on', async () => {
    await onBoth(pair.databases, TABLES);
    const before = await indexes(pair.target);
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    await Promise.all([pair.sync.stop(), endSessions(pair.databases.targetAdmin)]);
    await gate.open();
    const { rows } = await pair.target.query<{ concat: string }>(BY_HAND);
    for (const { concat } of rows) await pair.target.query(concat);
    expect(await indexes(pair.target)).toEqual(before);
    pair.start();
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('one that the rows contradict waits with its reason, and holds nothing else back', async () => {
    await onBoth(
      pair.databases,
      'create table t (id int primary key, v text, e text); create table c (id int primary key references t, e text)',
    );
    await pair.target.query(
      `create unique index only_here on t (e); alter table c add constraint needs_it foreign key (e) references t (e)`,
    );
    const before = await indexes(pair.target);
    await pair.source.query(`${ROWS('t')}; update t set e = 'twice' where id in (3, 4)`);
    pair.start();
    await pair.equal();
    const { verdict, why } = await pair.sync.status();
    expect(verdict).toBe('NOT READY');
    expect(why.join()).toMatch(
      /indexes are set aside: only_here of public\.t \(.*could not create unique index/,
    );
    await pair.source.query(`update t set e = 'once' where id = 4`);
    await pair.equal();
    await pair.sync.stop();
    pair.start();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('a name or column that changed meanwhile, a TRUNCATE, an index made by hand: each is respected', async () => {
    await onBoth(
      pair.databases,
      `create schema s; create table t (id int primary key, v text, e text); create index t_v on t (v);
       create index t_e on t (lower(e)); alter index t_e alter column 1 set statistics 50; comment on index t_e is 'mails'`,
    );
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    await Promise.all([pair.sync.stop(), endSessions(pair.databases.targetAdmin)]);
    await gate.open();
    await pair.target.query('create index t_e on t (id, e)');
    await onBoth(
      pair.databases,
      'alter table t rename to "new t"; alter table "new t" set schema s; alter table s."new t" drop column v',
    );
    await pair.source.query(`truncate s."new t"; insert into s."new t" values (1, 'new')`);
    pair.start();
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual([
      expect.stringMatching(/^CREATE INDEX t_e ON s\."new t" USING btree \(id, e\)/),
      expect.stringMatching(/^CREATE UNIQUE INDEX t_pkey ON s\."new t"/),
    ]);
  });
});

describe('of a partitioned table', () => {
  const pair = usePair(servers, {});

  test('they come back as a tree, those of partitions with the names that they had', async () => {
    await onBoth(
      pair.databases,
      `create table p (id int, k int, v text, e text, primary key (k, id), constraint p_e unique (e, k)) partition by range (k);
       create table p_1 partition of p for values from (0) to (10);
       create table p_2 (e text, id int not null, k int not null, v text, constraint "a key" primary key (k, id))
         partition by hash (k);
       create table p_2a partition of p_2 for values with (modulus 2, remainder 0);
       create table p_2b (k int not null, id int not null, e text, v text, constraint "of b" primary key (k, id) with (fillfactor = 80));
       alter table p_2 attach partition p_2b for values with (modulus 2, remainder 1);
       alter table p attach partition p_2 for values from (10) to (20);
       create index p_v on p (v, lower(e)); create index p_2b_own on p_2b (v); comment on index p_v is 'of all';
       comment on constraint "of b" on p_2b is 'of one';
       create table c (id int primary key, k int, p int, foreign key (k, p) references p)`,
    );
    const before = await indexes(pair.target);
    const gate = await Gate.shut(pair.target, 'p', 1);
    await pair.source.query(`
      insert into p (id, k, v, e) select i, i % 12, repeat('x', 800) || i, i from generate_series(1, 14000) i;
      insert into c select i, i % 12, i from generate_series(1, 20) i`);
    pair.start();
    await gate.reached();
    const left = await names(pair.target, 'p');
    expect([left, await names(pair.target, 'p_2'), await names(pair.target, 'p_2b')]).toEqual([[], [], []]);
    await gate.open();
    await pair.equal();
    await allBack(pair);
    expect(await indexes(pair.target)).toEqual(before);
  });

  test('a partition that comes to the target meanwhile has them as well', async () => {
    await onBoth(
      pair.databases,
      `create table p (id int, k int, v text, e text, primary key (k, id)) partition by range (k);
       create table p_1 partition of p for values from (0) to (10); create index p_v on p (v)`,
    );
    const gate = await Gate.shut(pair.target, 'p', 1);
    await pair.source.query(
      `insert into p (id, k, v) select i, i % 10, repeat('x', 800) || i from generate_series(1, 12000) i`,
    );
    pair.start();
    await gate.reached();
    await Promise.all([pair.sync.stop(), endSessions(pair.databases.targetAdmin)]);
    await gate.open();
    await onBoth(pair.databases, 'create table p_2 partition of p for values from (10) to (20)');
    pair.start();
    await pair.source.query(`insert into p values (1, 15, 'new')`);
    await pair.equal();
    await allBack(pair);
    expect(await names(pair.target, 'p_2')).toEqual(['p_2_pkey', 'p_2_v_idx']);
    expect((await indexes(pair.target)).filter((index) => /\| p(_pkey|_v)$/.test(index))).toHaveLength(4);
  });
});

describe('nothing is set aside', () => {
  const pair = usePair(servers, {});

  test.each([
    ['beside rows that the target has', `insert into t values (12001, 'of the target')`],
    ['where others read the changes of the table', 'create publication p for table t'],
  ])('%s', async (_, sql) => {
    await onBoth(
      pair.databases,
      'create table t (id int primary key, v text, e text); create index t_v on t (v)',
    );
    await pair.target.query(sql);
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    expect(await names(pair.target, 't')).toEqual(['t_pkey', 't_v']);
    await gate.open();
    await pair.target.query('delete from t where id = 12001');
    await pair.equal();
  });

  test('where another sync writes the table', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key, v text, e text)');
    await pair.source.query(`insert into t values (0)`);
    pair.start();
    await pair.equal();
    await pair.sync.stop();
    await pair.target.query(`
      truncate t; create table copied as select * from ibex.target_table;
      insert into ibex.checkpoint select 'other', epoch, position, system, database, timeline from ibex.checkpoint;
      update copied set sync = 'other'; insert into ibex.target_table select * from copied;
      update ibex.target_table set state = 'pending', floor = null where sync = 'main'; drop table copied`);
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    expect(await names(pair.target, 't')).toEqual(['t_pkey']);
    await gate.open();
    await pair.equal();
  });

  test('that a second copy would miss: beside rows that came meanwhile indexes are back before it begins', async () => {
    await onBoth(
      pair.databases,
      'create table t (id int primary key, v text, e text); create index t_v on t (v)',
    );
    const before = await indexes(pair.target);
    const gate = await Gate.shut(pair.target, 't', 1);
    await pair.source.query(ROWS('t'));
    pair.start();
    await gate.reached();
    await Promise.all([pair.sync.stop(), endSessions(pair.databases.targetAdmin)]);
    expect(await names(pair.target, 't')).toEqual([]);
    // As `tables recopy` leaves it, but for the rows, which stay.
    await pair.target.query(`
      delete from ibex.chunk; update ibex.target_table set state = 'pending', floor = null;
      insert into t select i, 'there' from generate_series(2, 50) i`);
    pair.start();
    await gate.reached();
    expect(await names(pair.target, 't')).toEqual(['t_pkey', 't_v']);
    await gate.open();
    await pair.equal();
    expect(await indexes(pair.target)).toEqual(before);
  });
});
