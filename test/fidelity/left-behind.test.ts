/** What a database has beside its tables: setup names it, nothing is left behind silently. */
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const pair = usePair(await useServers());

async function leftBehind(): Promise<string[]> {
  const { sourceUrl, targetUrl } = pair.databases;
  const { code, stdout, stderr } = await ibex([
    'setup',
    '--json',
    '--source',
    sourceUrl,
    '--target',
    targetUrl,
  ]);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout).leftBehind;
}

test('setup names large objects, materialized views and foreign tables as not carried', async () => {
  await onBoth(pair.databases, 'create table t (id int primary key)');
  expect(await leftBehind()).toEqual([]);

  await pair.source.query(`
    select lo_create(0), lo_create(0);
    create materialized view "Sums" as select count(*) from t`);
  await pair.databases.sourceAdmin.query(`
    create extension postgres_fdw;
    create server elsewhere foreign data wrapper postgres_fdw;
    create foreign table away (id int) server elsewhere`);
  expect(await leftBehind()).toEqual([
    '2 large objects are not carried, they are in no table; move them with: pg_dump --blobs --section=data',
    'materialized view public."Sums" is not carried; on the target: refresh materialized view public."Sums";',
    'foreign table public.away is not carried: its rows are on another server',
  ]);
});
