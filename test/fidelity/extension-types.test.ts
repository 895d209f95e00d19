/** Types of extensions, which may live in different schemas. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

const EXTENSIONS = ['citext', 'cube', 'hstore', 'isn', 'ltree'];

/** Columns with the schema of the extension before each type. */
const columns = (schema: string) =>
  `h ${schema}.hstore, c ${schema}.citext, ca ${schema}.citext[], l ${schema}.ltree, q ${schema}.lquery, lt ${schema}.ltxtquery,
   cu ${schema}.cube, i ${schema}.isbn, e ${schema}.ean13, ia ${schema}.isbn[], d own_hstore, p pair`;
const types = (schema: string) =>
  `create domain own_hstore as ${schema}.hstore; create type pair as (c ${schema}.citext, u ${schema}.cube, h ${schema}.hstore)`;

const ROWS = [
  `'a=>1, "b \\"c\\""=>NULL, ""=>"NULL", é=>"=>,"', 'MiXed É', '{A,a,NULL,"x,y"}', 'Top.Science.Äé_1', '*.a|b@*{1,2}', 'a & !b*@',
   '(0.1,-0),(1e-300,3.3333333333333335)', '978-0-11-000222-4', '9780110002224!', '{978-0-11-000222-4,NULL}',
   'k=>v', row('X', '(0.30000000000000004)', 'a=>"b"')`,
  `'', '', '{}', '', '*', 'a', '(1)', null, null, '{}', null, row(null, null, null)`,
];

test('hstore, citext, ltree, cube and isn, each in another schema over there', async () => {
  const { databases } = pair;
  await databases.targetAdmin.query('create schema contrib; grant usage on schema contrib to public');
  for (const extension of EXTENSIONS) {
    await databases.sourceAdmin.query(`create extension ${extension} schema public`);
    await databases.targetAdmin.query(`create extension ${extension} schema contrib`);
  }
  await pair.source.query(`${types('public')}; create table keyed (id int primary key, ${columns('public')});
                           create table keyless (${columns('public')})`);
  await pair.target.query(`${types('contrib')}; create table keyed (id bigint primary key, ${columns('contrib')});
                           create table keyless (${columns('contrib')})`);
  for (const [id, row] of ROWS.entries())
    await pair.source.query(
      `insert into keyed values (${id}, ${row}); insert into keyless values (${row}), (${row})`,
    );
  pair.start();
  await pair.equal();
  // The text of a cube has as many digits as the session that writes it wants.
  await pair.source.query('set extra_float_digits = -10');
  for (const [id, row] of ROWS.entries())
    await pair.source.query(
      `insert into keyed values (${id + 10}, ${row}); insert into keyless values (${row})`,
    );
  await pair.source.query(`update keyed set c = upper(c), h = h || 'z=>"1.0"', cu = public.cube(0.1 + 0.2)`);
  await pair.source.query(
    `update keyless set c = 'mixed é' where c = 'MIXED É'; update keyless set cu = public.cube(0.1 + 0.2)`,
  );
  await pair.equal();
  await pair.source.query('delete from keyless where i is null; delete from keyed where id < 10');
  await pair.equal();
  expect((await pair.target.query('select from keyless')).rowCount).toBe(3);
});

test('a cast to text that is a function is not taken for the value', async () => {
  // A cast that an application made: enums become upper case wherever they are made text.
  const shouting = `
    create type mood as enum ('sad', 'ok');
    create function shout(mood) returns text immutable strict language sql as $$ select upper(textin(enum_out($1))) $$;
    create cast (mood as text) with function shout(mood)`;
  await pair.source.query(
    `${shouting}; create table felt (id int primary key, m mood); create table keyless (m mood)`,
  );
  await pair.target.query(
    `${shouting}; create table felt (id int primary key, m mood); create table keyless (m mood)`,
  );
  await pair.source.query(`insert into felt values (1, 'sad')`);
  pair.start({ tables: ['public.felt'] });
  await pair.equal();
  await pair.source.query(`insert into felt values (2, 'ok'); update felt set m = 'ok' where id = 1`);
  await pair.equal();
  await pair.sync.stop();
  pair.start();
  const why = async () => (await pair.sync.status()).why.join();
  await expect.poll(why).toContain('public.keyless: column m identifies rows');
});
