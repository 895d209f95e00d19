/** User triggers and rules of the target: none fires for replicated rows, whoever made or enabled it, and none is lost. */
import type pg from 'pg';
import { describe, expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { teardownTarget } from '../../src/setup/teardown.ts';
import { MODES, type Pair, usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

const SCHEMA = `
  create table plain (id int primary key, v int);
  create table ruled (id int primary key, v int, gone boolean default false);
  create table keyless (id int, v int);
  create table parted (id int primary key, v int) partition by range (id);
  create table parted_a partition of parted for values from (0) to (100);
  create table parted_b partition of parted for values from (100) to (1000);`;

/** What fires notes itself in `fired`, and spoils or swallows the row. */
const DISTURBING = `
  create table fired (what text);
  create function swallow() returns trigger language plpgsql as $$ begin insert into public.fired values (tg_name); return null; end $$;
  create function spoil() returns trigger language plpgsql as $$ begin insert into public.fired values (tg_name); new.v := -1; return new; end $$;
  create function refuse() returns trigger language plpgsql as $$ begin raise exception 'the trigger % fired', tg_name; end $$;
  create trigger before_insert before insert on plain for each row execute function swallow();
  create trigger "Before update" before update of v on plain for each row when (new.v > 0) execute function spoil();
  create trigger before_delete before delete on plain for each row execute function swallow();
  create trigger after_row after insert or update or delete on plain for each row execute function refuse();
  create trigger after_statement after insert or update or delete on plain for each statement execute function refuse();
  create constraint trigger late after insert or update or delete on plain deferrable initially deferred for each row execute function refuse();
  create trigger before_truncate before truncate on plain for each statement execute function refuse();
  create trigger always before insert or update or delete on plain for each row execute function swallow();
  alter table plain enable always trigger always;
  create trigger for_replicas before insert or update or delete on plain for each row execute function swallow();
  alter table plain enable replica trigger for_replicas;
  create trigger off before insert or update or delete on plain for each row execute function swallow();
  alter table plain disable trigger off;
  create rule no_insert as on insert to ruled where new.id > 5 do instead nothing;
  create rule soft_delete as on delete to ruled do instead update ruled set gone = true where id = old.id;
  create rule note_update as on update to ruled do also insert into fired values ('rule');
  create rule always_rule as on insert to ruled where new.id > 7 do instead nothing;
  alter table ruled enable always rule always_rule;
  create rule replica_rule as on update to ruled do instead nothing;
  alter table ruled enable replica rule replica_rule;
  create trigger of_keyless before insert or delete on keyless for each row execute function swallow();
  create rule of_keyless as on delete to keyless do instead nothing;
  create trigger of_root before insert or update or delete on parted for each row execute function refuse();
  create trigger of_leaf before insert on parted_b for each row execute function swallow();
  alter table parted_b enable always trigger of_leaf;`;

const TABLES = ['public.plain', 'public.ruled', 'public.keyless', 'public.parted'];

/** How every trigger and rule of the target's application is defined and enabled. */
async function triggersAndRules(client: pg.Client): Promise<string[]> {
  const { rows } = await client.query<{ text: string }>(
    `select concat_ws(' ', t.tgrelid::regclass, pg_get_triggerdef(t.oid), t.tgenabled) as text from pg_trigger t
      where not t.tgisinternal and t.tgname !~ 'ibex'
     union all
     select concat_ws(' ', pg_get_ruledef(r.oid), r.ev_enabled) from pg_rewrite r
      where r.ev_class::regclass::text in ('ruled', 'keyless') order by 1`,
  );
  return rows.map(({ text }) => text);
}

async function tearDown(pair: Pair): Promise<void> {
  await pair.sync.stop();
  await using target = await Session.open({ url: pair.databases.targetUrl, name: 'test' });
  const { signal } = new AbortController();
  const options = { sync: 'main', filter: () => true, lockTimeoutMs: 5_000, patienceMs: 5_000, signal };
  expect((await teardownTarget(target, options)).notRestored).toEqual([]);
}

describe.each(MODES)('where $mode', ({ replica }) => {
  const pair = usePair(servers, { replica });
  const equal = async () => {
    await pair.sync.caughtUp();
    await pair.becomesEqual(TABLES);
  };

  test('triggers and rules of every kind do not fire, ours go on, and teardown puts all back as it was', async () => {
    await onBoth(pair.databases, SCHEMA);
    await pair.target.query(DISTURBING);
    const before = await triggersAndRules(pair.target);
    // Named and enabled like what captures this side for a sync that goes the other way.
    await pair.target.query(`
      create table captured (n int);
      create function capture() returns trigger language plpgsql as $$ begin insert into public.captured values (1); return null; end $$;
      create trigger ibex_insert_4711 after insert on plain for each statement execute function capture();
      alter table plain enable always trigger ibex_insert_4711`);
    const rows = (names: string[], from: number, to: number) =>
      names
        .map((name) => `insert into ${name} (id, v) select i, i from generate_series(${from}, ${to}) i`)
        .join(';');
    const all = ['plain', 'ruled', 'keyless', 'parted'];
    await pair.source.query(rows(all, 1, 200));
    pair.start({ tables: TABLES });
    await equal();
    await pair.source.query(rows(all, 201, 300));
    await pair.source.query(all.map((name) => `update ${name} set v = v + 1000 where id % 3 = 0`).join(';'));
    await pair.source.query(all.map((name) => `delete from ${name} where id % 7 = 0`).join(';'));
    await equal();
    await pair.source.query(
      `begin; truncate plain; truncate keyless; truncate parted_b; ${rows(['plain', 'keyless'], 1, 20)}; commit`,
    );
    await equal();
    expect((await pair.target.query('select what from fired')).rows).toEqual([]);
    expect((await pair.target.query('select from captured')).rowCount).toBeGreaterThan(0);
    expect(
      (await pair.target.query(`select tgenabled from pg_trigger where tgname = 'ibex_insert_4711'`)).rows,
    ).toEqual([{ tgenabled: 'A' }]);
    await tearDown(pair);
    await pair.target.query('drop trigger ibex_insert_4711 on plain');
    expect(await triggersAndRules(pair.target)).toEqual(before);
  });

  test('what is made or enabled behind our back while rows stream swallows none of them', async () => {
    const names = ['enabled', 'made', 'spoiled', 'late', 'ruled', 'deleted', 'keyless', 'parted', 'fine'];
    const tables = names.map((name) => {
      const key = name === 'keyless' ? 'id int' : 'id int primary key';
      return `create table ${name} (${key}, v int)${name === 'parted' ? ' partition by range (id)' : ''};`;
    });
    await onBoth(
      pair.databases,
      `${tables.join('')} create table parted_a partition of parted for values from (0) to (10000)`,
    );
    await pair.target.query(`
      create function swallow() returns trigger language plpgsql as $$ begin return null; end $$;
      create function spoil() returns trigger language plpgsql as $$ begin new.v := -1; return new; end $$;
      create trigger swallow before insert or update or delete on enabled for each row execute function swallow();
      alter table enabled enable always trigger swallow`);
    const write = (from: number) =>
      pair.source.query(
        names
          .map(
            (name) =>
              `insert into ${name} select i, i from generate_series(${from}, ${from + 50}) i; update ${name} set v = v + 1`,
          )
          .join(';'),
      );
    await write(1);
    pair.start();
    await pair.equal();
    const before = 'before insert or update or delete';
    const disturbing = {
      enabled: 'alter table enabled enable always trigger swallow',
      made: `create trigger swallow ${before} on made for each row execute function swallow(); alter table made enable always trigger swallow`,
      spoiled: `create trigger spoil before insert or update on spoiled for each row execute function spoil();
                alter table spoiled enable always trigger spoil`,
      late: `create constraint trigger late after insert or update on late deferrable initially deferred for each row execute function swallow();
             alter table late enable always trigger late`,
      ruled:
        'create rule swallow as on insert to ruled do instead nothing; alter table ruled enable always rule swallow',
      deleted:
        'create rule swallow as on delete to deleted do instead nothing; alter table deleted enable always rule swallow',
      keyless: `create trigger swallow before delete on keyless for each row execute function swallow();
                alter table keyless enable always trigger swallow`,
      parted: `create trigger swallow before insert on parted_a for each row execute function swallow();
               alter table parted_a enable always trigger swallow`,
    };
    // One after the other: what is noticed on one table has all of them looked at.
    for (const [name, statements] of Object.entries(disturbing)) {
      await pair.target.query(statements);
      await pair.source.query(`insert into ${name} select i, i from generate_series(1000, 1050) i;
        update ${name} set v = v + 1 where id < 20; delete from ${name} where id % 3 = 0`);
      await pair.becomesEqual();
    }
    await pair.becomesEqual();
    await pair.equal();
    const { parked } = await pair.sync.status();
    expect(new Set(parked.filter(({ kind }) => kind !== 'foreign_key').map(({ table }) => table)).size).toBe(
      names.length - 1,
    );
  });

  test('a trigger that comes while a table is copied swallows no row of it', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key, v int)');
    await pair.source.query('insert into t select i, i from generate_series(1, 3000) i');
    await pair.target.query(
      `create function swallow() returns trigger language plpgsql as $$ begin return null; end $$`,
    );
    const { targetAdmin } = pair.databases;
    await targetAdmin.query(`begin; create trigger swallow before insert on t for each row when (new.id % 2 = 0) execute function swallow();
      alter table t enable always trigger swallow`);
    pair.start();
    await waitFor(
      async () =>
        (await pair.target.query(`select from pg_locks where relation = 't'::regclass and not granted`))
          .rowCount,
      { what: 'the copy to wait for the table' },
    );
    await targetAdmin.query('commit');
    await pair.becomesEqual();
    await pair.equal();
  });
});
