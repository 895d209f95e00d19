/** Rows that both sides changed: what each strategy makes of them, on both sides alike, and what is written down. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { useServers, waitFor } from '../support/servers.ts';
import { type Conflict, useTwoWay } from '../support/two-way.ts';

const servers = await useServers();
const nodes = useTwoWay(servers);

const SCHEMA = 'create table t (id int primary key, v text, version int)';
const ROWS = `insert into t select i, 'old', 0 from generate_series(1, 6) i`;

/** b writes after a. */
async function clash(tables: readonly string[] = ['t']): Promise<void> {
  await nodes.apart(async () => {
    for (const t of tables) {
      await nodes.a.query(`update ${t} set v = 'a', version = 7 where id in (1, 2); delete from ${t} where id = 3;
                           insert into ${t} values (10, 'a', 1)`);
      await nodes.b.query(`update ${t} set v = 'b', version = 5 where id in (1, 3); delete from ${t} where id = 2;
                           insert into ${t} values (10, 'b', 2)`);
    }
  });
  await nodes.equal();
}

async function rows(table = 't'): Promise<Record<string, string>> {
  const { rows } = await nodes.a.query<{ id: number; v: string }>(
    `select id, v from ${table} where v <> 'old'`,
  );
  return Object.fromEntries(rows.map(({ id, v }) => [id, v]));
}

const A = { 1: 'a', 2: 'a', 10: 'a' };
const B = { 1: 'b', 3: 'b', 10: 'b' };

/** By table: what decides, and what stands. */
const CASES: Record<string, [rule: object | string, stands: Record<string, string>]> = {
  by_newest: ['newest', B],
  by_oldest: ['oldest', A],
  by_source: ['source', A],
  by_target: ['target', B],
  by_priority: [{ strategy: 'priority', nodes: ['b', 'a'] }, B],
  by_column: [
    { strategy: 'column', column: 'version' },
    { 1: 'a', 2: 'a', 3: 'b', 10: 'b' },
  ],
  // Of equal values the rows are compared, not the names of the nodes.
  by_equal: [
    { strategy: 'column', column: 'id' },
    { 1: 'b', 2: 'a', 3: 'b', 10: 'b' },
  ],
  by_function: [
    { strategy: 'function', function: 'public.both' },
    { 1: 'ab', 2: 'a', 3: 'b', 10: 'ab' },
  ],
  by_type: [
    { strategy: 'source', types: { delete_origin_differs: 'target', update_missing: 'target' } },
    { 1: 'a', 3: 'b', 10: 'a' },
  ],
};

test('the row that stands is the one that the rule says, on both sides', async () => {
  const names = Object.keys(CASES);
  const schema = names.map((t) => `create table ${t} (id int primary key, v text, version int);`).join('');
  const both = `create function public.both(a by_function, b by_function, meta jsonb) returns by_function language sql as $$
    select case when a is null then b when b is null then a
                else (a.id, a.v || b.v, greatest(a.version, b.version))::by_function end $$;`;
  const fill = names.map((t) => `insert into ${t} select i, 'old', 0 from generate_series(1, 6) i;`).join('');
  const tables = Object.fromEntries(names.map((t) => [`public.${t}`, CASES[t]?.[0]]));
  await nodes.inStep(schema + both, fill, { default: 'hold', tables: { 'public.*': 'hold', ...tables } });
  await clash(names);
  for (const t of names) expect(await rows(t), t).toEqual(CASES[t]?.[1]);
});

test('each conflict is written down where it was decided, with both rows', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'newest' });
  await clash();
  const records = await nodes.conflicts();
  const told = (one: Conflict) => [one.sync, one.type, one.key, one.winner, one.local_row, one.incoming_row];
  expect(records.map(told)).toEqual(
    expect.arrayContaining([
      ['pair.back', 'update_origin_differs', ['1'], 'incoming', ['1', 'a', '7'], ['1', 'b', '5']],
      ['pair.back', 'delete_origin_differs', ['2'], 'incoming', ['2', 'a', '7'], null],
      ['pair.back', 'update_missing', ['3'], 'incoming', null, ['3', 'b', '5']],
      ['pair.back', 'insert_exists', ['10'], 'incoming', ['10', 'a', '1'], ['10', 'b', '2']],
      ['pair', 'update_origin_differs', ['1'], 'local', ['1', 'b', '5'], ['1', 'a', '7']],
    ]),
  );
  for (const one of records) {
    expect(one).toMatchObject({
      table_name: 't',
      columns: ['id', 'v', 'version'],
      strategy: 'newest',
      state: 'resolved',
    });
    expect(one.local_at).toBeInstanceOf(Date);
    expect(one.incoming_at).toBeInstanceOf(Date);
  }
});

test('the same change on both sides is no conflict', async () => {
  await nodes.inStep(SCHEMA, ROWS);
  await nodes.apart(() => nodes.onBoth(`update t set v = 'same' where id = 1; delete from t where id = 2`));
  await nodes.equal();
  expect(await nodes.conflicts()).toEqual([]);
});

test('the sides end equal also where each has decided about rows that the other has given up', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: { strategy: 'column', column: 'version' } });
  const { a, b } = nodes;
  const write = (node: typeof a, v: string, version: number) =>
    node.query(`update t set v = '${v}', version = ${version} where id = 1`);
  const bHasDecided = (conflicts: number) =>
    waitFor(async () => (await b.query('select from ibex.conflict')).rowCount === conflicts, {
      what: `conflict ${conflicts} of b`,
    });
  // A row of b has been read and is not applied; meanwhile two of a come to b, of which the first wins and the second does not.
  await a.query(`begin; select from ibex.checkpoint where sync = 'pair.back' for update`);
  const writer = new pg.Client({ connectionString: nodes.databases.sourceUrl });
  await writer.connect();
  try {
    await write(b, 'b', 3);
    await waitFor(
      async () => (await a.query(`select from pg_locks where not granted and locktype <> 'tuple'`)).rowCount,
      { what: 'the row of b to wait' },
    );
    await write(writer, 'first of a', 5);
    await bHasDecided(1);
    await write(writer, 'second of a', 1);
    await bHasDecided(2);
  } finally {
    await writer.end();
    await a.query('rollback');
  }
  await nodes.equal();
  expect(await rows()).toEqual({ 1: 'first of a' });
});

test('values are left out where that is wanted', async () => {
  await nodes.inStep(SCHEMA, ROWS, {}, { conflictValues: 'false' });
  await clash();
  const [one] = await nodes.conflicts();
  expect(one).toMatchObject({ local_row: null, incoming_row: null });
});

test('a TRUNCATE takes what the other side did not change meanwhile', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'newest' });
  await nodes.apart(async () => {
    await nodes.b.query(`update t set v = 'early' where id = 2`);
    await nodes.a.query('truncate t');
    await nodes.b.query(`update t set v = 'late' where id = 1`);
  });
  await nodes.equal();
  expect(await rows()).toEqual({ 1: 'late' });
});

test('a TRUNCATE that loses to many rows is one change in the account, and the lane goes on', async () => {
  await nodes.inStep(SCHEMA, ROWS, { default: 'newest' });
  await nodes.apart(async () => {
    await nodes.a.query('truncate t');
    await nodes.b.query(`update t set v = 'late'`);
  });
  await nodes.equal();
  expect(Object.keys(await rows())).toHaveLength(6);
  await nodes.a.query(`insert into t values (20, 'after', 0)`);
  await nodes.equal();
  const accounts = (await nodes.status()).flatMap(({ tables }) => tables);
  expect(accounts.filter(({ applied }) => applied < 0)).toEqual([]);
});

test('10,000 conflicts of one batch are decided together', async () => {
  await nodes.inStep(
    'create table t (id int primary key, v text)',
    `insert into t select i, 'old' from generate_series(1, 10000) i`,
  );
  await nodes.apart(async () => {
    await nodes.a.query(`update t set v = 'a'`);
    await nodes.b.query(`update t set v = 'b'`);
  });
  await nodes.equal();
  const { rows } = await nodes.a.query('select v, count(*)::int as n from t group by 1');
  expect(rows).toEqual([{ v: 'b', n: 10_000 }]);
  const batches = new Set((await nodes.conflicts()).map(({ sync, batch }) => `${sync} ${batch}`));
  expect(batches.size).toBeLessThanOrEqual(4);
});
