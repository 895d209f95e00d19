/** Several statements in one go: each gets its own answer, and after one that fails nothing behind it happens. */
import { expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { type Databases, freshDatabases, useServers } from '../support/servers.ts';

const servers = await useServers();

async function withSession(work: (session: Session, databases: Databases) => Promise<void>): Promise<void> {
  const databases = await freshDatabases(servers);
  await databases.target.query('create table t (id int primary key, pad text)');
  const session = await Session.open({ url: databases.targetUrl, name: 'test' });
  try {
    await work(session, databases);
    // Whatever happened, the session is between two statements.
    expect(await session.rows('select 1 as alive')).toEqual([{ alive: 1 }]);
  } finally {
    await session.close();
    await databases.dropAll();
  }
}

const count = async ({ target }: Databases) => (await target.query('select count(*)::int from t')).rows[0];

test('each statement gets its answer, with values, without, and prepared', () =>
  withSession(async (session) => {
    const twice = { text: 'select $1::int + 1 as more', values: [1], prepared: true };
    const answers = await session.together([
      twice,
      { text: `insert into public.t values (1, 'a'), (2, 'b')` },
      { text: 'select id from public.t order by id' },
      { ...twice, values: [2] },
    ]);
    expect(answers.map(({ rows, rowCount }) => [rows, rowCount])).toEqual([
      [[{ more: 2 }], 1],
      [[], 2],
      [[{ id: 1 }, { id: 2 }], 2],
      [[{ more: 3 }], 1],
    ]);
    const known = await session.rows('select statement from pg_prepared_statements');
    expect(known).toEqual([{ statement: twice.text }]);
  }));

test('after a statement that fails nothing happens, and its table is named', () =>
  withSession(async (session, databases) => {
    const next = { text: 'insert into public.t values ($1::int)', values: [7], prepared: true };
    const failing = session.together([
      { text: 'insert into public.t values (5)' },
      { text: 'insert into public.t values (5)', table: 'public.t' },
      next,
    ]);
    await expect(failing).rejects.toMatchObject({ kind: 'constraint', table: 'public.t' });
    // None of them was in a transaction of its own.
    expect(await count(databases)).toEqual({ count: 0 });
    await session.together([next]);
    expect(await count(databases)).toEqual({ count: 1 });
  }));

test('prepared statements that were not used for long are let go', () =>
  withSession(async (session) => {
    for (let i = 0; i < 10; i++) {
      await session.prepared(`select $1::int as n${'-'.repeat(2)} ${'x'.repeat(250_000)} ${i}`, [i]);
    }
    const known = await session.row<{ n: number }>('select count(*)::int as n from pg_prepared_statements');
    expect(known.n).toBeLessThan(6);
    expect(known.n).toBeGreaterThan(1);
  }));

test('COPYs with all that they are to be given, and what follows them; a row in the way names its table', () =>
  withSession(async (session, databases) => {
    const load = (ids: readonly number[]) => ({
      statement: 'copy public.t from stdin',
      parts: ids.map((id) => Buffer.from(`${id}\tx\n`)),
      table: 'public.t',
    });
    const answers = await session.load([load([1, 2]), load([3])], ['select max(id) from public.t']);
    expect(answers.map(({ rows, rowCount }) => rows[0] ?? rowCount)).toEqual([2, 1, { max: 3 }]);
    const refused = session.load([load([4]), load([5, 1, 6]), load([7])], ['select 1']);
    await expect(refused).rejects.toMatchObject({ kind: 'constraint', table: 'public.t' });
    expect(await count(databases)).toEqual({ count: 3 });
  }));

test('COPYs out give each its own bytes, in order, however slowly they are taken', () =>
  withSession(async (session) => {
    const many = `copy (select i, repeat('x', 100) from generate_series(1, 50000) i) to stdout`;
    const seen = ['', '', ''];
    const statements = [
      `copy (select 'first') to stdout`,
      many,
      `copy (select 'last' where false) to stdout`,
    ];
    for await (const { place, bytes } of session.copyOutTogether(statements)) {
      seen[place] += bytes.toString();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(seen[0]).toBe('first\n');
    expect(seen[1]).toBe(Array.from({ length: 50_000 }, (_, i) => `${i + 1}\t${'x'.repeat(100)}\n`).join(''));
    expect(seen[2]).toBe('');
    const failing = session.copyOutTogether([many, 'copy (select 1 / 0) to stdout', many]);
    const all = async () => {
      for await (const _ of failing);
    };
    await expect(all()).rejects.toMatchObject({ place: 1 });
  }));
