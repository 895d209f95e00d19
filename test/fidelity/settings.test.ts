/** Servers, databases and roles that are set up differently on each side. */
import { expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** What changes how values read and print, what a session may see and do, and how long it may take for that. */
const SETTINGS: Readonly<Record<string, readonly [here: string, there: string]>> = {
  DateStyle: ['SQL, DMY', 'German, YMD'],
  IntervalStyle: ['sql_standard', 'iso_8601'],
  TimeZone: ['Asia/Kathmandu', 'America/St_Johns'],
  lc_monetary: ['C.utf8', 'C'],
  extra_float_digits: ['-15', '0'],
  standard_conforming_strings: ['off', 'on'],
  bytea_output: ['escape', 'hex'],
  xmloption: ['document', 'content'],
  array_nulls: ['on', 'off'],
  quote_all_identifiers: ['on', 'off'],
  transform_null_equals: ['on', 'on'],
  client_encoding: ['LATIN1', 'WIN1252'],
  search_path: ['nowhere', 'public, pg_catalog'],
  row_security: ['on', 'on'],
  default_transaction_read_only: ['on', 'on'],
  default_transaction_isolation: ['serializable', 'repeatable read'],
  default_transaction_deferrable: ['on', 'on'],
  synchronous_commit: ['off', 'off'],
  lock_timeout: ['1ms', '1ms'],
  statement_timeout: ['4s', '4s'],
  idle_in_transaction_session_timeout: ['10ms', '10ms'],
  idle_session_timeout: ['100ms', '100ms'],
  default_toast_compression: ['pglz', 'pglz'],
  backslash_quote: ['on', 'off'],
};

/** The role's settings on one side, the database's on the other: either is what a new session starts with. */
async function setUpDifferently(): Promise<void> {
  const { databases } = pair;
  const { rows } = await pair.source.query('select current_user as role, current_database() as database');
  for (const [name, [here, there]] of Object.entries(SETTINGS)) {
    const value = (text: string) => (name === 'search_path' ? text : `'${text}'`);
    await databases.sourceAdmin.query(`alter role ${rows[0].role} set ${name} = ${value(here)}`);
    await databases.targetAdmin.query(`alter database ${rows[0].database} set ${name} = ${value(there)}`);
  }
}

const COLUMNS = `d date, t timestamptz, i interval, f float8, m money, b bytea, x xml, a text[], c pair, r daterange,
                 s text, o regclass, k "char"`;
const ROW = `'2024-02-03', '2024-02-03 04:05:06.789+00', '1 year -2 mons 3 days -04:05:06', 0.1::float8 + 0.2::float8, 12.34,
             '\\x00ff5c', 'no <b>document</b>', '{NULL,"NULL",null}', row('2024-02-03', 0.1::float8 + 0.2::float8, '\\x5c', 1.5, '-1 days 2 hours'),
             '[2024-02-03,2024-05-06)', E'back\\\\slash ''quoted'' é', 'keyed', 'x'`;

test('rows are the same whatever servers, databases and roles have for settings', async () => {
  await onBoth(
    pair.databases,
    `create type pair as (d date, f float8, b bytea, m money, i interval);
     create table keyed (id int primary key, ${COLUMNS}); create table keyless (${COLUMNS});
     create table moments (at timestamptz, i interval, primary key (at, i))`,
  );
  const rows = (id: number) =>
    `insert into keyed values (${id}, ${ROW}); insert into keyless values (${ROW});
     insert into moments select '2024-02-03 04:05:06+00'::timestamptz + ${id} * interval '1 day 1 h', make_interval(months => ${id})`;
  await pair.source.query(rows(1));
  await setUpDifferently();
  pair.start();
  await pair.equal();
  await pair.source.query(rows(2));
  await pair.source.query(`update keyed set f = f / 3, c.f = 1.0::float8 / 3, c.d = '2024-12-11', d = '2024-10-11' where id = 1;
                           update moments set i = i + '1 mon'; update keyless set c.d = '2023-02-01' where d = '2024-02-03'`);
  await pair.equal();
  await pair.source.query(
    'delete from keyless where ctid = (select min(ctid) from keyless); delete from moments',
  );
  await pair.equal();
});

test('a session of ours has its own settings, whatever it would have started with', async () => {
  const before = await settingsOf(pair.databases.sourceUrl);
  await setUpDifferently();
  expect(await settingsOf(pair.databases.sourceUrl)).toEqual(before);
  expect(await settingsOf(pair.databases.targetUrl)).toEqual(before);
});

async function settingsOf(url: string): Promise<Record<string, string>> {
  await using session = await Session.open({ url, name: 'test' });
  // What has no effect on values may differ: how a table stores them, and what only the parser of strings asks.
  const ours = Object.keys(SETTINGS).filter(
    (name) => !['default_toast_compression', 'backslash_quote'].includes(name),
  );
  const rows = await session.rows<{ name: string; setting: string }>(
    'select name, setting from pg_settings where lower(name) = any (select lower(n) from unnest($1::text[]) n)',
    [ours],
  );
  expect(rows.length).toBe(ours.length);
  return Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
}
