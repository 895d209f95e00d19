/** What else the target holds its rows to: unique and exclusion constraints, checks, domains, and rows that break them. */
import { describe, expect, test } from 'vitest';
import { MODES, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** In each of these tables no two rows may share the value of `v`, for another reason. */
const SCHEMA = `
  create table plain (id int primary key, v int unique, note text);
  create table referenced (id int primary key, v int unique, note text, up int references referenced on delete cascade);
  create table several (id int primary key, v int unique, note text, unique (v, note));
  create table partial (id int primary key, v int, note text);
  create unique index on partial (v) where v > 0;
  create table expression (id int primary key, v int, note text);
  create unique index on expression ((v * 2), lower(note));
  create table included (id int primary key, v int, note text, unique (v) include (note));
  create table nulls (id int primary key, v int, note text, unique nulls not distinct (v));
  create table late (id int primary key, v int, note text, unique (v) deferrable);
  create table last (id int primary key, v int, note text, unique (v) deferrable initially deferred);
  create table excluded (id int primary key, v int, note text, exclude using gist (int4range(v, v + 1) with &&));
  create table excluded_late (id int primary key, v int, note text,
    exclude using gist (int4range(v, v + 1) with &&) where (v > 0) deferrable initially deferred);
  create table periods (id int primary key, v int, note text, at int4range generated always as (int4range(v, v + 1)) stored,
    
    kind int4range default '[1,2)', unique (kind, at without overlaps));
  create table period_key (id int4range default '[100,101)', v int unique, note text, at int4range default '[1,2)',
    primary key (id, at without overlaps));
  create table keyless (id int, v int unique, note text);
  create table parts (id int primary key, v int, note text) partition by range (id);
  create table parts_0 partition of parts for values from (minvalue) to (5);
  create table parts_1 partition of parts for values from (5) to (maxvalue);
  create unique index on parts_0 (v);
  create unique index on parts_1 (v);
  create table parent (id int primary key, v int not null unique, note text);
  create table child (id int primary key, parent int references parent (v) on update cascade);`;

const NAMES = [...SCHEMA.matchAll(/create table (\w+)/g)]
  .map(([, name = '']) => name)
  .filter((name) => !['parts_0', 'parts_1', 'child'].includes(name));

/** Rows 1 .. 9 with the values 1 .. 9. */
const ROWS = [
  ...NAMES.map((name) => {
    const id = name === 'period_key' ? 'int4range(i, i + 1)' : 'i';
    return `insert into ${name} (id, v, note) select ${id}, i, 'n' from generate_series(1, 9) i`;
  }),
  'insert into child select i, i from generate_series(1, 9) i',
].join(';');

/** Moves values by way of others that nobody has, so that no constraint stands in the way on the source. */
const permute = (expression: string, where: string) => (name: string) =>
  `update ${name} set v = -(${expression}) where ${where}; update ${name} set v = -v where v < 0`;

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });

  const inOneTransaction = (statements: (name: string) => string) =>
    pair.source.query(`begin; set constraints all deferred; ${NAMES.map(statements).join(';')}; commit`);

  test('values that no two rows may share swap, rotate, shift and change hands within one transaction', async () => {
    await pair.inStep(SCHEMA, ROWS);
    await inOneTransaction(permute('3 - v', 'v in (1, 2)'));
    await pair.equal();
    await inOneTransaction(permute('v % 9 + 1', 'true'));
    await pair.equal();
    await inOneTransaction(permute('13 - v', 'v > 3'));
    await pair.equal();
    await inOneTransaction(permute('v + 1', 'true'));
    await pair.equal();
    await pair.source.query('delete from child');
    const id = (name: string) => (name === 'period_key' ? `int4range(100, 101)` : '100');
    await inOneTransaction(
      (name) => `delete from ${name} where v = 5; update ${name} set v = 5 where v = 6;
                 insert into ${name} (id, v, note) values (${id(name)}, 6, 'new')`,
    );
    await pair.equal();
    await pair.ready();
  });

  test('rows that the target refuses hold their table with row and constraint named; repaired, it goes on by itself', async () => {
    const columns = 'id int primary key, v int, t text';
    const tables = ['taken', 'taken_late', 'overlap', 'lax', 'missing', 'domain', 'fine'];
    await onBoth(pair.databases, `${tables.map((name) => `create table ${name} (${columns});`).join('')}`);
    await pair.target.query(`
      alter table taken add constraint taken_v unique (v);
      alter table taken_late add constraint late_v unique (v) deferrable initially deferred;
      alter table overlap add constraint no_overlap exclude using gist (int4range(v, v + 1) with &&);
      insert into lax values (999999, 5000, 'before it');
      alter table lax add constraint lax_v check (v < 1000) not valid;
      alter table missing alter v set not null;
      create domain small_int as int check (value < 1000);
      alter table domain alter v type small_int;
      insert into taken values (-1, 5000, 'local'); insert into taken_late values (-1, 5000, 'local');
      insert into overlap values (-1, 5000, 'local');
      create function refuse() returns trigger language plpgsql as $$ begin raise exception 'never'; end $$;
      create trigger refuse before insert or update or delete on fine for each row execute function refuse()`);
    pair.start({ tables: tables.map((name) => `public.${name}`) });
    await pair.sync.caughtUp();
    const rows = tables.map((name) => `insert into ${name} select i, i, 'n' from generate_series(1, 300) i;`);
    await pair.source.query(rows.join(''));
    await pair.sync.caughtUp();
    const bad = tables.map(
      (
        name,
      ) => `update ${name} set v = v + 200 where id <= 300; update ${name} set v = ${name === 'missing' ? 'null' : '5000'},
                   t = 'too long for it' where id = 77;`,
    );
    await pair.source.query(`begin; ${bad.join('')} commit`);
    const held = tables.filter((name) => name !== 'fine');
    const reasons = async () => {
      const status = await pair.sync.status();
      return new Map(
        status.tables.filter(({ state }) => state === 'held').map(({ table, reason }) => [table, reason]),
      );
    };
    const named: Record<string, RegExp> = {
      taken: /taken_v/,
      taken_late: /late_v/,
      overlap: /no_overlap/,
      lax: /lax_v/,
      missing: /"v"/,
      domain: /small_int/,
    };
    // Each at its time: a held table is free while it is tried again.
    for (const table of held) {
      const reason = await waitFor(async () => (await reasons()).get(`public.${table}`), {
        what: `${table} to be held`,
        timeout: 180_000,
      });
      expect(reason).toMatch(named[table] as RegExp);
      expect(reason).toMatch(/\(row \(id\) = \(77\)\)$/);
    }
    await pair.source.query(
      `insert into fine values (1000, 1, 'goes on'); insert into taken values (1000, 1000, 'waits')`,
    );
    await pair.becomesEqual(['public.fine']);

    await pair.target.query(`
      delete from taken where id = -1; delete from taken_late where id = -1; delete from overlap where id = -1;
      delete from lax where id = 999999;
      alter table taken drop constraint taken_v; alter table taken_late drop constraint late_v;
      alter table overlap drop constraint no_overlap; alter table lax drop constraint lax_v;
      alter table missing alter v drop not null; alter table domain alter v type int`);
    await pair.becomesEqual(tables.map((name) => `public.${name}`));
    await waitFor(async () => (await reasons()).size === 0, { what: 'none to be held' });
    await pair.sync.caughtUp();
    for (const table of (await pair.sync.status()).tables) {
      expect(table.applied + table.coalesced, table.table).toBe(table.captured);
    }
  });
});
