/** Tables that are partitioned on one side only, or differently: each side is written as it is. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers();

const PLAIN = 'create table t (k int primary key, v text)';
const BY_HASH = `${PLAIN} partition by hash (k);
  create table t_0 partition of t for values with (modulus 2, remainder 0);
  create table t_1 partition of t for values with (modulus 2, remainder 1)`;
const BY_RANGE = `${PLAIN} partition by range (k);
  create table t_low partition of t for values from (minvalue) to (3);
  create table t_high partition of t for values from (3) to (maxvalue)`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test.each([
    ['a plain table into a partitioned one', PLAIN, BY_HASH],
    ['a partitioned table into a plain one', BY_HASH, PLAIN],
    ['a table into one of another partition scheme', BY_HASH, BY_RANGE],
  ])('partitions on one side only, or others there: %s', async (_, there, here) => {
    await pair.source.query(there);
    await pair.target.query(here);
    await pair.source.query(`insert into t select i, 'a' from generate_series(1, 5) i`);
    await pair.target.query(`insert into t values (1, 'was there'), (2, 'too')`);
    pair.start();
    await pair.equal();
    await pair.source.query(`
      delete from t where k = 1; update t set k = k + 10, v = 'moved' where k = 2; update t set v = 'b' where k = 3`);
    await pair.equal();
    await pair.source.query(`truncate t; insert into t values (7, 'after')`);
    await pair.equal();
    expect((await pair.target.query('select from t')).rowCount).toBe(1);
  });
});
