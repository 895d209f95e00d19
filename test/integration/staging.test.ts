/** What batches stage on the target does not stay there. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

const BATCHES = 12;
const ROWS = 1_000;

test('a staging table keeps little of the batches that went through it', async () => {
  await pair.inStep(
    'create table item (id int primary key, n int)',
    `insert into item select i, 0 from generate_series(1, ${ROWS}) i`,
  );
  const pages: number[] = [];
  for (let batch = 1; batch <= BATCHES; batch++) {
    await pair.source.query('update item set n = n + 1');
    await pair.sync.caughtUp();
    const { rows } = await pair.databases.targetAdmin.query<{ pages: number }>(
      `select sum(pg_relation_size(oid) / 8192)::int4 as pages from pg_class where relname ~ '^ibex_stage_'`,
    );
    pages.push(rows[0]?.pages ?? 0);
  }
  await pair.equal();
  // A page holds a hundred of these rows, and as many again may be dead.
  expect(Math.max(...pages)).toBeGreaterThanOrEqual(ROWS / 200);
  expect(Math.max(...pages)).toBeLessThanOrEqual((4 * ROWS) / 100);
});
