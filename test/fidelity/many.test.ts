/** Many tables, and many partitions. TEST_TABLES and TEST_PARTITIONS give other numbers of them, such as 2000 and 1500. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);
const TABLES = Number(process.env.TEST_TABLES ?? 300);
const PARTITIONS = Number(process.env.TEST_PARTITIONS ?? 500);

/** In pieces: one transaction cannot lock as many tables. */
async function createMany(count: number, create: (i: number) => string, alsoOnTarget = true): Promise<void> {
  for (let first = 0; first < count; first += 100) {
    const piece = Array.from({ length: Math.min(100, count - first) }, (_, i) => create(first + i)).join(';');
    await pair.source.query(piece);
    if (alsoOnTarget) await pair.target.query(piece);
  }
}

/** All tables but the busy one are in step, which says that it waits. */
async function restIsInStep(): Promise<boolean> {
  const { rows } = await pair.target.query<{ streaming: number; waits: boolean }>(
    `select count(*) filter (where state = 'streaming')::int as streaming,
            bool_or(table_name = 't_7' and reason like 'waiting to arm%') as waits from ibex.target_table`,
  );
  return rows[0]?.streaming === TABLES - 1 && rows[0].waits;
}

test('hundreds of tables are set up, copied and kept in step', {
  timeout: 1_200_000,
}, async () => {
  await createMany(TABLES, (i) => `create table t_${i} (id int primary key, v int)`);
  await createMany(TABLES, (i) => `insert into t_${i} values (1, ${i}), (2, 0)`, false);
  const busy = pair.databases.sourceAdmin;
  await busy.query('begin; insert into public.t_7 values (7, 7)');
  pair.start();
  await waitFor(restIsInStep, { what: 'all other tables to be in step', timeout: 1_000_000 });
  await busy.query('commit');
  await pair.sync.caughtUp(1_000_000);
  const { rows: oversized } = await pair.source.query(
    `select relname from pg_class where relname ~ '^delta_' and reltoastrelid <> 0`,
  );
  expect(oversized).toEqual([]);
  for (let i = 0; i < 20; i++) {
    const n = (i * 7919) % TABLES;
    await pair.source.query(`update t_${n} set v = v + 1; insert into t_${n} values (3, 3)`);
  }
  await pair.equal();
});

test('a table with hundreds of partitions is set up, copied and kept in step', {
  timeout: 1_200_000,
}, async () => {
  const { source, target } = pair;
  await source.query('create table wide (id int primary key, a int, v text) partition by range (id)');
  await createMany(
    PARTITIONS,
    (i) => `create table wide_${i} partition of wide for values from (${i * 10}) to (${i * 10 + 10})`,
    false,
  );
  await source.query('create index on wide (a)');
  await target.query('create table wide (id int primary key, a int, v text)');
  await source.query(
    `insert into wide select i, i, 'v' from generate_series(0, ${PARTITIONS * 10 - 1}, 3) i`,
  );
  pair.start();
  await pair.sync.caughtUp(1_000_000);
  await pair.equal();
  await source.query(
    `update wide set v = 'some' where id % 500 = 0; update wide set id = id + 1 where id = 3 or id = 9`,
  );
  await pair.equal();
  await source.query(`update wide set v = 'all'; truncate wide_1; drop table wide_2`);
  await pair.becomesEqual();
  expect((await pair.sync.status()).tables[0]?.copied).toBeLessThan((PARTITIONS * 10) / 3 + 20);
});
