/** What the source's statistics tell of tables that are still to be copied, and what status makes of it. */
import { expect, test } from 'vitest';
import { readEstimates } from '../../src/observe/progress.ts';
import { statusText } from '../../src/observe/status-text.ts';
import { Session } from '../../src/postgres/session.ts';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth, readSyncStatus } from '../support/sync.ts';

const pair = usePair(await useServers());

test('sizes come from the statistics, partitions and TOAST included, and are unknown without any', async () => {
  await onBoth(
    pair.databases,
    `create table plain (id int primary key, body text);
     alter table plain alter body set storage external;
     create table parted (id int, pad text, primary key (id)) partition by range (id);
     create table part_1 partition of parted for values from (0) to (5000);
     create table part_2 partition of parted for values from (5000) to (10000);
     create table fresh (id int primary key) with (autovacuum_enabled = off);`,
  );
  await pair.source.query(`insert into plain select i, repeat('x', 20000) from generate_series(1, 100) i;
    insert into parted select i, repeat('y', 100) from generate_series(0, 9999) i`);
  await pair.source.query('vacuum analyze plain, parted');
  await pair.source.query('insert into fresh select generate_series(1, 1000)');
  const { rows } = await pair.source.query<{ table: string; oid: number; size: number }>(
    `select relname as table, oid::int8::float8 as oid,
            case when relkind = 'p' then pg_table_size('part_1') + pg_table_size('part_2')
                 else pg_table_size(oid) end::float8 as size
       from pg_class where relname in ('plain', 'parted', 'fresh')`,
  );
  const of = (table: string) => rows.find((row) => row.table === table) as { oid: number; size: number };

  await using source = await Session.open({ url: pair.databases.sourceUrl, name: 'test' });
  const estimates = await readEstimates(
    source,
    rows.map(({ oid }) => oid),
  );
  for (const [table, count] of [['plain', 100] as const, ['parted', 10_000] as const]) {
    const { oid, size } = of(table);
    expect(estimates.get(oid)?.rows, table).toBe(count);
    // All but the maps of free and visible space, which are no rows.
    expect(estimates.get(oid)?.bytes, table).toBeLessThanOrEqual(size);
    expect(estimates.get(oid)?.bytes, table).toBeGreaterThan(size - 6 * 32_768);
  }
  expect(estimates.get(of('fresh').oid)).toEqual({ rows: null, bytes: null });

  const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
  expect((await ibex(['setup'], { env })).code).toBe(0);
  const before = await readSyncStatus(pair.databases);
  expect(statusText(before)).toMatch(/^ {2}copy {6}0 B, 0 rows, 0 of 3 tables, 0 under way$/m);
  const { copy, tables } = before;
  expect(tables.map(({ table, expected, bytes }) => [table, expected, bytes.planned])).toEqual(
    ['fresh', 'parted', 'plain'].map((table) => {
      const { rows, bytes } = estimates.get(of(table).oid) ?? { rows: null, bytes: null };
      return [`public.${table}`, rows, bytes];
    }),
  );
  expect(copy).toMatchObject({ tables: { copied: 0, all: 3 }, copied: 0, expected: null, jobs: 0 });
  expect(copy.bytes).toEqual({ copied: 0, planned: null });

  pair.start();
  await pair.sync.caughtUp();
  const after = await readSyncStatus(pair.databases);
  expect(statusText(after)).not.toMatch(/^ {2}copy /m);
  expect(after.copy).toMatchObject({
    tables: { copied: 3, all: 3 },
    copied: 11_100,
    expected: 11_100,
    jobs: 0,
  });
  expect(after.copy.bytes.copied).toBe(after.copy.bytes.planned);
  const sizes = of('plain').size + of('parted').size + of('fresh').size;
  expect(after.copy.bytes.planned).toBeLessThanOrEqual(sizes);
  expect(after.copy.bytes.planned).toBeGreaterThan(sizes / 2);
});
