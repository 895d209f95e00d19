/**
 * What is staged of a large backlog goes out of date while the rest of it is read: rows change again, tables are
 * truncated, altered, copied anew. Whatever happens in between, the target becomes equal, and nothing is left behind.
 */
import { expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import { usePair } from '../support/pair.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { useServers, waitFor } from '../support/servers.ts';
import type { SyncOptions } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** The least that can be set: pieces of about 500 changes. */
const SMALL: SyncOptions = { flags: { stageAbove: '1000' } };

const pieces = async (): Promise<number> =>
  (await pair.target.query('select count(*)::int as n from ibex.piece')).rows[0].n;

/** Starts the daemon on a backlog, does something once two pieces are staged and a third is on its way, and lets it go on. */
async function whileStaging(work: () => Promise<unknown>): Promise<void> {
  await pair.target.query(`
    create function public.gate() returns trigger language plpgsql as $$
      begin if new.n > 2 then perform pg_advisory_xact_lock(4711); end if; return new; end $$;
    create trigger gate before insert on ibex.piece for each row execute function public.gate();
    select pg_advisory_lock(4711)`);
  pair.start(SMALL);
  await waitFor(async () => (await pieces()) === 2, { what: 'two pieces', timeout: 60_000 });
  await work();
  await pair.target.query('select pg_advisory_unlock(4711); drop function public.gate cascade');
}

/** Tables that keep pieces, and their entries. */
async function leftOfStages(): Promise<number> {
  const { rows } = await pair.target.query(`
    select (select count(*) from ibex.stage)::int + (select count(*) from pg_class where relname ~ '^stage_[0-9]+$')::int as n`);
  return rows[0].n;
}

/** In step, then stopped, then with a backlog. */
async function withBacklog(schema: string, rows: string, backlog: string): Promise<void> {
  await pair.inStep(schema, rows, SMALL);
  await pair.sync.stop();
  await pair.source.query(backlog);
}

test('rows that change again while others are staged, keys that are equal and look different, rows without a key', async () => {
  await withBacklog(
    `create table num (id numeric primary key, v int unique deferrable initially deferred);
     create table log (v int, note text)`,
    'insert into num select i, i from generate_series(1, 3000) i',
    `update num set v = -v; insert into log select i % 100, 'a' from generate_series(1, 3000) i`,
  );
  await whileStaging(() =>
    pair.source.query(`
      begin;
      update num set id = id::numeric(10, 2) where id between 100 and 300;
      update num set v = -3001 - v where id between 400 and 500 or id between 2501 and 2601;
      delete from num where id between 600 and 700;
      insert into num select i, i from generate_series(600, 650) i;
      update num set id = id + 10000 where id between 2900 and 3000;
      delete from log where v between 10 and 20;
      insert into log select 15, 'b' from generate_series(1, 30);
      commit`),
  );
  await pair.equal();
  expect(await leftOfStages()).toBe(0);
});

test('the status says how much of a backlog is staged', async () => {
  await withBacklog(
    'create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 3000) i',
    'update t set v = -v',
  );
  await whileStaging(async () => {
    const [backlog] = (await pair.sync.status()).backlogs;
    expect(backlog).toMatchObject({ table: 'public.t' });
    expect(backlog?.staged).toBeGreaterThan(0);
    // Of each row two deltas: the key of the old one and of the new one.
    expect((backlog?.staged ?? 0) + (backlog?.left ?? 0)).toBe(6000);
    expect(backlog?.secondsLeft).toBeGreaterThan(0);
  });
  await pair.equal();
  expect((await pair.sync.status()).backlogs).toEqual([]);
});

/** Written in two parts. */
const LARGE = 200_000;

test('the status, the metrics and the log say how far the merge is, which is one transaction', async () => {
  const lines: string[] = [];
  const port = await freePort();
  await withBacklog(
    'create table t (id int primary key, v int); create table u (id int primary key, v int)',
    `insert into t select i, i from generate_series(1, ${LARGE}) i; insert into u select i, i from generate_series(1, 3000) i`,
    'update t set v = -v; update u set v = -v',
  );
  await pair.target.query(`begin; select from t where id = ${LARGE} for update`);
  pair.start({
    flags: { stageAbove: '100000', listen: `127.0.0.1:${port}` },
    logTo: (line) => lines.push(line),
  });
  const mergeOf = async () => (await pair.sync.status()).merge;
  await waitFor(async () => (await mergeOf())?.secondsLeft != null, {
    what: 'the first part of a merge',
    timeout: 90_000,
  });
  const merge = await mergeOf();
  expect(merge).toMatchObject({ step: 'write', table: 'public.t', tables: { all: 2 } });
  expect(merge?.rows?.all).toBe(LARGE + 3000);
  // The part with the row that is locked is not done; those before it are.
  expect(merge?.rows?.done).toBeGreaterThan(0);
  expect(merge?.rows?.done).toBeLessThan(LARGE);
  expect(lines.join('')).toMatch(/public\.t: a large backlog is merged: [\d,]+ of 203,000 rows/);
  const metrics = async () => (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
  expect(await metrics()).toContain(`ibex_merge_rows{sync="main",kind="written"} ${merge?.rows?.done}`);
  const seen = await pair.databases.targetAdmin.query('select count(*)::int as n from t where v < 0');
  expect(seen.rows).toEqual([{ n: 0 }]);
  await pair.target.query('commit');
  await pair.equal();
  await waitFor(async () => (await mergeOf()) === null, { what: 'the merge to be over' });
  expect(await metrics()).not.toContain('ibex_merge_rows{');
});

test.for([
  ['truncated', 'truncate t; insert into t select i, 7 from generate_series(2000, 2100) i'],
  [
    'truncated and filled with another backlog',
    'truncate t; insert into t select i, 8 from generate_series(1, 4000) i',
  ],
])('a table that is %s after a part of it was staged', async ([, change]) => {
  await withBacklog(
    'create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 3000) i',
    'update t set v = -v',
  );
  await whileStaging(() => pair.source.query(change as string));
  await pair.equal();
  expect(await leftOfStages()).toBe(0);
});

test('a column that comes on both sides after a part was staged without it', async () => {
  await withBacklog(
    'create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 3000) i',
    'update t set v = -v',
  );
  await whileStaging(async () => {
    await pair.target.query('alter table t add w int default 5');
    await pair.source.query('alter table t add w int default 5; update t set w = id where id < 1000');
  });
  await pair.becomesEqual();
  await pair.equal();
});

test('a partition that goes, and comes back changed, after a part of the table was staged', async () => {
  await withBacklog(
    `create table p (id int primary key, v int) partition by range (id);
     create table p1 partition of p for values from (0) to (1500);
     create table p2 partition of p for values from (1500) to (5000)`,
    'insert into p select i, i from generate_series(1, 3000) i',
    'update p set v = -v',
  );
  await whileStaging(() =>
    pair.source.query(`alter table p detach partition p1; update p1 set v = 0 where id < 500; delete from p1 where id > 700;
      alter table p attach partition p1 for values from (0) to (1500)`),
  );
  await pair.becomesEqual();
  await pair.equal();
  await pair.sync.stop();
  pair.start(SMALL);
  await pair.equal();
  expect(await leftOfStages()).toBe(0);
});

test('a backlog that the target refuses holds its table only, is staged anew from where it stopped, and arrives', async () => {
  await withBacklog(
    'create table t (id int primary key, v int); create table u (id int primary key)',
    'insert into t select i, i from generate_series(1, 3000) i',
    'update t set v = -v',
  );
  await pair.target.query('alter table t add constraint no check (v > -2500)');
  pair.start(SMALL);
  await waitFor(async () => (await pair.sync.status()).tables.some(({ state }) => state === 'held'), {
    what: 'the table to be held',
    timeout: 60_000,
  });
  await pair.source.query('insert into u values (1)');
  await waitFor(async () => (await pair.target.query('select from u')).rowCount === 1, {
    what: 'the other table to go on',
    timeout: 60_000,
  });
  await pair.source.query('update t set v = v - 1 where id < 2000');
  await pair.target.query('alter table t drop constraint no');
  await pair.becomesEqual();
  await pair.equal();
  expect(await leftOfStages()).toBe(0);
});

test('backlogs of all kinds of tables, in rounds, with the daemon stopped in the middle', async () => {
  const random = randomFrom(seedOf('backlogs'));
  const some = (below: number) => Math.floor(random() * below);
  await pair.inStep(
    `create table t (id int primary key, v int);
     create table log (v int, note text);
     create table p (id int, r int, v int, primary key (id, r)) partition by list (r);
     create table p0 partition of p for values in (0);
     create table p1 partition of p for values in (1)`,
    `insert into t select i, i from generate_series(1, 2000) i;
     insert into p select i, i % 2, i from generate_series(1, 2000) i`,
    SMALL,
  );
  const writes = [
    () => `update t set v = v + 1 where id % ${1 + some(3)} = 0`,
    () =>
      `update t set id = -id where id between ${some(1000)} and ${some(2000)} and not exists (select from t q where q.id = -t.id)`,
    () => `insert into log select i % 50, 'x' from generate_series(1, ${some(2500)}) i`,
    () => `delete from log where v < ${some(50)}`,
    () =>
      `update p set r = 1 - r where id % ${2 + some(3)} = 0 and not exists (select from p q where q.id = p.id and q.r <> p.r)`,
    () => `delete from p where id % ${3 + some(5)} = 0`,
    () =>
      `insert into p select i, ${some(2)}, 0 from generate_series(1, ${some(3000)}) i on conflict do nothing`,
    () => (random() < 0.3 ? `truncate ${['t', 'log', 'p', 'p0'][some(4)]}` : 'select'),
    () =>
      `insert into t select i, 0 from generate_series(1, ${some(3000)}) i on conflict (id) do update set v = 9`,
  ];
  for (let round = 0; round < 8; round++) {
    const stopped = random() < 0.6;
    if (stopped) await pair.sync.stop();
    for (let i = 0; i < 6; i++) await pair.source.query((writes[some(writes.length)] as () => string)());
    if (stopped) pair.start(SMALL);
    for (let i = 0; i < 3; i++) await pair.source.query((writes[some(writes.length)] as () => string)());
  }
  await pair.equal();
  expect(await leftOfStages()).toBe(0);
});
