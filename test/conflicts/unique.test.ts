/** Values that one row only may have, given to two: what each side makes of it is the same. */
import { expect, test } from 'vitest';
import { useServers } from '../support/servers.ts';
import { useTwoWay } from '../support/two-way.ts';

const servers = await useServers();
const nodes = useTwoWay(servers);

test('the row that loses is gone on both sides, and in the record', async () => {
  await nodes.inStep(
    'create table person (id int primary key, email text unique, nick text unique)',
    `insert into person values (1, 'one', 'n1'), (2, 'two', 'n2'), (3, 'three', 'n3')`,
    { default: 'newest' },
  );
  await nodes.apart(async () => {
    await nodes.a.query(
      `insert into person values (10, 'new', 'x'); update person set email = 'taken' where id = 1`,
    );
    await nodes.b.query(
      `insert into person values (20, 'new', 'y'); insert into person values (21, 'other', 'z')`,
    );
    // Younger than either of the rows of b that have one of its values.
    await nodes.b.query(`update person set email = 'taken' where id = 2`);
    await nodes.a.query(`insert into person values (30, 'other', 'free')`);
  });
  await nodes.equal();
  const { rows } = await nodes.b.query('select id, email from person order by id');
  expect(rows).toEqual([
    { id: 2, email: 'taken' },
    { id: 3, email: 'three' },
    { id: 20, email: 'new' },
    { id: 30, email: 'other' },
  ]);
  const records = await nodes.conflicts();
  expect(records.filter(({ type }) => type === 'update_exists').length).toBeGreaterThanOrEqual(3);
  const lost = records.flatMap(({ winner, local_row, incoming_row }) => [
    winner === 'local' ? incoming_row : local_row,
  ]);
  for (const row of [
    ['10', 'new', 'x'],
    ['1', 'taken', 'n1'],
    ['21', 'other', 'z'],
  ])
    expect(lost).toContainEqual(row);
});

test('a row that would have made room for another one, and waits, is in its way', async () => {
  await nodes.inStep(
    'create table person (id int primary key, email text unique)',
    `insert into person values (1, 'one'), (2, 'two'), (3, 'three')`,
    { default: 'hold' },
  );
  await nodes.apart(async () => {
    await nodes.a.query(`update person set email = 'taken' where id = 2`);
    await nodes.a.query(`update person set email = 'two' where id = 1`);
    await nodes.b.query(`update person set email = 'taken' where id = 3`);
  });
  await nodes.settled();
  const records = await nodes.conflicts();
  expect(records.map(({ sync, type, state, key }) => [sync, type, state, key]).sort()).toEqual([
    ['pair', 'update_exists', 'held', ['1']],
    ['pair', 'update_exists', 'held', ['2']],
    ['pair.back', 'update_exists', 'held', ['3']],
  ]);
  const states = (await nodes.status()).flatMap(({ tables }) => tables.map(({ state }) => state));
  expect(states).toEqual(['streaming', 'streaming']);
});
