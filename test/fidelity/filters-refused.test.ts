/** Choices that cannot be carried exactly: refused by name, with what the server says and what to do, before anything. */
import { describe, expect, test } from 'vitest';
import { readTables } from '../../src/postgres/catalog.ts';
import { Session } from '../../src/postgres/session.ts';
import { findObstacles, type Obstacle } from '../../src/setup/tables.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { type CarryEntry, onBoth, startSync } from '../support/sync.ts';

const servers = await useServers();

describe('refused', () => {
  const pair = usePair(servers);

  async function obstacles(entries: readonly CarryEntry[]): Promise<(Obstacle['error'] | undefined)[]> {
    await using source = await Session.open({ url: pair.databases.sourceUrl, name: 'test' });
    await using target = await Session.open({ url: pair.databases.targetUrl, name: 'test' });
    const tables = await readTables(source, [{ schema: 'public', name: 't' }]);
    const found: (Obstacle['error'] | undefined)[] = [];
    for (const { columns = null, select = {}, where = null } of entries) {
      const rule = {
        schema: 'public',
        name: 't',
        columns,
        select: Object.entries(select).map(([column, expression]) => ({ column, expression })),
        where,
        place: 'ibex.yaml line 9, syncs[0].carry.public.t',
      };
      const [obstacle] = await findObstacles({ source, target, replica: true, carry: [rule] }, tables);
      found.push(obstacle?.error);
    }
    // What was tried has left nothing behind.
    const { rows } = await pair.databases.sourceAdmin.query(
      `select relname from pg_class where relname ~ '^ibex_' or relname = 'gone'`,
    );
    expect(rows).toEqual([]);
    return found;
  }

  const T = `create table t (id int primary key, a int, b text, at timestamptz, flag bool)`;

  test('expressions that are not one expression over the row alone', async () => {
    await onBoth(
      pair.databases,
      `${T}; create function public.f(int) returns int immutable language sql as 'select $1'`,
    );
    await pair.source.query(
      `create function public.v(int) returns int volatile language plpgsql as 'begin return $1; end'`,
    );
    const wrong: [expression: string, complaint: RegExp][] = [
      ['a) , (b', /syntax error/],
      ['a, a', /syntax error/],
      ['a = 1; drop table t', /cannot insert multiple commands|syntax error/],
      ['a = 1); drop table t; select (true', /syntax error|multiple commands/],
      ['a end, case when true then a', /syntax error/],
      ['a end from t; create table gone (); select case when true then a', /syntax error|multiple commands/],
      ['a = 1 else a = 2', /syntax error/],
      ['select 1', /syntax error/],
      ['(select true)', /subquer/],
      ['exists (select from public.t)', /subquer/],
      ['a = any (array(select 1))', /subquer/],
      ['at < now()', /IMMUTABLE/],
      ['random() < 0.5', /IMMUTABLE/],
      ['public.v(a) = 1', /IMMUTABLE/],
      ["at::date = date '2020-01-01'", /IMMUTABLE/],
      ['current_user = b', /IMMUTABLE/],
      ["current_setting('a.b') = b", /IMMUTABLE/],
      ['count(*) > 0', /aggregate/],
      ['row_number() over () = 1', /window/],
      ['generate_series(1, a) = 1', /set-returning/],
      ['a = $1', /parameter|boolean/],
      ["b = 'x", /unterminated|syntax/],
      ['b = $$x', /unterminated|syntax/],
      ['a = 1 /* x', /unterminated|syntax/],
      ['"a', /unterminated|syntax/],
      ['nothing = 1', /column "nothing" does not exist/],
      ['f(a) = 1', /function f\(integer\) does not exist/],
      ['other.a = 1', /missing FROM-clause/],
      ['ctid is not null', /system column/],
      ['xmin is not null', /system column/],
      ['default', /syntax error|DEFAULT/],
      ['*', /syntax error|row expansion/],
    ];
    const asWhere = await obstacles(wrong.map(([where]) => ({ where })));
    const asSelect = await obstacles(wrong.map(([expression]) => ({ select: { b: expression } })));
    for (const [i, [expression, complaint]] of wrong.entries()) {
      for (const [part, error] of [
        ['where', asWhere[i]],
        ['select of b', asSelect[i]],
      ] as const) {
        expect(error?.message, `${part} ${expression}`).toMatch(complaint);
        expect(error?.message).toContain(`public.t: ${part}, ${expression}: `);
        expect(error).toMatchObject({ kind: 'config', table: 'public.t' });
        expect(error?.hint).toMatch(/ibex\.yaml line 9.*IMMUTABLE.*with its schema, such as public\.f\(a\)/);
      }
    }
    expect((await obstacles([{ where: 'a + 1' }]))[0]?.message).toMatch(/must be type boolean/);
    expect((await obstacles([{ select: { b: '(a, b)' } }]))[0]?.message).toMatch(/record/);
    const right = [
      'a = 1 -- x',
      'a = 1 /* ; */',
      "b = '); drop table t; --'",
      'public.f(a) = 1',
      'flag',
      'null',
      'a = 1\n  or flag',
      'a operator(pg_catalog.=) 1',
      'case when flag then true end',
      "(a, b) = (1, 'x')",
    ];
    expect(await obstacles(right.map((where) => ({ where })))).toEqual(right.map(() => undefined));
  });

  test('columns that are not there, or have no place', async () => {
    await pair.source.query(T);
    await pair.target.query(
      `create table t (id int primary key, a int, b text, needed int not null, filled int not null default 1,
                       made int generated always as (a + 1) stored)`,
    );
    const errors = await obstacles([
      { columns: ['id', 'c'] },
      { columns: ['id', 'a'], select: { needed: 'a', nowhere: 'a' } },
      { columns: ['id', 'a'] },
      { columns: ['id', 'a'], select: { needed: 'a' } },
      { columns: ['id', 'a'], select: { needed: 'a', made: 'a' } },
    ]);
    expect(errors.map((error) => error?.message)).toEqual([
      'public.t: it has no column c',
      'public.t lacks on the target: column nowhere',
      expect.stringMatching(/column needed of public\.t on the target must not be null, has no default/),
      undefined,
      expect.stringMatching(/column made of public\.t is generated on the target, and an expression/),
    ]);
  });

  test('keys that would not travel, and tables without one; the others go on', async () => {
    await onBoth(
      pair.databases,
      `create table part (a int, b int, v text, primary key (b, a)); create table made (id int primary key, v text);
       create table keyless (v text); create table keyless_rows (v text); create table fine (id int primary key, v text)`,
    );
    pair.start({
      carry: {
        'public.part': { columns: ['a', 'v'] },
        'public.made': { select: { id: 'id + 1' } },
        'public.keyless': { columns: ['v'] },
        'public.keyless_rows': { where: `v = 'x'` },
        'public.fine': { where: 'id > 1' },
      },
    });
    await pair.source.query(
      `insert into fine values (1, 'a'), (2, 'b'); insert into part values (1, 1); insert into made values (1); insert into keyless_rows values ('x')`,
    );
    await waitFor(async () => (await pair.target.query('select from fine')).rowCount === 1, {
      what: 'the others',
    });
    const reasons = async () =>
      (await pair.sync.status()).tables.flatMap(({ reason }) => (reason === null ? [] : [reason]));
    await waitFor(async () => (await reasons()).length === 4, { what: 'the reasons of all others' });
    expect((await reasons()).sort()).toEqual([
      expect.stringMatching(/^public\.keyless: it has no key/),
      expect.stringMatching(/^public\.keyless_rows: it has no key/),
      'public.made: its key column id cannot be an expression',
      'public.part: its key column b cannot be left out',
    ]);
  });

  test('a choice for a table that the sync does not have ends it', async () => {
    await onBoth(pair.databases, T);
    const sync = startSync(pair.databases, { carry: { 'public.T': { where: 'a = 1' } } });
    await expect(sync.stopped).rejects.toMatchObject({
      kind: 'config',
      message: expect.stringMatching(
        /^ibex\.yaml line \d+, syncs\[0\]\.carry\.public\.T: public\.T is not a table of this sync$/,
      ),
    });
  });
});
