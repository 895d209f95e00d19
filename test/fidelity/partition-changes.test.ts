/** Partitions that come and go while the table streams: the usual way to expire data, of which no trigger tells. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();

const TABLE = 'create table big (id int, day int, v text, primary key (id, day))';
const DIVIDED = `${TABLE} partition by range (day);
  create table big_1 partition of big for values from (0) to (10);
  create table big_2 partition of big for values from (10) to (20);
  create table big_3 partition of big for values from (20) to (30);
  create table big_old partition of big for values from (-100) to (0) partition by list (day);
  create table big_old_1 partition of big_old for values in (-1, -2);
  create table big_old_2 partition of big_old for values in (-3)`;
const ROWS = `insert into big select i, i % 30, 'v' || i from generate_series(1, 9000) i;
  insert into big select i, -1 - i % 3, 'old' from generate_series(1, 300) i`;

/** What the target has instead of the source's partitions. */
const SCHEMES = {
  'the same partitions': `${DIVIDED}; create table big_4 partition of big for values from (30) to (40);
    create table big_5 partition of big for values from (40) to (50)`,
  'other partitions': `${TABLE} partition by hash (id);
    create table big_1 partition of big for values with (modulus 2, remainder 0);
    create table big_2 partition of big for values with (modulus 2, remainder 1)`,
  'no partitions': TABLE,
};

const UNNOTICED = `
  select from ibex.captured c cross join ibex.signatures(array[c.relid]) s where s.tree is distinct from c.tree`;

const [may, mayNot] = MODES.map((mode) =>
  Object.entries(SCHEMES).map(([has, target]) => ({ ...mode, has, target })),
);
const CASES = [may?.[0], mayNot?.[0], mayNot?.[1], may?.[2]] as {
  replica: boolean;
  has: string;
  target: string;
  mode: string;
}[];

describe.each(CASES)('where the target has $has and $mode', ({ replica, target }) => {
  const pair = usePair(servers, { replica });

  async function inStep(): Promise<void> {
    await pair.source.query(`${DIVIDED}; ${ROWS}`);
    await pair.target.query(target);
    pair.start();
    await pair.equal();
  }

  async function copied(): Promise<number> {
    return (await pair.sync.status()).tables[0]?.copied ?? 0;
  }

  test('partitions that are attached, created, detached and dropped are carried by themselves', async () => {
    await inStep();
    const { source } = pair;
    expect(await copied()).toBe(9300);
    await source.query(`create table big_4 (like big including all);
      insert into big_4 select i, 30 + i % 10, 'new' from generate_series(1, 70) i;
      alter table big attach partition big_4 for values from (30) to (40); insert into big values (100, 30, 'root')`);
    await pair.becomesEqual(['public.big']);
    await source.query(
      `create table big_5 partition of big for values from (40) to (50); insert into big_5 values (1, 40, 'leaf')`,
    );
    await pair.becomesEqual(['public.big']);
    await source.query(`update big set v = v || '!' where id = 7; alter table big detach partition big_1`);
    await pair.becomesEqual(['public.big']);
    await source.query(
      `insert into big_1 values (50000, 5, 'no part of it'); drop table big_2; delete from big where id < 30`,
    );
    await pair.becomesEqual(['public.big']);
    await source.query('drop table big_old');
    await pair.becomesEqual(['public.big']);
    await source.query('drop table big_1');
    await pair.equal();
    expect(await copied()).toBeLessThan(9300 + 100);
  });

  test('a partition that was away for a moment is carried as it comes back', async () => {
    await inStep();
    const { source } = pair;
    const away = async (...meanwhile: string[]) => {
      await source.query('alter table big detach partition big_2');
      for (const statement of meanwhile) await source.query(statement);
      await source.query('alter table big attach partition big_2 for values from (10) to (20)');
      await pair.becomesEqual(['public.big']);
    };
    await away('delete from big_2 where id % 3 = 0', `update big_2 set v = 'away' where id % 5 = 0`);
    await away(
      'alter table big_2 disable trigger user',
      `delete from big_2 where id % 7 = 0; insert into big_2 values (9, 10, 'x')`,
      'alter table big_2 enable trigger user',
    );
    // A batch in between reads these keys as gone.
    await away(
      `update big_2 set v = 'seen'`,
      `insert into big values (99, 1, 'beside')`,
      'select pg_sleep(0.3)',
    );
    await away('truncate big_2', `insert into big_2 values (1, 11, 'after')`);
    await waitFor(async () => (await source.query(UNNOTICED)).rowCount === 0, { what: 'it to be noticed' });
    await pair.equal();
    expect(await copied()).toBeLessThan(9300 + 5 * 3000);
  });
});
