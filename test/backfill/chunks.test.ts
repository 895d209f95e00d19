/** Chunks of one table, copied in any order, late, twice or beside each other, with the table changing between them. */
import { describe, expect, test } from 'vitest';
import { planChunks, recordedChunks, setUp } from '../support/chunks.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const KIB = 1024;

const pair = usePair(servers);

describe('chunks', () => {
  /** Some forty chunks of 64 KiB. */
  async function prepare(more = '') {
    await onBoth(pair.databases, `create table t (id int primary key, v int, pad text); ${more}`);
    await pair.source.query(`insert into t select i, i, repeat('x', 200) from generate_series(1, 10000) i`);
    await setUp(pair);
    const chunked = await planChunks(pair, 64 * KIB);
    const all = chunked.copies[0]?.chunks.map(({ n }) => n) ?? [];
    expect(all.length).toBeGreaterThan(30);
    return { ...chunked, all, half: all.slice(0, -1).filter((n) => n % 2 === 0) };
  }

  test.each([
    ['VACUUM FULL', 'vacuum full t'],
    ['CLUSTER', 'cluster t using by_v'],
    ['a rewrite', 'alter table t alter v type int using v + 1'],
    ['TRUNCATE', `truncate t; insert into t select i, -i, 'anew' from generate_series(1, 3000) i`],
  ])('rows that %s moves between chunks are not missed', async (_, statement) => {
    const { copy, half } = await prepare('create index by_v on t (v)');
    for (const n of half) await copy(n);
    await pair.source.query('update t set v = -v; delete from t where id % 5 < 3');
    await pair.source.query(statement);
    expect(await copy(1)).toMatchObject({ result: 'moved', rows: 0 });
    pair.start();
    await pair.becomesEqual();
    await pair.equal();
  });

  test('rows appended after planning, and moved ahead of and behind the copying, are there', async () => {
    const { copy, half } = await prepare();
    for (const n of half) await copy(n);
    await pair.source.query(`
      insert into t select i, i, repeat('y', 200) from generate_series(10001, 15000) i;
      update t set id = id + 20000 where id % 7 = 0; update t set v = v + 1 where id % 3 = 0; delete from t where id % 11 = 0`);
    pair.start();
    await pair.equal();
  });

  test('a job that wakes up after the hand-over brings nothing back', async () => {
    const { copy, all, half } = await prepare();
    pair.start();
    await pair.equal();
    await pair.source.query('delete from t where id <= 5000');
    await pair.equal();
    for (const n of half) expect((await copy(n)).result).toBe('gone');
    await expect(copy(all[0] as number, { epoch: 1 })).rejects.toMatchObject({ kind: 'taken' });
    await pair.equal();
  });

  test('chunks that are done are not copied again', async () => {
    const { copy, half } = await prepare();
    for (const n of half) await copy(n);
    const written = () =>
      pair.target.query('select id, xmin::text from t where id in (select id from t_done) order by id');
    await pair.target.query('create table t_done as select id from t');
    const before = (await written()).rows;
    expect(before.length).toBeGreaterThan(4000);
    pair.start({ tables: ['public.t'] });
    await pair.becomesEqual(['public.t']);
    await pair.sync.caughtUp();
    expect((await written()).rows).toEqual(before);
    expect((await pair.sync.status()).tables[0]?.copied).toBe(10000);
  });

  test('one that takes too long is given up, divided, and done in halves', async () => {
    const { copy, divide } = await prepare();
    await pair.target.query('begin; lock table t in share mode');
    expect(await copy(1, { patienceMs: 100 })).toMatchObject({ result: 'slow', rows: 0 });
    await pair.target.query('rollback');
    const [whole] = await recordedChunks(pair);
    await divide(1);
    const after = await recordedChunks(pair);
    expect(after.some(({ n }) => n === 1)).toBe(false);
    const [one, other] = after.slice(-2);
    expect([one?.first, one?.last, other?.last]).toEqual([whole?.first, other?.first, whole?.last]);
    expect((one?.planned ?? 0) + (other?.planned ?? 0)).toBe(whole?.planned);
    pair.start();
    await pair.equal();
  });

  test('a single block that takes long is waited for', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key)');
    await pair.source.query('insert into t select i from generate_series(1, 10) i');
    await setUp(pair);
    const { copy } = await planChunks(pair, 1);
    await pair.target.query('begin; lock table t in share mode');
    const copying = copy(1, { patienceMs: 20 });
    await waitFor(
      async () =>
        (await pair.target.query(`select from pg_locks where not granted and relation = 't'::regclass`))
          .rowCount,
      { what: 'the copy to wait for the lock' },
    );
    await new Promise((resolve) => setTimeout(resolve, 60));
    await pair.target.query('rollback');
    expect(await copying).toMatchObject({ result: 'copied', rows: 10 });
    pair.start();
    await pair.equal();
  });

  test('rows that two chunks bring, in whatever order, are there once', async () => {
    const { copy, all, half } = await prepare();
    for (const n of half) await copy(n);
    // Every row goes to the end of the table, from chunks that are done into one that is not, and is read again there.
    await pair.source.query('update t set v = v + 1');
    const outcomes = await Promise.all(all.slice(-6).map((n) => copy(n)));
    expect(outcomes.some(({ inTheWay }) => inTheWay)).toBe(true);
    pair.start();
    await pair.equal();
  });
});

describe('chunks are planned', () => {
  test('by what the rows have on disk, what is stored out of line included', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key, v text)');
    await pair.source.query('alter table t alter v set storage external');
    await pair.source.query(`insert into t select i, repeat('x', 40000) from generate_series(1, 200) i`);
    await setUp(pair);
    // 200 rows have their place in two or three blocks, and 8 MB behind them.
    await planChunks(pair, 4000 * KIB);
    const chunks = await recordedChunks(pair);
    expect(chunks.length).toBeGreaterThan(1);
    for (const { planned } of chunks) expect(planned).toBeLessThan(8000 * KIB);
    const total = chunks.reduce((sum, { planned }) => sum + planned, 0);
    expect(total).toBeGreaterThan(8_000_000);
    pair.start();
    await pair.equal();
    for (const { bytes, rows } of await recordedChunks(pair))
      expect(bytes).toBeGreaterThan((rows ?? 0) * 40_000);
  });
});
