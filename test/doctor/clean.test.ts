/** A pair that is in order: the doctor finds nothing that would fail, leaves nothing, and setup and copy succeed. */
import type pg from 'pg';
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { errorsOf, examine } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);

const SCHEMA = `
  create table customer (id int generated always as identity primary key, name text);
  create table "Order" (id bigint primary key, customer int references customer, tags text[]);
  create table parted (id int primary key, v text) partition by range (id);
  create table parted_1 partition of parted for values from (0) to (100);
  create sequence alone`;

/** Everything that the catalogs hold of a database, and what is granted. */
async function catalog(client: pg.Client): Promise<unknown[]> {
  const { rows } = await client.query(`
    select 'relation' as what, c.oid::text, c.relname::text, c.relacl::text, c.relfilenode::text from pg_class c
     where c.relnamespace <> 'pg_toast'::regnamespace
    union all select 'schema', n.oid::text, n.nspname::text, n.nspacl::text, null from pg_namespace n
    union all select 'function', p.oid::text, p.proname::text, p.proacl::text, null from pg_proc p
    union all select 'trigger', t.oid::text, t.tgname::text, t.tgenabled::text, null from pg_trigger t
    union all select 'type', t.oid::text, t.typname::text, null, null from pg_type t
    order by 1, 2`);
  return rows;
}

test('nothing is found that would fail, nothing is left, and a sync succeeds', async () => {
  await onBoth(pair.databases, SCHEMA);
  await pair.source.query(`insert into customer (name) select 'c' || i from generate_series(1, 100) i;
    insert into "Order" select i, i from generate_series(1, 100) i; insert into parted select i from generate_series(1, 99) i`);
  const { sourceUrl, targetUrl, sourceAdmin, targetAdmin } = pair.databases;
  const before = [await catalog(sourceAdmin), await catalog(targetAdmin)];
  const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl, IBEX_APP_URL: sourceUrl };
  const { code, stdout } = await ibex(['doctor', '--json'], { env });
  const { healthy, tables, findings } = JSON.parse(stdout);
  expect(findings.filter((finding: { severity: string }) => finding.severity !== 'info')).toEqual([]);
  expect([code, healthy, tables]).toEqual([0, true, ['public.Order', 'public.customer', 'public.parted']]);
  expect(new Set(findings.map((finding: { check: string }) => finding.check))).toEqual(
    new Set([
      ...['version', 'tls', 'time', 'connections', 'capture', 'replica', 'size', 'disk', 'changes'],
      'app-database',
    ]),
  );
  expect([await catalog(sourceAdmin), await catalog(targetAdmin)]).toEqual(before);

  expect(
    (await ibex(['backfill'], { env: { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl } })).code,
  ).toBe(0);
  await pair.becomesEqual();
  // A second time, with everything installed.
  expect(errorsOf(await examine(pair.databases))).toEqual([]);
});

test('what is said to a person: one line each, and three where there is something to do', async () => {
  await onBoth(pair.databases, 'create table t (id int primary key); create table keyless (v text)');
  const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
  const { code, stdout } = await ibex(['doctor'], { env });
  expect([code, stdout]).toEqual([
    0,
    expect.stringMatching(
      /^warning source {2}no-key: public\.keyless has no primary key.*\n {8}Its rows are .*\n {8}-> Give it a primary key/,
    ),
  ]);
  expect(stdout).toMatch(/^main: nothing found that would fail: 0 errors, 1 warnings, 2 tables$/m);
});

test('writers are not waited for and never wait: no lock is stronger than that of a query', async () => {
  await onBoth(pair.databases, SCHEMA);
  const { sourceAdmin, targetAdmin } = pair.databases;
  for (const side of [pair.source, pair.target]) {
    await side.query('begin');
    for (const table of ['customer', '"Order"', 'parted', 'parted_1'])
      await side.query(`lock table only ${table} in row exclusive mode`);
  }
  const seen = new Set<string>();
  let done = false;
  const watch = async () => {
    while (!done) {
      for (const admin of [sourceAdmin, targetAdmin]) {
        const { rows } = await admin.query<{ mode: string }>(
          `select l.mode from pg_locks l join pg_stat_activity a using (pid)
             join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
            where a.application_name like 'ibex:%' and n.nspname = 'public' and c.relkind <> 'S'`,
        );
        for (const { mode } of rows) seen.add(mode);
      }
    }
  };
  const watching = watch();
  const { findings } = await examine(pair.databases).finally(() => {
    done = true;
  });
  await watching;
  expect(findings.filter(({ check }) => check === 'not-examined')).toEqual([]);
  expect([...seen].filter((mode) => mode !== 'AccessShareLock')).toEqual([]);
  for (const side of [pair.source, pair.target]) await side.query('rollback');
});
