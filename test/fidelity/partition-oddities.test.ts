/** Partitions of unusual kinds, and changes of them that happen while nobody looks. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const RANGED = `
  create table pt (id int primary key, v text) partition by range (id);
  create table pt_a partition of pt for values from (0) to (100);
  create table pt_b partition of pt for values from (100) to (200)`;
const PLAIN = 'create table pt (id int primary key, v text)';

async function inStep(): Promise<void> {
  await pair.source.query(`${RANGED}; insert into pt select i, 'v' from generate_series(1, 199) i`);
  await pair.target.query(PLAIN);
  pair.start();
  await pair.equal();
}

/** Gives the daemon no chance to look at the catalogs before `work` is done: each of its rounds begins with this table. */
async function unseen(work: () => Promise<unknown>): Promise<void> {
  const locker = new pg.Client({ connectionString: pair.databases.targetUrl });
  await locker.connect();
  await locker.query('begin; lock table ibex.restraint in access exclusive mode');
  const standsStill = async () => {
    const { rows } = await locker.query(
      `select from pg_locks where relation = 'ibex.restraint'::regclass and not granted`,
    );
    return rows.length > 0;
  };
  await waitFor(standsStill, { what: 'the daemon to begin a round' });
  await work();
  await locker.query('commit');
  await locker.end();
}

async function onTarget(condition: string): Promise<number> {
  return (await pair.target.query(`select from pt where ${condition}`)).rowCount ?? 0;
}

test('a partition that was there only between two looks leaves nothing behind', async () => {
  await inStep();
  const { source } = pair;
  await unseen(async () => {
    await source.query('create table pt_c partition of pt for values from (200) to (300)');
    await source.query(`insert into pt select i, 'short-lived' from generate_series(200, 220) i`);
    await waitFor(async () => (await onTarget('id >= 200')) === 21, { what: 'a batch to carry its rows' });
    await source.query('drop table pt_c');
  });
  await pair.becomesEqual();
  await pair.equal();
});

test('a partition that was away while a batch read its rows as gone is whole again', async () => {
  await inStep();
  const { source } = pair;
  await unseen(async () => {
    await source.query('alter table pt detach partition pt_b');
    await source.query(`update pt_b set v = 'away' where id < 150`);
    await waitFor(async () => (await onTarget('id >= 100')) === 50, { what: 'a batch to read them as gone' });
    await source.query('alter table pt attach partition pt_b for values from (100) to (200)');
  });
  await pair.becomesEqual();
  await pair.equal();
});

test('DETACH CONCURRENTLY, also while it waits and after it was broken off', async () => {
  await inStep();
  const { source } = pair;
  const reader = new pg.Client({ connectionString: pair.databases.sourceUrl });
  const detacher = new pg.Client({ connectionString: pair.databases.sourceUrl });
  detacher.on('error', () => undefined);
  reader.on('error', () => undefined);
  await Promise.all([reader.connect(), detacher.connect()]);
  await reader.query('begin isolation level repeatable read; select count(*) from pt');
  const detaching = detacher.query('alter table pt detach partition pt_b concurrently');
  detaching.catch(() => undefined);
  await waitFor(
    async () => (await source.query('select from pg_inherits where inhdetachpending')).rowCount === 1,
    {
      what: 'the detach to wait',
    },
  );
  await source.query(`update pt set v = 'meanwhile'`);
  await pair.becomesEqual();
  const { rows } = await source.query(
    `select pid from pg_stat_activity where query ~ 'concurrently' and pid <> pg_backend_pid()`,
  );
  await source.query('select pg_cancel_backend($1)', [rows[0]?.pid]);
  await expect(detaching).rejects.toThrow();
  await reader.query('commit');
  await source.query('alter table pt detach partition pt_b finalize');
  await source.query(`update pt_b set v = 'no part of it'; update pt set v = 'after'`);
  await pair.becomesEqual(['public.pt']);
  await Promise.all([reader.end(), detacher.end()]);
});

test('levels that are attached with all their partitions, and taken away with them', async () => {
  await inStep();
  const { source } = pair;
  await source.query(`
    create table mid (id int primary key, v text) partition by range (id);
    create table mid_1 partition of mid for values from (200) to (250);
    create table mid_2 partition of mid for values from (250) to (300);
    insert into mid select i, 'mid' from generate_series(200, 299) i;
    alter table pt attach partition mid for values from (200) to (300)`);
  await pair.becomesEqual(['public.pt']);
  await source.query(
    `update mid_2 set v = 'leaf'; delete from mid where id < 210; create table mid_0 partition of pt for values from (300) to (400)`,
  );
  await pair.equal();
  await source.query('alter table pt detach partition mid; update mid set id = id');
  await pair.becomesEqual(['public.pt']);
  expect((await pair.sync.status()).tables[0]?.copied).toBeLessThan(199 + 300);
  await source.query('drop table mid');
  await pair.equal();
});

test('a table of its own that is attached to another one', async () => {
  await onBoth(pair.databases, 'create table pt_c (id int primary key, v text)');
  await pair.source.query(`insert into pt_c select i, 'own' from generate_series(200, 299) i`);
  await inStep();
  const { source } = pair;
  await source.query(
    `alter table pt attach partition pt_c for values from (200) to (300); update pt set v = 'joined' where id > 190`,
  );
  await pair.becomesEqual(['public.pt']);
  await source.query(`update pt set v = 'after' where id > 190; delete from pt_c where id = 200`);
  await pair.becomesEqual(['public.pt']);
  await waitFor(
    async () => (await pair.sync.status()).why.some((why) => /public\.pt_c.*partition/.test(why)),
    {
      what: 'the attached table to be named',
    },
  );
});

test('a partition that the target lacks: its rows wait for it by name, and come when it is there', async () => {
  const { source, target } = pair;
  await source.query(`${RANGED}; insert into pt select i, 'v' from generate_series(1, 199) i`);
  await target.query(`${RANGED}; create table other (id int primary key)`);
  await source.query('create table other (id int primary key)');
  pair.start();
  await pair.equal();
  await source.query(`create table pt_c partition of pt for values from (200) to (300);
    insert into pt values (200, 'new')`);
  await waitFor(
    async () => (await pair.sync.status()).why.some((why) => /public\.pt.*no partition/.test(why)),
    {
      what: 'the missing partition to be told',
    },
  );
  await source.query('insert into other values (1)');
  await pair.becomesEqual(['public.other']);
  await target.query('create table pt_c partition of pt for values from (200) to (300)');
  await pair.becomesEqual();
  expect((await pair.sync.status()).tables.find(({ table }) => table === 'public.pt')?.copied).toBeLessThan(
    199 + 10,
  );
});

test('hash partitions that are replaced: the table is copied again', async () => {
  await pair.source.query(`create table pt (id int primary key, v text) partition by hash (id);
    create table pt_0 partition of pt for values with (modulus 2, remainder 0);
    create table pt_1 partition of pt for values with (modulus 2, remainder 1);
    insert into pt select i, 'v' from generate_series(1, 200) i`);
  await pair.target.query(PLAIN);
  pair.start();
  await pair.equal();
  await pair.source.query(`alter table pt detach partition pt_1; create table pt_10 partition of pt for values with (modulus 4, remainder 1);
    create table pt_11 partition of pt for values with (modulus 4, remainder 3); insert into pt select * from pt_1 where id % 3 = 0; drop table pt_1`);
  await pair.becomesEqual();
  await pair.source.query(`update pt set v = 'after'`);
  await pair.equal();
});

test('a foreign table as partition: refused by name, no statement fails, and carried once it is gone', async () => {
  const { source, databases } = pair;
  await loopback();
  await source.query(`
    create table elsewhere (id int, v text);
    create table far (id int, v text) partition by range (id);
    create table far_a partition of far for values from (0) to (100);
    create foreign table far_f partition of far for values from (1000) to (2000) server away options (table_name 'elsewhere');
    create table late (id int, v text) partition by range (id);
    create table late_a partition of late for values from (0) to (100)`);
  await pair.target.query(
    'create table far (id int, v text); create table late (id int, v text); create table elsewhere (id int, v text)',
  );
  await pair.source.query(`${RANGED}; insert into pt select i, 'v' from generate_series(1, 199) i`);
  await pair.target.query(PLAIN);
  pair.start();
  const why = async () => (await pair.sync.status()).why.join(' ');
  const write = (table: string) =>
    source.query(
      `insert into ${table} values (1, 'a'), (2, 'b'), (1001, 'f'); update ${table} set v = v || '!'; delete from ${table} where id = 2`,
    );
  await waitFor(async () => /public\.far.*far_f is a foreign table/.test(await why()), {
    what: 'it to be named',
  });
  await pair.becomesEqual(['public.pt', 'public.late']);
  await write('far');
  await source.query(
    `create foreign table late_f partition of late for values from (1000) to (2000) server away options (table_name 'elsewhere')`,
  );
  await write('late');
  await waitFor(async () => (await why()).includes('late_f is a foreign table'), { what: 'it to be named' });
  await write('late');
  await source.query('alter table late detach partition late_f; alter table far detach partition far_f');
  await pair.becomesEqual();
  await source.query(`update far set v = 'after'; delete from late; insert into pt values (0, 'last')`);
  await pair.equal();
  expect((await databases.target.query('select from far')).rowCount).toBe(1);
});

/** A foreign server that is this database itself. */
async function loopback(): Promise<void> {
  const { hostname, port, pathname, username, password } = new URL(pair.databases.sourceUrl);
  const quoted = (text: string) => pg.escapeLiteral(decodeURIComponent(text));
  const name = pathname.slice(1);
  await pair.databases.sourceAdmin.query(`
    create extension postgres_fdw;
    create server away foreign data wrapper postgres_fdw options (host ${quoted(hostname)}, port '${port}', dbname '${name}');
    grant usage on foreign server away to ${name};
    create user mapping for ${name} server away options (user ${quoted(username)}, password ${quoted(password)}, password_required 'false')`);
}
