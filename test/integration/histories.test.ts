/**
 * Servers that are not what they were: a target that forgot, a source that is a copy, an application that locks
 * in its own order while the triggers are put on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { compareTables, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth, startSync } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** What the target holds and how far it is, as a function that brings it back there. */
async function remember(): Promise<() => Promise<void>> {
  const [rows, checkpoint] = [
    (await pair.target.query('select * from t')).rows,
    (await pair.target.query('select position from ibex.checkpoint')).rows[0],
  ];
  return async () => {
    await pair.target.query('truncate t');
    for (const { id, v } of rows) await pair.target.query('insert into t values ($1, $2)', [id, v]);
    await pair.target.query('update ibex.checkpoint set position = $1', [checkpoint.position]);
  };
}

test('a target set back to before deltas that were forgotten has the table copied again', async () => {
  await pair.inStep('create table t (id int primary key, v int)', 'insert into t values (1, 1), (2, 2)');
  const goBack = await remember();
  await pair.source.query('update t set v = 10 where id = 1; delete from t where id = 2');
  await pair.equal();
  await forgetAll();
  await pair.sync.stop();
  await goBack();
  expect(await compareTables(pair.source, pair.target)).not.toEqual([]);
  pair.start();
  await pair.equal();
});

/** Moves the triggers on until every delta that the target has is emptied. */
async function forgetAll(): Promise<void> {
  await pair.source.query(`select ibex.rotate('t'::regclass)`);
  const forgotten = `select from ibex.captured where forgotten is not null and not exists (
    select from ibex.delta_${(await pair.source.query(`select 't'::regclass::oid::text as oid`)).rows[0].oid}_1)`;
  await waitFor(
    async () => {
      // Somebody has to commit for the daemon to look.
      await pair.source.query('update t set v = v');
      return (await pair.source.query(forgotten)).rowCount === 1;
    },
    { what: 'the deltas to be forgotten' },
  );
}

test('a target set back to before deltas that are still there gets them once more', async () => {
  await pair.inStep('create table t (id int primary key, v int)', 'insert into t values (1, 1), (2, 2)');
  const goBack = await remember();
  await pair.source.query('update t set v = 10 where id = 1; delete from t where id = 2');
  await pair.equal();
  await pair.sync.stop();
  await goBack();
  pair.start();
  await pair.equal();
});

describe('a restored copy of the source', () => {
  test('is recognised by the schema ibex that came with it, and nothing is carried from it', async () => {
    await pair.inStep('create table t (id int primary key, v int)', 'insert into t values (1, 1)');
    await pair.sync.stop();
    const { database } = (await pair.source.query('select current_database() as database')).rows[0];
    const copy = `${database}_copy`;
    const superuser = new pg.Client({ connectionString: servers.source.superuserUrl });
    await superuser.connect();
    // A template may have no sessions; the clients of this test are given new ones by nobody, so end them last.
    await superuser.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = $1', [
      database,
    ]);
    await superuser.query(`create database ${copy} template ${database} owner ${database}`);
    try {
      const sourceUrl = new URL(pair.databases.sourceUrl);
      sourceUrl.pathname = copy;
      const other = startSync({ ...pair.databases, sourceUrl: sourceUrl.href });
      await expect(other.stopped).rejects.toThrow(
        /is not the source that sync main has carried: database oid/,
      );
      // To a target that knows nothing of it, too.
      const fresh = await freshDatabases(servers);
      const third = startSync({ ...fresh, sourceUrl: sourceUrl.href });
      await expect(third.stopped).rejects.toThrow(/belongs to another database/);
      await fresh.dropAll();
    } finally {
      await superuser.query(`drop database ${copy}`);
      await superuser.end();
    }
  });
});

test('putting triggers on never makes the application the victim of a deadlock', async () => {
  // A row trigger of a partitioned table locks all of its partitions, one after the other.
  const leaves = Array.from({ length: 8 }, (_, i) => `p${i}`);
  await onBoth(
    pair.databases,
    `create table p (k int, id int, primary key (k, id)) partition by list (k);
     ${leaves.map((leaf, i) => `create table ${leaf} partition of p for values in (${i})`).join(';')}`,
  );
  const stop = new AbortController();
  const writers = Array.from({ length: 2 }, (_, writer) => writeBackwards(leaves, writer, stop.signal));
  pair.start();
  await pair.sync.caughtUp();
  stop.abort();
  await Promise.all(writers);
  await pair.equal();
});

/** Transactions that write to the partitions from the last to the first, and take their time. */
async function writeBackwards(leaves: string[], writer: number, signal: AbortSignal): Promise<void> {
  const client = new pg.Client({ connectionString: pair.databases.sourceUrl });
  await client.connect();
  try {
    for (let round = 1; !signal.aborted || round < 5; round++) {
      await client.query('begin');
      for (const [k, leaf] of [...leaves.entries()].toReversed()) {
        await client.query(`insert into ${leaf} values ($1, $2)`, [k, 10 * round + writer]);
        await sleep(15 * Math.random());
      }
      await client.query('commit');
      await sleep(100 * Math.random());
    }
  } finally {
    await client.end();
  }
}
