/** Two lanes between two nodes: everything gets to the other side, and nothing goes round. */
import { describe, expect, test } from 'vitest';
import { useServers } from '../support/servers.ts';
import { useTwoWay } from '../support/two-way.ts';

const servers = await useServers();
const nodes = useTwoWay(servers);

const SCHEMA = `
  create table t (id int primary key, v text);
  create table p (id int, k int, v text, primary key (id, k)) partition by list (k);
  create table p_1 partition of p for values in (1);
  create table p_2 partition of p for values in (2)`;

async function captured(): Promise<number[]> {
  return (await nodes.status()).map(({ tables }) => tables.reduce((sum, table) => sum + table.captured, 0));
}

describe('what each side writes', () => {
  test('is on the other one, and counters stand still once nobody writes', async () => {
    await nodes.inStep(SCHEMA, `insert into t select i, 'a' || i from generate_series(1, 100) i`);
    await nodes.a.query(`insert into t values (1001, 'a'); update t set v = 'from a' where id <= 10;
                         delete from t where id = 20; insert into p values (1, 1, 'a')`);
    await nodes.b.query(`insert into t values (2001, 'b'); update t set v = 'from b' where id between 11 and 19;
                         delete from t where id = 30; update t set id = 3000 where id = 40; insert into p values (2, 2, 'b')`);
    await nodes.equal();
    const { rows } = await nodes.a.query(
      `select count(*)::int as n, count(*) filter (where v = 'from b')::int as b from t`,
    );
    expect(rows).toEqual([{ n: 100, b: 9 }]);
    // Of an updated row the old key and the new one.
    expect(await captured()).toEqual([23, 23]);
    await nodes.settled();
    expect(await captured()).toEqual([23, 23]);
    expect(await nodes.conflicts()).toEqual([]);
  });

  test('rows that either side had alone at the start are on both', async () => {
    await nodes.onBoth(SCHEMA);
    await nodes.a.query(`insert into t values (1, 'a'), (2, 'a')`);
    await nodes.b.query(`insert into t values (2, 'b'), (3, 'b')`);
    nodes.start();
    await nodes.equal();
    const { rows } = await nodes.b.query('select * from t order by id');
    expect(rows).toEqual([
      { id: 1, v: 'a' },
      { id: 2, v: 'a' },
      { id: 3, v: 'b' },
    ]);
  });
});
