/** The lane goes on whatever becomes of delta tables that it has read. */
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Databases, freshDatabases, useServers } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let sync: RunningSync | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await sync?.stop();
  sync = undefined;
  await databases.dropAll();
});

async function connected(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}

test('a delta table that the last batch read is gone when the next one begins', async () => {
  const { source } = databases;
  const lines: string[] = [];
  await onBoth(databases, 'create table item (id int primary key, n int)');
  sync = startSync(databases, { logTo: (line) => lines.push(line) });
  await sync.caughtUp();
  await source.query('insert into item values (1, 1)');
  await source.query(`select ibex.rotate('item'::regclass)`);
  await source.query('insert into item values (2, 2)');
  const { rows } = await source.query<{ delta: string }>(
    `select format('ibex.delta_%s_1', 'item'::regclass::oid) as delta`,
  );
  const delta = rows[0]?.delta;
  const other = await connected(databases.sourceUrl);
  try {
    // Open, so that nobody empties it and every batch reads it; and then gone, as when a table is captured anew.
    await other.query(`begin; lock table ${delta} in access share mode`);
    await sync.caughtUp();
    await other.query(`delete from ibex.generation where relid = 'item'::regclass and n = 1`);
    await other.query(`drop table ${delta}; commit`);
  } finally {
    await other.end();
  }
  await source.query('insert into item values (3, 3)');
  await sync.caughtUp();
  await expectEqual(databases, sync);
  // The lane has not started anew for it.
  expect(lines.filter((line) => JSON.parse(line).level > 30)).toEqual([]);
});
