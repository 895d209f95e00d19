/** DDL under a running sync after which rows have no place on the target: the table waits and says for what. */
import { expect, test } from 'vitest';
import { remedyOf, runRemedy, versionsOf } from '../support/drift.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

/** What happens on one side to a table of its name, and whether what is on the target can stay there. */
const CASES: Record<string, { source?: string; target?: string; names: RegExp; stays?: boolean }> = {
  added: {
    source: `alter table added add column "Size ""x""" varchar(17) default 'x;y' not null, add p numeric(12,3)[]`,
    names:
      /^alter table public\.added add column "Size ""x""" character varying\(17\) default 'x;y'.* not null, add column p numeric\(12,3\)\[\];$/,
    stays: true,
  },
  typed: {
    source: `create type mood as enum ('glad', 'it''s'); alter table typed add m mood default 'it''s'`,
    names:
      /^create type public\.mood as enum \('glad', 'it''s'\); alter table public\.typed add column m public\.mood/,
    stays: true,
  },
  column_renamed: {
    source: 'alter table column_renamed rename v to "V w"',
    names: /^alter table public\.column_renamed rename column v to "V w";$/,
    stays: true,
  },
  taken_back: {
    source: 'alter table taken_back rename v to w',
    names: /^alter table public\.taken_back rename column v to w;$/,
    stays: true,
  },
  taken_over: {
    source: 'alter table taken_over rename v to old; alter table taken_over add v int default 5',
    names: /^alter table public\.taken_over rename column v to old;$/,
  },
  renamed: {
    source: 'alter table renamed rename to "Other name"',
    names: /^alter table public\.renamed rename to "Other name";$/,
    stays: true,
  },
  moved: {
    source: 'create schema "New"; alter table moved set schema "New"',
    names: /^create schema "New"; alter table public\.moved set schema "New";$/,
    stays: true,
  },
  widened: {
    source: `alter table widened alter n type bigint; insert into widened values (100, 'big', 5000000000)`,
    names: /^alter table public\.widened alter column n type bigint;$/,
  },
  lost_column: {
    target: 'alter table lost_column drop column v',
    names: /^alter table public\.lost_column add column v text;$/,
  },
  target_column_renamed: {
    target: 'alter table target_column_renamed rename v to w',
    names: /^alter table public\.target_column_renamed rename column w to v;$/,
    stays: true,
  },
  lost: {
    target: 'drop table lost',
    names: /^create table public\.lost \(id integer not null, v text, n integer, PRIMARY KEY \(id\)\);$/,
  },
  target_renamed: {
    target: 'alter table target_renamed rename to something',
    names: /^alter table public\.something rename to target_renamed;$/,
    stays: true,
  },
};

const NAMES = Object.keys(CASES);

/** What the source calls the table by now. */
function nameOf(name: string): string {
  return { renamed: 'public.Other name', moved: 'New.moved' }[name] ?? `public.${name}`;
}

const ident = (name: string) =>
  nameOf(name)
    .replace(/\.(.*)/, '."$1"')
    .replace('New', '"New"');

async function stateOf(name: string): Promise<string | undefined> {
  return (await pair.sync.status()).tables.find(({ table }) => table === name)?.state;
}

test('what has no place on the target is held with the DDL to run there, alone, and goes on once that was run', async () => {
  await pair.inStep(
    ['bystander', ...NAMES]
      .map((name) => `create table ${name} (id int primary key, v text, n int)`)
      .join(';'),
    ['bystander', ...NAMES]
      .map((name) => `insert into ${name} select i, 'v' || i, i from generate_series(1, 40) i`)
      .join(';'),
  );
  const versions = new Map<string, string>();
  for (const name of NAMES) versions.set(name, await versionsOf(pair.target, `public.${name}`));
  for (const name of NAMES) {
    const { source, target } = CASES[name] as (typeof CASES)[string];
    await pair.source.query(`update public.${name} set n = 1000 where id = 1`);
    if (source !== undefined) await pair.source.query(source);
    if (target !== undefined) await pair.target.query(target);
    await pair.source.query(
      `insert into ${ident(name)} (id, n) values (200, 7); delete from ${ident(name)} where id = 40`,
    );
  }
  const said: Record<string, string> = {};
  for (const name of NAMES) said[name] = await remedyOf(pair, nameOf(name));
  for (const name of NAMES) expect(said[name]).toMatch((CASES[name] as (typeof CASES)[string]).names);
  await pair.source.query(`insert into bystander values (999, 'goes on', 1)`);
  await expect(pair.sync.caughtUp()).rejects.toThrow(/held|on the target/);
  expect((await pair.target.query('select from bystander where id = 999')).rowCount).toBe(1);

  // Before anything is done on the target, which would have all tables looked at anew.
  await pair.source.query('alter table taken_back rename w to v');
  await waitFor(async () => (await stateOf('public.taken_back')) === 'streaming', {
    what: 'taken_back to go on',
  });
  for (const name of NAMES.filter((one) => one !== 'taken_back')) await runRemedy(pair, nameOf(name));
  // A column whose name another one has now comes in two steps.
  await runRemedy(pair, 'public.taken_over', /^alter table public\.taken_over add column v integer/);
  await pair.becomesEqual();
  await pair.equal();
  await pair.ready();
  for (const name of NAMES.filter((one) => CASES[one]?.stays)) {
    const [before, now] = [versions.get(name), await versionsOf(pair.target, ident(name))].map((all) =>
      all?.split(', '),
    );
    // Rows 2 to 39 were not written again, unless a new column had to get its value.
    if (name !== 'added' && name !== 'typed') expect(now?.slice(0, 38), name).toEqual(before?.slice(1, 39));
  }
});
