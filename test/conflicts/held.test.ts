/** Conflicts that wait for a person: neither row moves, or nothing at all does, until somebody has decided. */
import { expect, test } from 'vitest';
import { useServers, waitFor } from '../support/servers.ts';
import { useTwoWay } from '../support/two-way.ts';

const servers = await useServers();
const nodes = useTwoWay(servers);

const SCHEMA = 'create table t (id int primary key, v text)';
const ROWS = `insert into t select i, 'old' from generate_series(1, 5) i`;

const read = async (side: 'a' | 'b', id: number) =>
  (await nodes[side].query<{ v: string }>('select v from t where id = $1', [id])).rows[0]?.v;

async function clash(): Promise<void> {
  await nodes.apart(async () => {
    await nodes.a.query(`update t set v = 'a' where id = 1`);
    await nodes.b.query(`update t set v = 'b' where id = 1`);
  });
}

test('a held key stays as it is on both sides while all others go on', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'hold' });
  await clash();
  await nodes.settled();
  await nodes.a.query(`update t set v = 'a again' where id = 1; update t set v = 'goes on' where id = 2`);
  await nodes.settled();
  expect([await read('a', 1), await read('b', 1)]).toEqual(['a again', 'b']);
  expect(await read('b', 2)).toBe('goes on');
  const records = await nodes.conflicts();
  expect(records.map(({ sync, state, winner }) => [sync, state, winner]).sort()).toEqual([
    ['pair', 'held', 'none'],
    ['pair.back', 'held', 'none'],
  ]);
  expect(records.find(({ sync }) => sync === 'pair')?.incoming_row).toEqual(['1', 'a again']);
  // What `ibex conflicts resolve --to b` does.
  await nodes.onBoth('delete from ibex.held_key');
  await nodes.b.query(`select ibex.note_keys('t'::regclass, '[["1"]]')`);
  await nodes.equal();
  expect(await read('a', 1)).toBe('b');
});

test('a row that is changed where its key waits does not go for one that knew of the other side', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'hold' });
  await nodes.apart(async () => {
    await nodes.a.query(`update t set v = 'a' where id = 1`);
    await nodes.b.query(`update t set v = 'b' where id = 1`);
    await nodes.a.query('update ibex.restraint set paused_at = null');
    await waitFor(async () => (await nodes.conflicts()).length === 1, { what: 'a to hold the key' });
    await nodes.a.query(`update t set v = 'a again' where id = 1; update t set v = 'goes on' where id = 2`);
  });
  await nodes.settled();
  expect([await read('a', 1), await read('b', 1), await read('b', 2)]).toEqual(['a again', 'b', 'goes on']);
  const records = await nodes.conflicts();
  expect(records.map(({ sync, type, state }) => [sync, type, state]).sort()).toEqual([
    ['pair', 'update_origin_differs', 'held'],
    ['pair.back', 'update_origin_differs', 'held'],
  ]);
});

test('a TRUNCATE does not take a row whose key waits where it was truncated', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'hold' });
  await nodes.apart(async () => {
    await nodes.a.query('truncate t');
    await nodes.b.query(`update t set v = 'b' where id = 1`);
    await nodes.a.query('update ibex.restraint set paused_at = null');
    await waitFor(async () => (await nodes.conflicts()).length === 1, { what: 'a to hold the key' });
  });
  await nodes.settled();
  expect((await nodes.b.query('select id, v from t')).rows).toEqual([{ id: 1, v: 'b' }]);
  for (const { tables } of await nodes.status()) {
    for (const { captured, applied, coalesced, resolved, held } of tables)
      expect(applied + coalesced + resolved + held).toBe(captured);
  }
  const records = await nodes.conflicts();
  expect(records.map(({ sync, type, state }) => [sync, type, state]).sort()).toEqual([
    ['pair', 'delete_origin_differs', 'held'],
    ['pair.back', 'update_missing', 'held'],
  ]);
});

test('where both sides come to have the same nobody has to decide, and the record keeps what differed', async () => {
  await nodes.inStep(
    `${SCHEMA}; create table person (id int primary key, email text unique)`,
    `${ROWS}; insert into person values (1, 'old')`,
    { default: 'hold' },
  );
  await clash();
  await nodes.apart(async () => {
    await nodes.a.query(`insert into person values (2, 'same')`);
    await nodes.b.query(`insert into person values (3, 'same')`);
  });
  await nodes.settled();
  await nodes.b.query(`update t set v = 'a' where id = 1; delete from person where id = 3`);
  await nodes.settled();
  const records = (await nodes.conflicts()).filter(({ sync }) => sync === 'pair.back');
  expect(records.map(({ type, state, reason }) => [type, state, reason])).toEqual([
    ['update_origin_differs', 'closed', 'both sides came to have the same'],
    ['update_exists', 'closed', 'both sides came to have the same'],
  ]);
  expect(records.map(({ local_row, incoming_row }) => [local_row, incoming_row])).toEqual([
    [
      ['1', 'a'],
      ['1', 'b'],
    ],
    [
      ['2', 'same'],
      ['3', 'same'],
    ],
  ]);
  await nodes.b.query(`update t set v = 'goes on' where id = 1; insert into person values (3, 'another')`);
  await nodes.settled();
  expect(await read('a', 1)).toBe('goes on');
  const { rows } = await nodes.a.query('select id from person order by id');
  expect(rows).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
});

test('abort stops the lane, says why, and goes on once it is decided', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'abort' });
  await clash();
  await waitFor(
    async () => (await nodes.conflicts()).filter(({ state }) => state === 'aborted').length === 2,
    {
      what: 'both lanes to stop',
    },
  );
  await nodes.a.query(`update t set v = 'waits' where id = 2`);
  expect((await nodes.status()).map(({ verdict }) => verdict)).toEqual(['NOT READY', 'NOT READY']);
  const decide = (decision: string) => `
    insert into ibex.held_key (sync, schema_name, table_name, key, conflict, decision)
    select sync, schema_name, table_name, key, id, '${decision}' from ibex.conflict where state = 'aborted';
    update ibex.conflict set state = 'closed' where state = 'aborted'`;
  await nodes.a.query(decide('local'));
  await nodes.b.query(decide('incoming'));
  await nodes.equal();
  expect([await read('b', 1), await read('b', 2)]).toEqual(['a', 'waits']);
});

test('an error of the function holds its key alone', async () => {
  await nodes.inStep(
    `${SCHEMA}; create function public.decide(a t, b t, meta jsonb) returns t language plpgsql as $$
       begin if a.id = 1 then raise 'not this one'; end if; return b; end $$`,
    ROWS,
    { default: { strategy: 'function', function: 'public.decide' } },
  );
  await nodes.apart(() =>
    nodes.a
      .query(`update t set v = 'a' where id in (1, 2)`)
      .then(() => nodes.b.query(`update t set v = 'b' where id in (1, 2)`))
      .then(() => undefined),
  );
  await nodes.settled();
  expect([await read('a', 1), await read('b', 1)]).toEqual(['a', 'b']);
  expect([await read('a', 2), await read('b', 2)]).toEqual(['b', 'b']);
  const held = (await nodes.conflicts()).filter(({ state }) => state === 'held');
  expect(held.map(({ key }) => key)).toEqual([['1'], ['1']]);
  expect(held[0]?.reason).toMatch(/not this one/);
});
