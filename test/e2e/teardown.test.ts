/**
 * A teardown leaves nothing: both databases are object by object what they were before the setup, whatever
 * happened in between, and the application never noticed.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import { type IbexOptions, type IbexResult, ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { BANK, BANK_ROWS, type Load, startLoad } from '../support/load.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** At how many random moments a command is killed; each run draws others. */
const MOMENTS = Number(process.env.TEST_MOMENTS ?? 3);

let databases: Databases;
let daemon: RunningIbex | undefined;
let load: Load | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await load?.stop();
  load = undefined;
  await databases.dropAll();
});

function urls(): { IBEX_SOURCE_URL: string; IBEX_TARGET_URL: string } {
  return { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl };
}

async function expectCode(code: number, args: string[], options: IbexOptions = {}): Promise<IbexResult> {
  const result = await ibex(args, { env: urls(), ...options });
  expect(result.code, `ibex ${args.join(' ')}: ${result.stdout}${result.stderr}`).toBe(code);
  return result;
}

async function teardown(code: number, more: string[] = [], options: IbexOptions = {}) {
  return JSON.parse((await expectCode(code, ['teardown', '--yes', '--json', ...more], options)).stdout);
}

async function start(): Promise<RunningIbex> {
  daemon = startIbex(['run'], { env: urls() });
  await daemon.waitForLog(/sync main runs/);
  return daemon;
}

async function expectStopped(): Promise<void> {
  expect(await daemon?.stop()).toMatchObject({ code: 0 });
  daemon = undefined;
}

/** An address at which nobody is, with everything else as in the URL. */
async function elsewhere(url: string): Promise<string> {
  const copy = new URL(url);
  copy.port = String(await freePort());
  return copy.href;
}

/**
 * Every object of a database with its definition and whether it is switched on, system objects left out. By name,
 * since what was dropped and made again has another oid.
 */
const OBJECTS = `
  with ours as (
    select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
  )
  select format('schema %s', nspname) as object from ours
  union all
  select format('%s %s.%s (%s) %s', c.relkind, n.nspname, c.relname,
                (select string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull), ', '
                                   order by a.attnum)
                   from pg_attribute a where a.attrelid = c.oid and a.attnum > 0), c.relacl)
    from pg_class c join ours n on n.oid = c.relnamespace
  union all
  select format('function %s.%s', n.nspname, p.proname) from pg_proc p join ours n on n.oid = p.pronamespace
  union all
  select format('type %s.%s', n.nspname, t.typname) from pg_type t join ours n on n.oid = t.typnamespace
  union all
  select format('trigger %s %s', t.tgenabled, pg_get_triggerdef(t.oid)) from pg_trigger t where not t.tgisinternal
  union all
  select format('internal trigger %s on %s', t.tgenabled, t.tgrelid::regclass) from pg_trigger t where t.tgisinternal
  union all
  select format('constraint %s on %s: %s, validated %s', k.conname, k.conrelid::regclass, pg_get_constraintdef(k.oid),
                k.convalidated)
    from pg_constraint k join ours n on n.oid = k.connamespace
  union all
  select format('rule %s %s', r.ev_enabled, pg_get_ruledef(r.oid)) from pg_rewrite r
    join pg_class c on c.oid = r.ev_class join ours n on n.oid = c.relnamespace
  union all select format('publication %s', pubname) from pg_publication
  union all select format('event trigger %s', evtname) from pg_event_trigger
  union all select format('default rights %s', d.defaclacl) from pg_default_acl d
  union all select format('setting %s', s.setconfig) from pg_db_role_setting s
              join pg_database d on d.oid = s.setdatabase where d.datname = current_database()
  union all select format('slot %s', slot_name) from pg_replication_slots where database = current_database()
  order by 1`;

async function objects(): Promise<string[][]> {
  const sides = [databases.source, databases.target];
  const results = await Promise.all(sides.map((client) => client.query<{ object: string }>(OBJECTS)));
  return results.map(({ rows }) => rows.map(({ object }) => object));
}

/** What tables of a real application carry: things that fire, in every state, and keys in every form. */
const FURNITURE = `
  create table log (at timestamptz default now(), what text);
  create function note() returns trigger language plpgsql as
    $$ begin insert into public.log (what) values (tg_name); return coalesce(new, old); end $$;
  create trigger fires before insert or update on account for each row execute function note();
  create trigger fires_always after update on account for each statement execute function note();
  create trigger fires_never after delete on account for each row execute function note();
  create trigger fires_on_replicas after insert on account for each row execute function note();
  alter table account enable always trigger fires_always, disable trigger fires_never,
    enable replica trigger fires_on_replicas;
  create rule tells as on update to branch do also insert into log (what) values ('branch');
  create rule tells_always as on delete to branch do also insert into log (what) values ('branch');
  create rule tells_never as on insert to branch do also insert into log (what) values ('branch');
  alter table branch enable always rule tells_always, disable rule tells_never;
  alter table account add constraint later foreign key (branch) references branch
    on update cascade deferrable initially deferred;
  alter table account add constraint unproven foreign key (branch) references branch not valid;
  alter table branch add column boss int references teller deferrable;
  create table event (id int, day date, what text, primary key (id, day)) partition by range (day);
  create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01');
  create table event_2 partition of event for values from ('2026-02-01') to ('2026-03-01');`;

/** What it made, with the oids of the tables that stand here for those that it had. */
async function firstVersion(side: 'source' | 'target'): Promise<string> {
  const { rows } = await databases[side].query(
    `select 'parent'::regclass::oid::text as parent, 'child'::regclass::oid::text as child`,
  );
  const sql = await readFile(new URL(`first-version/${side}.sql`, import.meta.url), 'utf8');
  return sql.replaceAll('<parent>', rows[0].parent).replaceAll('<child>', rows[0].child);
}

async function createBank(): Promise<void> {
  await onBoth(databases, `${BANK}${FURNITURE}`);
  await databases.source.query(BANK_ROWS);
  await databases.source.query(
    `insert into event select i, date '2026-01-01' + i % 59, 'e' || i from generate_series(1, 300) i`,
  );
}

describe('after a life under load', () => {
  test('nothing is left, everything is back, and the application noticed nothing', async () => {
    await createBank();
    const before = await objects();
    load = await startLoad(databases.sourceUrl);
    await expectCode(0, ['setup']);
    await expectCode(0, ['backfill']);
    await start();
    await expectCode(0, ['wait']);
    const [status] = JSON.parse((await ibex(['status', '--json'], { env: urls() })).stdout);
    const parked = status.parked.map(({ kind, name }: { kind: string; name: string }) => `${kind} ${name}`);
    expect(parked).toEqual(
      expect.arrayContaining(['trigger fires', 'trigger fires_always', 'rule tells', 'rule tells_always']),
    );

    const refusal = await expectCode(3, ['teardown', '--yes']);
    expect(refusal.said).toEqual([
      expect.stringMatching(
        new RegExp(`^error: sync main is being run by a daemon \\(.*process ${daemon?.pid}\\)$`),
      ),
      expect.stringMatching(/^ {2}Stop it first/),
    ]);
    const { IBEX_SOURCE_URL } = urls();
    await expectCode(3, ['teardown', '--yes'], { env: { IBEX_SOURCE_URL } });
    await expectStopped();

    const done = load.done;
    await waitFor(() => (load?.done ?? 0) > done + 20, { what: 'changes that nobody carries any more' });
    const result = await teardown(0);
    expect(result).toMatchObject({
      source: { left: 0, waiting: [], notRestored: [] },
      target: { left: 0, waiting: [], notRestored: [] },
    });
    await waitFor(() => (load?.done ?? 0) > done + 100, { what: 'the application to go on' });
    await load.stop();
    expect(load.errors).toEqual([]);
    expect(await objects()).toEqual(before);

    const { stdout } = await expectCode(0, ['teardown', '--yes']);
    const proof = stdout.slice(stdout.indexOf('select'));
    for (const client of [databases.source, databases.target]) {
      expect((await client.query(proof)).rows).toEqual([{ objects_left: '0' }]);
    }
  });

  test('nothing is left after a daemon was killed and tables were renamed, dropped, taken apart', async () => {
    await createBank();
    await onBoth(databases, 'create table scrap (id int primary key)');
    load = await startLoad(databases.sourceUrl);
    await start();
    await expectCode(0, ['wait', '--tables', 'public.event,public.scrap']);
    await daemon?.kill9();
    await databases.source.query(`
      alter table event detach partition event_1;
      alter table event rename to happening;
      alter table happening rename column what to what_else;
      create schema elsewhere;
      alter table happening set schema elsewhere;
      drop table scrap`);
    await databases.source.query(`insert into elsewhere.happening values (1000, '2026-02-05', 'moved')`);
    const before = (await objects()).map((side) => side.filter((object) => !/ibex/.test(object)));
    // The server may take a moment to notice that the daemon is gone.
    await waitFor(async () => (await ibex(['teardown', '--yes'], { env: urls() })).code === 0, {
      what: 'the teardown',
    });
    await load.stop();
    expect(load.errors).toEqual([]);
    const [source, target] = await objects();
    expect(source).toEqual(before[0]);
    expect(target?.filter((object) => /ibex/.test(object))).toEqual([]);
  });
});

describe('when something is in the way', () => {
  test('an open transaction is named; the rest goes, and all of it once that ends', async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
    const before = await objects();
    await expectCode(0, ['setup']);
    const writer = new pg.Client({ connectionString: databases.sourceUrl });
    await writer.connect();
    await writer.query('begin; update teller set balance = 1 where id = 1');
    const { rows } = await writer.query('select pg_backend_pid() as pid');
    const result = await teardown(1, ['--arm-timeout', '500ms']);
    expect(result.source.waiting).toEqual([
      { relation: 'public.teller', blockers: [expect.stringMatching(`^pid ${rows[0].pid} `)] },
    ]);
    const text = await expectCode(1, ['teardown', '--yes', '--arm-timeout', '500ms']);
    expect(text.stdout).toMatch(new RegExp(`public\\.teller is still armed: locked by pid ${rows[0].pid}`));
    expect(text.stdout).toMatch(/-> Run `ibex teardown` again/);
    // Whatever stage it is in, the application goes on writing.
    await writer.query('update teller set balance = 2 where id = 2; commit');
    await databases.source.query(
      'update teller set balance = 3; update account set balance = 3; delete from account',
    );
    await writer.end();
    await teardown(0);
    expect(await objects()).toEqual(before);
  });

  test('what cannot be put back on the target is named; it is back once nobody uses its table', async () => {
    await onBoth(databases, `${BANK}${FURNITURE}`);
    const before = await objects();
    await expectCode(0, ['setup']);
    const reader = new pg.Client({ connectionString: databases.targetUrl });
    await reader.connect();
    await reader.query('begin; lock table branch in row exclusive mode');
    const { source, target } = await teardown(1);
    expect(source.left).toBe(0);
    expect(target.notRestored).toEqual(
      ['tells', 'tells_always'].map((rule) =>
        expect.stringMatching(`rule ${rule} of public.branch: .*lock timeout`),
      ),
    );
    await reader.end();
    await teardown(0);
    expect(await objects()).toEqual(before);
  });

  test('a foreign key that the rows contradict is named; it is back once they do not', async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
    const before = await objects();
    await databases.target.query('alter table teller add constraint few check (id < 10)');
    await expectCode(1, ['run', '--until-caught-up']);
    await databases.source.query('insert into history (teller, account, delta) values (50, 1, 1)');
    await expectCode(1, ['run', '--until-caught-up']);
    const { source, target } = await teardown(1);
    expect(source.left).toBe(0);
    expect(target.notRestored).toEqual([
      expect.stringMatching(/foreign key history_teller_fkey of public\.history/),
    ]);
    await databases.target.query('alter table teller drop constraint few; delete from history');
    await teardown(0);
    expect(await objects()).toEqual(before);
  });
});

describe('one side only', () => {
  beforeEach(async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
  });

  test.each(['source', 'target'] as const)(
    'the %s cannot be reached: the other is cleaned, and it is named',
    async (gone) => {
      const before = await objects();
      await expectCode(0, ['run', '--until-caught-up']);
      const variable = gone === 'source' ? 'IBEX_SOURCE_URL' : 'IBEX_TARGET_URL';
      const env = { ...urls(), [variable]: await elsewhere(urls()[variable]) };
      const result = await expectCode(1, ['teardown', '--yes', '--json'], { env });
      expect(result.said).toEqual([
        expect.stringMatching(new RegExp(`^error: the ${gone} was not reached .*ECONNREFUSED`)),
        expect.stringMatching(/^ {2}.*run `ibex teardown` again/),
      ]);
      const there = gone === 'source' ? 'target' : 'source';
      expect(JSON.parse(result.stdout)).toMatchObject({
        [gone]: { error: expect.stringMatching(/ECONNREFUSED/) },
        [there]: { left: 0 },
      });
      expect((await expectCode(1, ['teardown', '--yes'], { env })).stdout).toMatch(
        new RegExp(`^${gone}: not reached`, 'm'),
      );
      const [source, target] = await objects();
      expect(gone === 'source' ? target : source).toEqual(before[gone === 'source' ? 1 : 0]);
      await teardown(0);
      expect(await objects()).toEqual(before);
    },
  );

  test.each(['source', 'target'] as const)(
    'the %s alone is given; set up again, nothing is missing',
    async (given) => {
      const before = await objects();
      await expectCode(0, ['run', '--until-caught-up']);
      const one =
        given === 'source'
          ? { IBEX_SOURCE_URL: databases.sourceUrl }
          : { IBEX_TARGET_URL: databases.targetUrl };
      const result = await teardown(0, [], { env: one });
      expect(Object.keys(result)).toEqual(['sync', given, 'proof']);
      expect(result[given].left).toBe(0);
      // Nobody notes these. Without its record the target takes rows that are gone for rows of its own.
      await databases.source.query('update teller set balance = 7; insert into branch values (99)');
      if (given === 'source') await databases.source.query('delete from account where id < 100');
      await expectCode(0, ['setup']);
      await expectCode(0, ['run', '--until-caught-up']);
      expect(await compareTables(databases.source, databases.target)).toEqual([]);
      await teardown(0);
      expect(await objects()).toEqual(before);
    },
  );
});

describe('some tables', () => {
  test('--tables takes them out of the sync, twice if asked; the others stay', async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
    const before = await objects();
    await expectCode(0, ['run', '--until-caught-up']);
    for (const _ of [1, 2]) {
      const { source, target } = await teardown(0, ['--tables', 'public.history,public.teller']);
      expect([source.left > 0, target.left > 0]).toEqual([true, true]);
      const [status] = JSON.parse((await expectCode(1, ['status', '--json'])).stdout);
      expect(status.tables.map(({ table }: { table: string }) => table)).toEqual([
        'public.account',
        'public.branch',
      ]);
    }
    const { rows } = await databases.source.query(
      `select distinct tgrelid::regclass::text as t from pg_trigger where tgname ~ 'ibex' order by 1`,
    );
    expect(rows.map(({ t }) => t)).toEqual(['account', 'branch']);
    await teardown(0);
    expect(await objects()).toEqual(before);
  });

  test('a file that names fewer tables than were set up does not keep the others', async () => {
    await onBoth(databases, BANK);
    const before = await objects();
    const cwd = await mkdtemp(join(tmpdir(), 'ibex-teardown-'));
    const file = (tables: string) =>
      writeFile(
        join(cwd, 'ibex.yaml'),
        `nodes: {a: "${databases.sourceUrl}", b: "${databases.targetUrl}"}\nsyncs: [{name: main, from: a, to: b, tables: [${tables}]}]\n`,
      );
    await file('public.account, public.branch');
    await expectCode(0, ['setup'], { env: {}, cwd });
    await file('public.branch');
    await teardown(0, [], { env: {}, cwd });
    expect(await objects()).toEqual(before);
    await rm(cwd, { recursive: true });
  });
});

describe('what is not as it was made', () => {
  beforeEach(async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
  });

  test.each([
    ['an empty schema', 'drop schema if exists ibex cascade; create schema ibex'],
    ['no record of any sync', 'truncate ibex.source_sync cascade'],
    ['no record of any table', 'truncate ibex.source_table, ibex.captured cascade'],
    ['no function that disarms', 'drop function ibex.disarm cascade'],
  ])('on the source %s', async (_, damage) => {
    const before = await objects();
    await expectCode(0, ['run', '--until-caught-up']);
    await databases.source.query(damage);
    expect(await teardown(0)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
    expect(await objects()).toEqual(before);
    await databases.source.query('update teller set balance = 7');
  });

  test.each([
    ['an empty schema', 'drop schema ibex cascade; create schema ibex'],
    ['no checkpoint', 'truncate ibex.checkpoint cascade'],
  ])('on the target %s', async (_, damage) => {
    const before = await objects();
    await expectCode(0, ['run', '--until-caught-up']);
    await databases.target.query(damage);
    expect(await teardown(0)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
    expect(await objects()).toEqual(before);
  });

  test.each(['source', 'target'] as const)(
    'on the %s no ledger of what was installed: refused, with what to do',
    async (side) => {
      await expectCode(0, ['run', '--until-caught-up']);
      await databases[side].query('drop table ibex.migration');
      const { said } = await expectCode(3, ['teardown', '--yes']);
      expect(said[0]).toMatch(/^error: .*: the schema ibex lacks its ledger, ibex\.migration$/);
      await databases[side].query(/: (drop schema .*;)/.exec(said[1] ?? '')?.[1] ?? '');
      expect(await teardown(0)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
    },
  );

  test('the first version made it, and nobody came back for years', async () => {
    await onBoth(
      databases,
      `create table parent (id int primary key, v text);
       create table child (id int primary key, parent int references parent, v text);
       create function noted() returns trigger language plpgsql as 'begin return new; end';
       create trigger fires before insert on child for each row execute function noted()`,
    );
    const before = await objects();
    for (const side of ['source', 'target'] as const) await databases[side].query(await firstVersion(side));
    await databases.source.query(`insert into parent values (12, 'noted by it')`);
    expect((await objects())[1]).toContainEqual(expect.stringMatching(/^trigger D .* fires /));
    expect(await teardown(0)).toMatchObject({
      source: { left: 0, waiting: [], notRestored: [] },
      target: { left: 0, waiting: [], notRestored: [] },
    });
    expect(await objects()).toEqual(before);
  });

  test('a later version made it: refused, and nothing is touched', async () => {
    await expectCode(0, ['setup']);
    for (const side of ['source', 'target'] as const)
      await databases[side].query(
        `insert into ibex.migration (name, checksum) values ('${side}/tables/9999_later.sql', '')`,
      );
    const before = await objects();
    const { said } = await expectCode(3, ['teardown', '--yes']);
    expect(said).toEqual([
      expect.stringMatching(/^error: .*made by a later version \(source\/tables\/9999_later\.sql\)$/),
      '  Run that version of ibex, or a later one.',
    ]);
    expect(await objects()).toEqual(before);
  });
});

describe('a setup that was killed', () => {
  test('at random moments: a teardown leaves nothing, another setup completes it', async () => {
    const random = randomFrom(seedOf('killed setups'));
    await createBank();
    const before = await objects();
    const began = Date.now();
    await expectCode(0, ['setup']);
    const usual = Date.now() - began;
    await teardown(0);
    expect(await objects()).toEqual(before);
    for (let round = 0; round < MOMENTS; round++) {
      const setup = startIbex(['setup'], { env: urls() });
      await Promise.race([sleep(usual * (0.25 + 0.75 * random())), setup.exited]);
      await setup.kill9();
      if (round % 2 === 1) {
        await expectCode(0, ['setup']);
        await databases.source.query(`update account set balance = balance + 1 where id = 1`);
      }
      expect(await teardown(0)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
      expect(await objects(), `round ${round}`).toEqual(before);
    }
    // And it still works.
    await expectCode(0, ['run', '--until-caught-up', '--exclude', 'public.log']);
    expect(
      await compareTables(databases.source, databases.target, ['public.account', 'public.event']),
    ).toEqual([]);
    await teardown(0);
    expect(await objects()).toEqual(before);
  });
});

describe('a teardown that was killed', () => {
  test('at random moments under load: the next one completes it, and no write ever fails', async () => {
    const random = randomFrom(seedOf('killed teardowns'));
    await createBank();
    const before = await objects();
    load = await startLoad(databases.sourceUrl, { clients: 2 });
    await expectCode(0, ['setup']);
    const began = Date.now();
    await teardown(0);
    const usual = Date.now() - began;
    for (let round = 0; round < MOMENTS; round++) {
      await expectCode(0, ['setup']);
      const removing = startIbex(['teardown', '--yes'], { env: urls() });
      await Promise.race([sleep(usual * (0.25 + 0.75 * random())), removing.exited]);
      await removing.kill9();
      expect(await teardown(0)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
      expect(await objects(), `round ${round}`).toEqual(before);
      expect(load.errors).toEqual([]);
    }
  });
});
