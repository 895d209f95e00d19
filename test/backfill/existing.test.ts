/** Rows that are on the target before a table is copied first, and tables that are copied from the start. */
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { compareTables, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const statusOf = async (name: string) =>
  (await pair.sync.status()).tables.find(({ table }) => table === `public.${name}`);

/** Ten rows on the source; on the target three of them, of which one differs, and two others. */
async function occupied(): Promise<void> {
  await onBoth(
    pair.databases,
    'create table t (id int primary key, v text); create table empty (id int primary key)',
  );
  await pair.source.query(
    `insert into t select i, 'v' from generate_series(1, 10) i; insert into empty values (1)`,
  );
  await pair.target.query(`insert into t values (1, 'v'), (2, 'v'), (3, 'other'), (98, 'v'), (99, 'v')`);
}

test('rows are merged by key; those that the source lacks stay, and are counted', async () => {
  await occupied();
  pair.start();
  await pair.sync.caughtUp();
  expect(await compareTables(pair.source, pair.target, ['public.empty'])).toEqual([]);
  const { rows } = await pair.target.query('select id, v from t order by id');
  expect(rows.map(({ id, v }) => `${id}${v}`)).toEqual(
    [...Array(10).keys()].map((i) => `${i + 1}v`).concat('98v', '99v'),
  );
  expect([(await statusOf('t'))?.surplus, (await statusOf('empty'))?.surplus]).toEqual([2, null]);
});

test('or the table is refused, with its remedy, until it is empty', async () => {
  await occupied();
  pair.start({ flags: { existing: 'refuse' } });
  await pair.becomesEqual(['public.empty']);
  const reason = await waitFor(async () => (await statusOf('t'))?.reason, {
    what: 'the table to be refused',
  });
  expect(reason).toMatch(/^public\.t has rows on the target.*truncate public\.t.*--existing/);
  expect((await pair.target.query('select from t')).rowCount).toBe(5);
  await pair.target.query('truncate t');
  await pair.becomesEqual();
  await pair.equal();
});

test('or they are replaced', async () => {
  await occupied();
  pair.start({ flags: { existing: 'replace' } });
  await pair.equal();
  expect((await statusOf('t'))?.surplus).toBeNull();
});

test('backfill --restart copies the chosen tables from the start, through a daemon that streams the others', async () => {
  await pair.inStep(
    'create table t (id int primary key); create table u (id int primary key)',
    'insert into t values (1); insert into u values (1)',
  );
  const writers = async () => (await pair.target.query('select xmin::text from u')).rows;
  const before = await writers();
  await pair.target.query('insert into t values (2)');
  const { sourceUrl, targetUrl } = pair.databases;
  const urls = ['--source', sourceUrl, '--target', targetUrl];
  const { code, stdout } = await ibex(['backfill', '--restart', '--tables', 'public.t', ...urls]);
  expect([code, stdout]).toEqual([0, '1 tables are copied, 1 rows\n']);
  await pair.equal();
  expect(await writers()).toEqual(before);
  expect(await ibex(['backfill', '--restart', '--tables', 'public.nothing', ...urls])).toMatchObject({
    code: 2,
  });
});
