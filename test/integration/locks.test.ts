/**
 * That neither reading a batch nor looking at the catalogs ever stands in the way of an application so that one of both
 * has to fail. The application looks for deadlocks before anybody else does, and so would be the one.
 */
import type pg from 'pg';
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** In a transaction that has locked a table already. Only a superuser may say when to look for deadlocks. */
async function applicationThatLocks(table: string): Promise<pg.Client> {
  const application = pair.databases.sourceAdmin;
  await application.query(
    `set deadlock_timeout = '200ms'; begin; lock table only ${table} in access exclusive mode`,
  );
  return application;
}

/** One of our sessions waits for a lock on the table. */
async function waitingFor(table: string, part: string): Promise<void> {
  await waitFor(
    async () => {
      const { rows } = await pair.source.query(
        `select from pg_locks l join pg_stat_activity a using (pid)
          where l.relation = $1::regclass and not l.granted and a.application_name = $2`,
        [table, `ibex:main:${part}`],
      );
      return rows.length > 0;
    },
    { what: `${part} to wait for ${table}` },
  );
}

const PARTITIONED = `
  create table t (id int primary key, v text) partition by range (id);
  create table p1 partition of t for values from (0) to (100);
  create table p2 partition of t for values from (100) to (200);`;
const PARTITIONED_ROWS = "insert into t select i, 'a' from generate_series(0, 199, 10) i";

test('an application that locks one table after the other is not made to fail by a batch that reads both', async () => {
  await pair.inStep(
    'create table child (id int primary key, v text); create table parent (id int primary key, v text)',
    "insert into child values (1, 'a'); insert into parent values (1, 'a')",
  );
  await pair.sync.stop();
  await pair.source.query("insert into child values (2, 'b'); insert into parent values (2, 'b')");
  const application = await applicationThatLocks('parent');
  pair.start();
  await waitingFor('parent', 'read');
  await application.query('truncate child; commit');
  await pair.source.query("insert into child values (3, 'c')");
  await pair.equal();
  expect((await pair.target.query('select id from child')).rows).toEqual([{ id: 3 }]);
});

test('a look at partitions that changed never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS);
  const application = await applicationThatLocks('t');
  await pair.source.query('truncate p1; truncate p2');
  await waitingFor('t', 'control');
  await application.query(
    'lock table p1, p2 in access exclusive mode; alter table t detach partition p2; commit',
  );
  await pair.source.query("drop table p2; insert into t values (1, 'b')");
  await pair.target.query('alter table t detach partition p2; drop table p2');
  await pair.equal();
  expect((await pair.target.query('select id from t')).rows).toEqual([{ id: 1 }]);
});

test('the question who has locked a partition never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED, PARTITIONED_ROWS);
  const application = await applicationThatLocks('p2');
  await pair.source.query("update p1 set v = 'b'");
  await waitingFor('p2', 'read');
  await application.query('lock table p1 in access exclusive mode; commit');
  await pair.equal();
});

test('a partition that came while a batch is read never makes the application wait for ever', async () => {
  const { source } = pair;
  await onBoth(pair.databases, PARTITIONED);
  await source.query(`create function slow(text) returns text immutable language plpgsql as $$
    begin if $1 = 'slow' then perform pg_sleep(1); end if; return $1; end $$`);
  pair.start({ carry: { 'public.t': { select: { v: 'public.slow(v)' } } } });
  await pair.equal();
  const created = 'create table p3 partition of t for values from (200) to (300)';
  await pair.target.query(created);
  await source.query(`begin; ${created}; insert into t values (200, 'slow'); commit`);
  await waitFor(
    async () =>
      (
        await source.query(
          "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
        )
      ).rowCount === 1,
    { what: 'the batch to be read' },
  );
  // The server sees no deadlock when a session waits for it that only waits for an answer to another one.
  await source.query("set statement_timeout = '200s'; truncate p3");
  await source.query("insert into t values (201, 'quick')");
  await pair.equal();
});

test('a copy that reads all partitions at once never makes the application the victim of a deadlock', async () => {
  await pair.inStep(PARTITIONED.replace(' primary key', ''), PARTITIONED_ROWS);
  await pair.sync.stop();
  // As if the daemon had been killed before its only chunk was copied.
  await pair.target.query(`truncate t; update ibex.chunk set rows = null;
    update ibex.target_table t set state = 'copying', floor = c.position from ibex.checkpoint c where c.sync = t.sync`);
  const application = await applicationThatLocks('p2');
  pair.start();
  await waitingFor('p2', 'copy');
  await application.query('lock table p1 in access exclusive mode; commit');
  await pair.equal();
});
