/** A copy into a table that has rows already: what the target knew before is brought in line, whatever it holds. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const TABLE = `create table t (id int primary key, slot int not null, v text, unique (slot));
  create table child (id int primary key, t int references t)`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('unique values that other rows of the target hold by now find their rows', async () => {
    await onBoth(pair.databases, TABLE);
    await pair.source.query(`
      insert into t select i, i, 'here' from generate_series(1, 40) i; insert into child select i, i from generate_series(1, 40) i`);
    // The same rows, each with the next one's value, and one whose key the source has given up.
    await pair.target.query(`
      insert into t select i, i % 40 + 1, 'there' from generate_series(1, 40) i where i <> 7; insert into child values (1, 1)`);
    pair.start();
    await pair.equal();
  });

  test('a row that only the target has is no reason to lose one: the table is held, with the row named', async () => {
    await onBoth(pair.databases, `${TABLE}; create table free (id int primary key)`);
    await pair.source.query(`insert into t values (1, 10, 'a'), (2, 20, 'b'); insert into free values (1)`);
    await pair.target.query(`insert into t values (99, 20, 'of the target')`);
    pair.start();
    const reason = await waitFor(
      async () => (await pair.sync.status()).tables.find(({ table }) => table === 'public.t')?.reason,
      { what: 'the table to be held' },
    );
    expect(reason).toMatch(/slot.*20|t_slot_key/);
    await pair.becomesEqual(['public.free']);
    await pair.target.query('delete from t where id = 99');
    await pair.becomesEqual();
    await pair.equal();
  });
});
