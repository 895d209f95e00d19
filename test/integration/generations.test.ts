/** The lane goes on whatever becomes of delta tables that it has read. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

test('a delta table that the last batch read is gone when the next one begins', async () => {
  const lines: string[] = [];
  await pair.inStep('create table item (id int primary key, n int)', '', {
    logTo: (line) => lines.push(line),
  });
  await pair.source.query('insert into item values (1, 1)');
  await pair.source.query(`select ibex.rotate('item'::regclass)`);
  await pair.source.query('insert into item values (2, 2)');
  const { rows } = await pair.source.query<{ delta: string }>(
    `select format('ibex.delta_%s_1', 'item'::regclass::oid) as delta`,
  );
  const delta = rows[0]?.delta;
  const other = new pg.Client({ connectionString: pair.databases.sourceUrl });
  await other.connect();
  try {
    // Open, so that nobody empties it and every batch reads it; and then gone, as when a table is captured anew.
    await other.query(`begin; lock table ${delta} in access share mode`);
    await pair.sync.caughtUp();
    await other.query(`delete from ibex.generation where relid = 'item'::regclass and n = 1`);
    await other.query(`drop table ${delta}; commit`);
  } finally {
    await other.end();
  }
  await pair.source.query('insert into item values (3, 3)');
  await pair.equal();
  // The lane has not started anew for it.
  expect(lines.filter((line) => JSON.parse(line).level > 30)).toEqual([]);
});
