/** Random transactions against filtered tables: after each pause the target holds what the choice says, and no more. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** Pauses, each after ten transactions. TEST_ROUNDS for a long run. */
const ROUNDS = Number(process.env.TEST_ROUNDS ?? 8);

async function read(client: pg.Client, query: string): Promise<string[]> {
  const { rows } = await client.query({ text: query, rowMode: 'array' });
  return rows.map((row) => row.join('|')).sort();
}

test('random transactions, with rows entering and leaving, keys changing, TRUNCATE and rollbacks', async () => {
  const random = randomFrom(seedOf('filters'));
  const below = (n: number) => Math.floor(random() * n);
  const tables = ['plain', 'parts'];
  await onBoth(
    pair.databases,
    `create table plain (id int primary key, v int, w text);
     create table parts (id int primary key, v int, w text) partition by range (id);
     create table parts_a partition of parts for values from (minvalue) to (100);
     create table parts_b partition of parts for values from (100) to (maxvalue)`,
  );
  for (const table of tables) {
    await pair.source.query(`insert into ${table} select i, i % 7, 'w' || i from generate_series(1, 200) i`);
  }
  pair.start({
    carry: {
      'public.plain': { where: 'v % 3 = 1', select: { w: `upper(w) || v` } },
      'public.parts': { where: `v > 2 and w is not null`, columns: ['id', 'v'] },
    },
  });
  const expected = {
    plain: 'select id, v, upper(w) || v from plain where v % 3 = 1',
    parts: 'select id, v, null from parts where v > 2 and w is not null',
  };
  const statement = (table: string) => {
    const some = `id between ${below(200)} and ${below(60) + 100}`;
    const choices = [
      () => `update ${table} set v = ${below(8)} where ${some}`,
      () => `update ${table} set v = v + 1 where ${some}`,
      () => `update ${table} set v = null where id % 11 = ${below(11)}`,
      () => `update ${table} set w = case when w is null then 'x' end where id % 5 = ${below(5)}`,
      () =>
        `update ${table} set id = id + ${1000 + below(10_000) * 1000} where id % 13 = ${below(13)} and id < 1000`,
      () => `update ${table} set id = -id where id % 17 = ${below(17)}`,
      () => `delete from ${table} where id % 19 = ${below(19)}`,
      () =>
        `insert into ${table} select ${below(300)} + i, ${below(8)}, 'n' from generate_series(1, 20) i
           on conflict (id) do update set v = excluded.v`,
      () => (below(4) > 0 ? 'select' : `truncate ${table === 'parts' && below(2) > 0 ? 'parts_b' : table}`),
    ];
    return (choices[below(choices.length)] as () => string)();
  };
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < 10; i++) {
      const statements = Array.from({ length: 1 + below(3) }, () => statement(tables[below(2)] as string));
      const end = below(6) === 0 ? 'rollback' : 'commit';
      await pair.source
        .query(`begin; ${statements.join('; ')}; ${end}`)
        .catch(async (error: { code?: string }) => {
          // Keys that met, or grew out of their type: what chance does to them.
          if (error.code !== '23505' && error.code !== '22003') throw error;
          await pair.source.query('rollback');
        });
    }
    await pair.sync.caughtUp();
    for (const [table, query] of Object.entries(expected)) {
      expect(await read(pair.target, `select * from ${table}`), table).toEqual(
        await read(pair.source, query),
      );
    }
  }
});

test('setup refuses a choice that the server refuses, names its line, and changes nothing', async () => {
  await onBoth(
    pair.databases,
    'create table t (id int primary key, at timestamptz); create table u (id int primary key)',
  );
  const cwd = mkdtempSync(join(tmpdir(), 'ibex-carry-'));
  const write = (where: string) =>
    writeFileSync(
      join(cwd, 'ibex.yaml'),
      [
        `nodes: {a: ${JSON.stringify(pair.databases.sourceUrl)}, b: ${JSON.stringify(pair.databases.targetUrl)}}`,
        'syncs:',
        '  - name: main',
        '    from: a',
        '    to: b',
        '    carry:',
        `      public.t: {where: ${JSON.stringify(where)}}`,
      ].join('\n'),
    );
  try {
    write('at < now()');
    const refused = await ibex(['setup'], { cwd });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(
      /error: public\.t: where, at < now\(\): .*must be marked IMMUTABLE\n {2}Correct ibex\.yaml line 7/,
    );
    for (const client of [pair.source, pair.target]) {
      expect(await read(client, `select nspname from pg_namespace where nspname = 'ibex'`)).toEqual([]);
    }
    // A call that names other tables has nothing to do with it.
    expect((await ibex(['setup', '--tables', 'public.u'], { cwd })).code).toBe(0);
    write('id > 1');
    const done = await ibex(['setup'], { cwd });
    expect([done.code, done.stdout]).toEqual([
      0,
      expect.stringMatching(/public\.t: armed, notes key \(id\)/),
    ]);
  } finally {
    rmSync(cwd, { recursive: true });
  }
});
