/**
 * Servers that are set up badly in every way: each fault is found, what setup refuses among them, and after the
 * statement that the finding gives it is found no more.
 */
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { errorsOf, examine, findingsOf, remedy } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);

const urls = () => ({
  IBEX_SOURCE_URL: pair.databases.sourceUrl,
  IBEX_TARGET_URL: pair.databases.targetUrl,
});

/** What setup says against it, one sentence each. */
async function refusals(...args: string[]): Promise<string[]> {
  const { code, said } = await ibex(['setup', ...args], { env: urls() });
  const errors = said
    .filter((line) => line.startsWith('error: '))
    .map((line) => line.slice('error: '.length));
  expect(code === 0).toBe(errors.length === 0);
  return errors;
}

test('tables: each fault is found, setup agrees, and what is said helps', async () => {
  await onBoth(
    pair.databases,
    `create table parent (id int primary key); create table child (id int primary key, parent int references parent);
     create table hidden (id int primary key); create table keyless (v text); create table nothing ();
     create table plain (id int primary key)`,
  );
  await pair.source.query(`create table lacking (id int primary key, v text not null);
    create table narrow (id int primary key, n bigint); create table "Short" (id int primary key, "A b" int);
    create table "Needs" (id int primary key); create sequence short_one; select setval('short_one', 40000);
    create sequence opposed; create sequence foreign_to_us; create table made (id int, g int primary key);
    alter table hidden enable row level security; alter table hidden force row level security`);
  await pair.target.query(`create table narrow (id int primary key, n int); create table "Short" (id int primary key);
    create table "Needs" (id int primary key, "Must" int not null); create sequence short_one as smallint;
    create sequence opposed increment -1; create sequence foreign_to_us;
    create table made (id int, g int primary key generated always as (id) stored);
    revoke truncate on plain from current_user;
    create function fired() returns trigger language plpgsql as 'begin return new; end';
    create trigger fires before insert on plain for each row execute function fired();
    create rule quiet as on delete to plain do instead nothing;
    alter table hidden enable row level security; alter table hidden force row level security`);
  await pair.databases.targetAdmin.query('alter sequence foreign_to_us owner to postgres');
  const exclude = ['public.parent', 'public.nothing', 'public.made'];
  const first = await examine(pair.databases, { exclude });
  expect(errorsOf(first).sort()).toEqual([
    expect.stringMatching(/^column Must of public\.Needs on the target must not be null/),
    expect.stringMatching(/^public\.Short lacks on the target: column A b/),
    expect.stringMatching(/^public\.narrow: .*column n is bigint on the source and integer/),
    expect.stringMatching(/^row level security hides rows of public\.hidden from role/),
    expect.stringMatching(/^row level security hides rows of public\.hidden from role/),
    expect.stringMatching(/^sequence public\.foreign_to_us would not be carried: the role may not set it/),
    expect.stringMatching(/^sequence public\.opposed would not be carried: it counts in the other/),
    'sequence public.short_one would not be carried: it stands at 40000, and that of the target ends at 32767',
    expect.stringMatching(/^table public\.lacking does not exist on the target/),
  ]);
  expect(findingsOf(first, 'no-key')).toHaveLength(1);
  expect(findingsOf(first, 'set-aside').map(({ what }) => what)).toEqual([
    'public.plain: rule quiet, trigger fires will be disabled as long as the sync lives',
  ]);
  const refused = await refusals(...exclude.flatMap((name) => ['--exclude', name]));
  expect(refused).toHaveLength(4);
  for (const message of refused) expect(errorsOf(first)).toContain(message);

  const warned = [...findingsOf(first, 'truncate'), ...findingsOf(first, 'foreign-key')];
  expect(warned.map(({ what }) => what)).toEqual([
    expect.stringMatching(/^role \w+ may not truncate public\.plain$/),
    'foreign key child_parent_fkey of public.child refers to public.parent, and public.parent is not carried',
  ]);
  for (const finding of [...first.findings.filter(({ severity }) => severity === 'error'), ...warned])
    await remedy(finding, pair.databases);
  const second = await examine(pair.databases, { exclude });
  expect(second.findings.filter(({ severity }) => severity !== 'info').map(({ check }) => check)).toEqual([
    'no-key',
  ]);
});

test('what no key of the catalogs shows is found by the capture functions and the planner', async () => {
  await onBoth(pair.databases, 'create table nothing (); create table keyless (v text)');
  await pair.source.query('create table made (id int, g int primary key)');
  await pair.target.query('create table made (id int, g int primary key generated always as (id) stored)');
  const diagnosis = await examine(pair.databases, { keyless: 'refuse' });
  expect(errorsOf(diagnosis).sort()).toEqual([
    expect.stringMatching(/^column g of public\.made is part of the key, not generated on the source/),
    expect.stringMatching(/^public\.keyless has no primary key/),
    'table public.nothing cannot be carried: it has no column of its own',
  ]);
  const refused = await ibex(['setup', '--keyless', 'refuse', '--json'], { env: urls() });
  const said = refused.said.join() + refused.stdout;
  for (const message of errorsOf(diagnosis)) expect(said).toContain(message);
});

test('rights: schema, temporary tables, connections; the settings of servers and roles', async () => {
  const { sourceAdmin, targetAdmin, targetUrl } = pair.databases;
  await onBoth(pair.databases, 'create table t (id int primary key)');
  const owner = new URL(targetUrl).username;
  const spoil = `alter database ${owner} owner to postgres; revoke all on database ${owner} from public;
    grant connect on database ${owner} to ${owner}`;
  await sourceAdmin.query(spoil);
  await targetAdmin.query(`${spoil}; alter role ${owner} connection limit 4;
    alter database ${owner} set "TimeZone" to 'Asia/Tokyo'; alter database ${owner} set search_path to nowhere;
    alter role ${owner} set statement_timeout to '2min'`);
  await pair.source.query('select lo_create(0); create materialized view summary as select 1 as n');
  const first = await examine(pair.databases);
  const short = (what: string) => what.replace(/^\S+: /, '').replaceAll(owner, 'app');
  expect(errorsOf(first).map(short).sort()).toEqual([
    '3 connections are free (role app may have 4), and 4 are needed',
    'role app may not create temporary tables',
    'role app may not create the schema ibex',
    'role app may not create the schema ibex',
  ]);
  for (const message of await refusals()) expect(errorsOf(first)).toContain(message);
  expect(findingsOf(first, 'setting').map(({ what }) => what)).toEqual([
    `search_path is '"$user", public' on the source and 'nowhere' on the target`,
    "TimeZone is 'UTC' on the source and 'Asia/Tokyo' on the target",
  ]);
  expect(findingsOf(first, 'time-outs')).toMatchObject([
    { side: 'target', what: 'new sessions have statement_timeout = 120000 ms' },
  ]);
  expect(findingsOf(first, 'left-behind')).toHaveLength(2);
  for (const finding of first.findings.filter(({ severity }) => severity !== 'info'))
    await remedy(finding, pair.databases);
  const second = await examine(pair.databases);
  expect(second.findings.filter(({ severity }) => severity !== 'info')).toEqual([]);
  expect(await refusals()).toEqual([]);
  for (const admin of [sourceAdmin, targetAdmin])
    await admin.query(`alter database ${owner} owner to ${owner}`);
});

test('rights that other roles have on the source and lack on the target', async () => {
  const { sourceAdmin, targetAdmin } = pair.databases;
  const SCHEMA = `create schema "S"; create table "S".t (id int primary key, v text); create view "S".seen as select 1 as n;
    create sequence "S".q; create table only_here (id int)`;
  const roles = ['Wéb', 'worker', 'admin'].map((name) => ({ name, role: `${name} ${Date.now()}` }));
  const [web, worker, administrator] = roles.map(({ role }) => pg.escapeIdentifier(role));
  try {
    await onBoth(pair.databases, SCHEMA);
    for (const role of [web, worker, administrator]) await sourceAdmin.query(`create role ${role}`);
    await targetAdmin.query(`create role ${worker}; create role ${administrator} superuser`);
    await pair.source.query(`grant usage on schema "S" to ${web}, ${worker}; grant usage on sequence "S".q to ${worker};
      grant select on "S".t, "S".seen to ${web}, ${worker}; grant update (v) on "S".t to ${web};
      grant all on "S".t to ${administrator}; grant select on "S".seen to public`);
    await pair.target.query(`grant usage on schema "S" to ${worker}; drop table only_here`);
    await pair.source.query(`grant select on only_here to ${worker}`);
    const found = async () => findingsOf(await examine(pair.databases, { tables: ['S.*'] }), 'grant');
    const first = await found();
    expect(first.map(({ what }) => what.replace(/ \d{13}/, '')).sort()).toEqual([
      'role public lacks rights that it has on the source: 1, such as select on "S".seen',
      'role worker lacks rights that it has on the source: 3, such as usage on "S".q',
      'there is no role Wéb with the rights that it has on the source: 4, such as usage on "S"',
    ]);
    for (const finding of first) await remedy(finding, pair.databases);
    expect(await found()).toEqual([]);
  } finally {
    for (const [side, admin] of [
      [pair.source, sourceAdmin],
      [pair.target, targetAdmin],
    ] as const) {
      await side.query('drop schema "S" cascade');
      for (const role of [web, worker, administrator])
        await admin.query(`drop owned by ${role}; drop role ${role}`).catch(() => undefined);
    }
  }
});

test('a table that somebody has locked is not waited for, and what is not known is said', async () => {
  await onBoth(pair.databases, 'create table t (id int primary key)');
  await pair.source.query('begin; lock table t in access exclusive mode');
  const { findings } = await examine(pair.databases);
  expect(findings.filter(({ severity }) => severity !== 'info')).toMatchObject([
    { check: 'not-examined', what: expect.stringMatching(/^sizes and speed could not be looked at/) },
  ]);
  await pair.source.query('rollback');
});

describe('the two sides', () => {
  test('are one database', async () => {
    const same = { ...pair.databases, targetUrl: pair.databases.sourceUrl };
    expect(errorsOf(await examine(same))).toEqual([expect.stringMatching(/are the same database/)]);
  });

  test('cannot be reached, or are asked for what is not there', async () => {
    const away = new URL(pair.databases.targetUrl);
    away.port = '1';
    const codes = await Promise.all([
      ibex(['doctor'], { env: { ...urls(), IBEX_TARGET_URL: away.href } }),
      ibex(['doctor', '--tables', 'public.nowhere'], { env: urls() }),
    ]);
    expect(codes.map(({ code }) => code)).toEqual([3, 2]);
    await onBoth(pair.databases, 'create table t (id int primary key)');
    await expect(examine(pair.databases, { appUrl: away.href })).rejects.toMatchObject({
      kind: 'connection',
    });
  });
});

describe('extension, encoding and collation', () => {
  const other = usePair(servers, { targetIs: `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'` });

  test('are named when they differ', async () => {
    await onBoth(other.databases, 'create table t (id int primary key)');
    await other.databases.sourceAdmin.query('create extension citext');
    const diagnosis = await examine(other.databases);
    expect(findingsOf(diagnosis, 'encoding').map(({ what }) => what)).toEqual([
      'text is UTF8 on the source and LATIN1 on the target',
    ]);
    expect(errorsOf(diagnosis)).toEqual([]);
    const [lacking] = findingsOf(diagnosis, 'extension');
    expect(lacking?.what).toMatch(/^the target lacks the extension citext/);
    if (lacking !== undefined) await remedy(lacking, other.databases);
    expect(findingsOf(await examine(other.databases), 'extension')).toEqual([]);
  });
});

test('a target without any table: one finding for all, and `ibex schema copy` answers it', async () => {
  const tables = Array.from({ length: 7 }, (_, i) => `create table t${i} (id serial primary key)`);
  await pair.source.query(tables.join('; '));
  expect(errorsOf(await examine(pair.databases))).toEqual([
    '7 tables do not exist on the target: public.t0, public.t1, public.t2, public.t3, public.t4 and 2 more',
    '7 sequences would not be carried: the target has none: public.t0_id_seq, public.t1_id_seq, public.t2_id_seq, ' +
      'public.t3_id_seq, public.t4_id_seq and 2 more',
  ]);
  expect(await ibex(['schema', 'copy'], { env: urls() })).toMatchObject({ code: 0 });
  expect(errorsOf(await examine(pair.databases))).toEqual([]);
});
