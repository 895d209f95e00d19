/**
 * Types that an application makes itself: other oids on the other side, other orders of labels, values whose text
 * depends on the settings of the session that writes them.
 */
import { test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const MOODS = {
  source: `create type mood as enum ('sad', 'ok', 'happy, "or" not', 'NULL', '')`,
  target: `create type other as enum ('x'); create type mood as enum ('', 'NULL', 'more', 'happy, "or" not', 'ok', 'sad')`,
};

const TYPES = `
  create domain positive as int check (value > 0);
  create domain very_positive as positive check (value > 10);
  create domain short as varchar(5);
  create domain tags as text[] check (cardinality(value) < 10);
  create domain moods as mood[];
  create type part as (n numeric(10,2), d date, i interval, f float8, m mood, b bytea, t text, z timestamptz, c regclass);
  create domain good_part as part check ((value).n > 0);
  create type whole as (one part, many part[], price money, at timestamptz, x xml, few moods);
  create type float_range as range (subtype = float8, subtype_diff = float8mi);
  create type name_range as range (subtype = text, collation = "C")`;

const COLUMNS = `m mood, ma mood[], p positive, v very_positive, s short, tg tags, ms moods, pa positive[], o part, g good_part,
                 w whole, wa whole[], fr float_range, fra float_range[], fm float_multirange, nr name_range`;

const PART = `row(1.50, '2024-02-01', '1 year -2 mons 3.000001 s', 0.1::float8 + 0.2::float8, 'sad', '\\x00ff5c', e'a"\\\\b,(\\n', '2024-02-03 04:05:06+01', 'keyed'::regclass)::part`;
const ROWS = [
  `'sad', '{sad,NULL,"NULL","","happy, \\"or\\" not"}', 7, 11, 'a   ', '{a,"b,c",NULL}', '[5:6]={sad,ok}', '{1,null,3}',
   ${PART}, ${PART}, row(${PART}, array[${PART}, null], 12.34, 'infinity', '<a/>', '{ok}')::whole,
   array[row(${PART}, null, null, null, null, null)::whole], '[0.1,1e300)', array['empty'::float_range, '(,-0]'],
   '{[0.1,0.2),[1e-300,5)}', '["a,b","é"]'`,
  `'', '{{sad,ok},{ok,sad}}', 2147483647, 12, '', '{}', '{}', '[-3:-2]={1,2}', row(null, null, null, null, null, null, null, null, null)::part,
   null, null, '{}', 'empty', '{}', '{}', '(,)'`,
  `'NULL', '{}', 1, null, null, null, null, null, row(0.1, '0044-03-15 BC', '-1 days', 'NaN', '', '', '', '-infinity', null)::part,
   null, row(null, '{}', -0.01, null, '', null)::whole, null, null, null, null, null`,
];

/** Everything that changes how such a value prints, as an application may have it. */
const HOSTILE = `
  set datestyle = 'SQL, DMY'; set intervalstyle = sql_standard; set timezone = 'Asia/Kathmandu';
  set extra_float_digits = -10; set bytea_output = escape; set quote_all_identifiers = on`;

/** Runs as the application with its settings, which the comparison afterwards must not have. */
async function asApplication(sql: string): Promise<void> {
  await pair.source.query(`${HOSTILE}; ${sql}; reset all`);
}

test('enums, domains, composites, ranges and arrays of them, whatever the settings of who writes them', async () => {
  await pair.source.query(MOODS.source);
  await pair.target.query(MOODS.target);
  await onBoth(
    pair.databases,
    `${TYPES}; create table keyed (id int primary key, ${COLUMNS}); create table keyless (id int, ${COLUMNS})`,
  );
  for (const [id, row] of ROWS.entries()) {
    await pair.source.query(
      `insert into keyed values (${id}, ${row}); insert into keyless values (${id}, ${row}), (${id}, ${row})`,
    );
  }
  pair.start();
  await pair.equal();
  for (const [id, row] of ROWS.entries()) {
    await asApplication(
      `insert into keyed values (${id + 10}, ${row}); insert into keyless values (${id + 10}, ${row})`,
    );
  }
  await pair.equal();
  for (const table of ['keyed', 'keyless']) {
    await asApplication(
      `update ${table} t set (m, o, w, fr) = (select m, o, w, fr from keyed k where k.id = (t.id + 1) % 10)`,
    );
    await asApplication(
      `update ${table} set ma = '{ok,sad}', o.f = 1.0::float8 / 3, o.z = '2024-12-11 10:09:08+00' where id < 10`,
    );
  }
  await pair.equal();
  await asApplication('delete from keyless where id >= 10; delete from keyed where id = 0');
  await pair.equal();
});

test('a label or a name that the target lacks holds its table by name, and the others go on', async () => {
  await pair.source.query(`create type mood as enum ('sad', 'ok')`);
  await pair.target.query(`create type mood as enum ('ok')`);
  await onBoth(
    pair.databases,
    `create table felt (id int primary key, m mood); create table named (id int primary key, t regtype);
     create table other (id int primary key)`,
  );
  await pair.source.query(`insert into felt values (1, 'ok')`);
  pair.start();
  await pair.equal();
  await pair.source.query(`insert into felt values (2, 'sad')`);
  await pair.source.query(`create type only_here as enum (); insert into named values (1, 'only_here')`);
  await pair.source.query('insert into other values (1)');
  await waitFor(async () => (await pair.target.query('select from other')).rowCount === 1, {
    what: 'the other table',
  });
  // Each at its time: a held table is free while it is tried again.
  for (const reason of [
    /public\.felt: .*invalid input value for enum public\.mood: "sad"/,
    /public\.named: .*type "public\.only_here" does not exist/,
  ])
    await waitFor(async () => reason.test((await pair.sync.status()).why.join()), { what: `${reason}` });
});

test('a domain whose CHECK asks another table is satisfied once that table is there', async () => {
  await onBoth(
    pair.databases,
    `create table zz_allowed (v text primary key);
     create function is_allowed(text) returns boolean stable language sql
       as 'select exists (select from public.zz_allowed a where a.v = $1)';
     create domain allowed as text check (is_allowed(value));
     create table uses (id int primary key, v allowed, a allowed[]);
     create table keyless (v allowed)`,
  );
  await pair.source.query(
    `insert into zz_allowed values ('x'), ('y');
     insert into uses values (1, 'x', '{x,y}'); insert into keyless values ('y'), ('x')`,
  );
  pair.start();
  await pair.becomesEqual();
  await pair.source.query(`insert into zz_allowed values ('z')`);
  await pair.equal();
  await pair.source.query(`insert into uses values (2, 'z', '{z}')`);
  await pair.source.query(`update uses set v = 'z'; delete from keyless where v = 'x'`);
  await pair.becomesEqual();
});

test('a CHECK that relies on its caller’s search_path is an error that names the table', async () => {
  await onBoth(
    pair.databases,
    `create table zz_allowed (v text primary key);
     create function is_allowed(text) returns boolean stable language plpgsql
       as 'begin return exists (select from zz_allowed a where a.v = $1); end';
     create domain allowed as text check (is_allowed(value));
     create table uses (id int primary key, v allowed)`,
  );
  await pair.source.query(`insert into zz_allowed values ('x'); insert into uses values (1, 'x')`);
  pair.start();
  const held = async () => (await pair.sync.status()).why.join();
  await waitFor(async () => /public\.uses: .*"zz_allowed" does not exist/.test(await held()), {
    what: 'the reason',
  });
});
