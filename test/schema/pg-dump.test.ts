/** By pg_dump, where there is one that is new enough: the same outcome, and more kinds of objects. */
import { describe, expect, test } from 'vitest';
import { findPgDump } from '../../src/schema/dump/pg-dump.ts';
import { canStart } from '../support/majors.ts';
import { usePair } from '../support/pair.ts';
import { freshDatabases, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { fingerprint, RICH } from './rich.ts';
import { schemaCommand } from './support.ts';

const version = await findPgDump();
const newest = Number.parseInt(version ?? '0', 10);
/** An older server than the target's, so that pg_dump is newer than one of them. */
const [from, to] = newest >= 18 ? [17, 18] : [newest - 1, newest];
const possible = from >= 12 && canStart(from, to);

describe.skipIf(!possible)('by pg_dump (skipped without one and servers of its major)', async () => {
  const servers = await useServers({}, [from, to]);
  const pair = usePair(servers);
  const schema = schemaCommand(pair);

  test('a copy is the same as one from the catalogs', async () => {
    await pair.source.query(RICH);
    const copied = await schema('copy');
    expect(copied.failed).toEqual([]);
    expect(copied).toMatchObject({ code: 0, way: `pg_dump ${version}`, because: null });
    const [source, target] = [await fingerprint(pair.source), await fingerprint(pair.target)];
    expect(target).toEqual(source);
    expect(await schema('diff')).toMatchObject({ code: 0, missing: [], different: [], extra: [] });
    const other = await freshDatabases(servers);
    const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: other.targetUrl };
    const fromCatalogs = await schemaCommand(pair, { ...env, PATH: '/nowhere' })('copy');
    expect(fromCatalogs).toMatchObject({ code: 0, failed: [], way: 'catalogs' });
    expect(await fingerprint(other.target)).toEqual(target);
    await other.dropAll();
  });

  test('kinds that the catalogs are not asked for', async () => {
    await pair.source.query(`create schema app;
    create operator app.=== (leftarg = int, rightarg = int, function = int4eq);
      create text search dictionary app.plain (template = simple);`);
    expect(await schema('copy')).toMatchObject({ code: 0, failed: [] });
    const there = await pair.target.query(
      `select 1 operator(app.===) 1 as same, 'app.plain'::regdictionary::text as dictionary`,
    );
    expect(there.rows).toEqual([{ same: true, dictionary: 'app.plain' }]);
  });

  test('a partition that comes later, and what a sync has set aside', async () => {
    const { source, target } = pair;
    await onBoth(
      pair.databases,
      `create table p (id int primary key, v int) partition by range (id); create index by_v on p (v);
       create table "p 1" partition of p for values from (0) to (10);
       create table b (id int primary key, p int references p);
       create function f() returns trigger language plpgsql as 'begin return new; end';
       create trigger fires before insert on b for each row execute function f()`,
    );
    await source.query('insert into p values (1); insert into b values (1, 1)');
    pair.start();
    await pair.sync.caughtUp();
    await pair.sync.stop();
    expect(
      (await target.query(`select tgenabled from pg_trigger where tgname = 'fires'`)).rows[0].tgenabled,
    ).toBe('D');
    expect(await schema('diff')).toMatchObject({ missing: [], different: [], extra: [], code: 0 });
    await onBoth(
      pair.databases,
      `create table "c d" (id int primary key, b int constraint "of b" references b);
      create unique index "by b" on "c d" (b);
       comment on index "by b" is 'x'; comment on constraint "of b" on "c d" is 'y';
       comment on constraint "c d_pkey" on "c d" is 'z'`,
    );
    await target.query(`alter table "c d" drop constraint "of b", drop constraint "c d_pkey"; drop index "by b";
      insert into ibex.parked (sync, kind, schema_name, table_name, name, restore)
      values ('main', 'foreign_key', 'public', 'c d', 'of b', 'select 1'),
        ('main', 'index', 'public', 'c d', 'by b', 'select 1'),
             ('main', 'index', 'public', 'c d', 'c d_pkey', 'select 1')`);
    expect(await schema('diff')).toMatchObject({ missing: [], different: [], extra: [], code: 0 });
    await source.query(`create table "p 2" (v int, id int not null); create index "my ""index""" on "p 2" (v);
      alter table "p 2" add constraint my_key primary key (id);
      alter table p attach partition "p 2" for values from (10) to (20)`);
    const { created, failed } = await schema('copy');
    expect(failed).toEqual([]);
    expect(created).toEqual([
      { kind: 'table', name: 'public.p 2' },
      { kind: 'partition', name: 'public.p 2' },
    ]);
  });
});
