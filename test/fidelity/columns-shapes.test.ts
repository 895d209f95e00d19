/** Columns of unusual names, numbers and kinds, and targets whose columns stand against a table. */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { ident } from '../../src/postgres/quote.ts';
import { ibex } from '../support/ibex.ts';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

async function serverVersion(client: pg.Client): Promise<number> {
  const { rows } = await client.query(`select current_setting('server_version_num')::int as version`);
  return rows[0].version;
}

describe.each(MODES)('$mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  test('columns named by every keyword of SQL, by names that Ibex uses, and by quotes, blanks and other letters', async () => {
    const { rows } = await pair.source.query(
      'select word, quote_ident(word) as quoted from pg_get_keywords() order by word',
    );
    // This server's grammar knows no keyword that Ibex would leave unquoted.
    expect(rows.filter((row) => row.quoted !== row.word && ident(row.word) === row.word)).toEqual([]);
    const ours = [
      'n',
      't',
      's',
      'k',
      'd',
      'k1',
      'k2',
      'c1',
      'c2',
      'op',
      'at',
      'xid',
      'origin',
      'relation',
      'present',
      'new',
      'old',
      'o',
      'h',
      'r',
      'g',
      'tg_op',
      'excluded',
      'f',
    ];
    const odd = [
      '',
      ' ',
      'A',
      'a b',
      'a"b',
      `a'b`,
      'a\\b',
      'a.b',
      '$1',
      '%s',
      '%I',
      'ä€𝄞',
      '1',
      'ü'.repeat(31),
      '-- x',
      '/*',
      ';',
    ];
    const names = [...new Set([...rows.map((row) => row.word as string), ...ours, ...odd])].filter(
      (name) => name !== '',
    );
    const quoted = names.map((name) => `"${name.replaceAll('"', '""')}"`);
    const definition = quoted.map((name) => `${name} text`).join(', ');
    const [first, second, ...others] = quoted;
    const tables = ['keyed', 'by_names', 'keyless'];
    await pair.source.query(
      `create table keyed (${definition}, primary key (${first}, "a""b", "k2"));
       create table by_names (${definition}, u int unique, primary key ("select", "n", "k1", "t", "excluded"));
       create table keyless (${definition})`,
    );
    // The other way round there.
    const reversed = quoted
      .toReversed()
      .map((name) => `${name} text`)
      .join(', ');
    await pair.target.query(
      `create table keyed (${reversed}, primary key (${first}, "a""b", "k2"));
       create table by_names (${reversed}, u int unique, primary key ("select", "n", "k1", "t", "excluded"), extra int default 1);
       create table keyless (${reversed})`,
    );
    await pair.target.query('alter table by_names drop extra');
    const values = (i: string) => quoted.map((_, n) => `'${n} ' || ${i}`).join(', ');
    for (const table of tables) {
      await pair.source.query(
        `insert into ${table} (${quoted}) select ${values('i')} from generate_series(1, 20) i`,
      );
    }
    await pair.source.query(
      'with r as (select ctid, row_number() over () as i from by_names) update by_names b set u = i from r where r.ctid = b.ctid',
    );
    pair.start();
    await pair.equal();
    for (const table of tables) {
      await pair.source.query(
        `update ${table} set ${others.map((name) => `${name} = ${name} || '!'`).join(', ')} where ${second} like '% 1_';
         update ${table} set "a""b" = 'key', "select" = 'key' where "k1" like '% 5';
         delete from ${table} where "n" like '% 7'; insert into ${table} (${quoted}) select ${values(`'new'`)}`,
      );
    }
    await pair.equal();
  });

  test('a generated column in the key of a partitioned table', async () => {
    await onBoth(
      pair.databases,
      `create table pt (a int, b text, k text generated always as (lower(b)) stored not null, v int, primary key (a, k)) partition by range (a);
       create table pt_a partition of pt for values from (0) to (100);
       create table pt_b partition of pt for values from (100) to (200)`,
    );
    await pair.source.query(`insert into pt (a, b, v) select i, 'B' || i, i from generate_series(1, 199) i`);
    pair.start();
    await pair.equal();
    await pair.source.query(
      `update pt set b = 'C' || a where a % 3 = 0; update pt set a = 199 - a where a % 10 = 1 and v < 90; delete from pt where a = 7`,
    );
    if ((await serverVersion(pair.source)) >= 150000) {
      await pair.source.query(
        `merge into pt using (values (12), (24), (37)) s(a) on pt.a = s.a when matched then update set b = 'M' || pt.a, a = pt.a + 100`,
      );
    }
    await pair.equal();
  });
});

describe('columns', () => {
  const pair = usePair(servers);

  /** Waits until status gives each of these reasons. */
  async function told(...reasons: RegExp[]): Promise<void> {
    for (const reason of reasons)
      await waitFor(async () => reason.test((await pair.sync.status()).why.join('\n')), {
        what: `${reason}`,
      });
  }

  test('1,598 columns are carried; more are refused by name, and the others go on', async () => {
    const columns = (n: number) =>
      Array.from({ length: n - 1 }, (_, i) => `c${i} int default ${i}`).join(', ');
    await onBoth(
      pair.databases,
      `create table most (id int primary key, ${columns(1598)}); create table more (id int primary key, ${columns(1600)});
       create table keyless (id int, ${columns(1200)}); create table fine (id int primary key)`,
    );
    await pair.source.query(
      'insert into most (id) select generate_series(1, 30); insert into more values (1); insert into keyless values (1)',
    );
    pair.start();
    await pair.source.query(
      `insert into fine values (1); update most set c0 = -1, c1596 = null where id < 10; insert into keyless values (2)`,
    );
    await pair.becomesEqual(['public.most', 'public.fine']);
    await told(
      /public\.more has 1600 columns to carry, and 1598 can be/,
      /public\.keyless cannot be carried: it has no key, and so many columns/,
    );
    await pair.source.query('update keyless set c0 = 1; update most set id = id + 100 where id % 2 = 0');
    await pair.becomesEqual(['public.most', 'public.fine']);
  });

  test('columns of the target that would stay empty, and keys it generates otherwise, are named before anything; the others go on', async () => {
    await pair.source.query(
      `create domain public.code as text; create table needs (id int primary key); create table needs_domain (id int primary key);
       create table other_key (a int, k int generated always as (a + 1) stored primary key);
       create table plain_key (a int, k int primary key); create table fine (id int primary key)`,
    );
    await pair.target.query(
      `create domain public.code as text not null; create table needs (id int primary key, must int not null);
       create table needs_domain (id int primary key, must public.code);
       create table other_key (a int, k int generated always as (a + 2) stored primary key);
       create table plain_key (a int, k int generated always as (a + 1) stored primary key);
       create table fine (id int primary key, may int, filled int not null default 1, self int generated always as identity)`,
    );
    const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
    const setup = await ibex(['setup'], { env });
    expect(setup.code).toBe(3);
    expect(setup.stderr).toMatch(
      /column must of public\.needs on the target must not be null, has no default/,
    );
    expect(setup.stderr).toMatch(/column must of public\.needs_domain on the target must not be null/);
    expect(setup.stderr).toMatch(/alter table "public"."needs" alter column "must" drop not null;/);
    pair.start();
    await pair.source.query('insert into fine values (1)');
    await waitFor(async () => (await pair.target.query('select from fine')).rowCount === 1, {
      what: 'the others',
    });
    await told(
      /column must of public\.needs on/,
      /column must of public\.needs_domain on/,
      /column k of public\.other_key is part of the key, generated as \(a \+ 1\) on the source and generated as \(a \+ 2\)/,
      /column k of public\.plain_key is part of the key, not generated on the source and generated as/,
    );
  });

  test('virtual generated columns, and another formula for one that is carried as a value', async (context) => {
    if ((await serverVersion(pair.source)) < 180000) return context.skip();
    await pair.source.query(
      `create table v (id int primary key, a int, double int generated always as (a * 2) virtual, both_ text generated always as ('s' || id) virtual)`,
    );
    await pair.target.query(
      `create table v (id int primary key, a int, double int, both_ text generated always as ('t' || id) virtual)`,
    );
    await pair.source.query('insert into v (id, a) select i, i from generate_series(1, 20) i');
    pair.start();
    const same = async () => {
      await pair.sync.caughtUp();
      const { rows } = await pair.source.query('select id, a, double from v order by id');
      expect((await pair.target.query('select id, a, double from v order by id')).rows).toEqual(rows);
    };
    await same();
    await pair.source.query(
      'update v set a = a + 1; insert into v (id, a) values (100, 1); delete from v where id = 3',
    );
    await same();
    const lines = () => pair.target.query('select max(double) as most from v');
    await pair.source.query('alter table v alter double set expression as (a * 1000)');
    await waitFor(async () => (await lines()).rows[0].most === 21_000, { what: 'the new formula' });
    await same();
    await pair.source.query('update v set a = 5 where id = 100');
    await same();
  });

  test('rights on single columns only, or none to read, are missing by name', async () => {
    await onBoth(
      pair.databases,
      'create table unreadable (id int primary key, v text); create table few (id int primary key, v text)',
    );
    const { rows } = await pair.source.query('select current_user as role');
    const role = rows[0].role as string;
    await pair.source.query(`revoke all on unreadable from ${role}`);
    await pair.databases.targetAdmin.query(
      `alter table few owner to current_user; grant select, insert (id), update (v), delete on few to ${role}`,
    );
    const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
    const setup = await ibex(['setup'], { env });
    expect(setup.code).toBe(3);
    expect(setup.stderr).toMatch(
      /the role may not read public\.unreadable\n {2}On the source: grant select on public\.unreadable to/,
    );
    expect(setup.stderr).toMatch(/the role may not read and write public\.few/);
  });
});
