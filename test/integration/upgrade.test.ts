/** A source that another version of the program has prepared. */
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

test('trigger functions of tables that are armed already become those of this version', async () => {
  await onBoth(
    pair.databases,
    `create table t (id int primary key, v text); create table log (at timestamp, v text);
     create table part (id int primary key) partition by range (id)`,
  );
  const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
  const setup = async () => expect(await ibex(['setup'], { env })).toMatchObject({ code: 0 });
  const functions = async () => {
    const { rows } = await pair.source.query<{
      name: string;
      body: string;
      settings: string[];
      rights: string;
    }>(
      `select proname::text as name, prosrc as body, proconfig as settings, proacl::text as rights from pg_proc
        where pronamespace = 'ibex'::regnamespace and prorettype = 'trigger'::regtype order by 1`,
    );
    return rows;
  };
  await setup();
  const ours = await functions();
  for (const { name } of ours)
    await pair.source.query(
      `create or replace function ibex.${name}() returns trigger language plpgsql security definer
       as 'begin return null; end'`,
    );
  await pair.source.query(
    `update ibex.migration set checksum = 'another' where name like '%/write_functions.sql'`,
  );
  await setup();
  expect(ours.length).toBe(13);
  expect(await functions()).toEqual(ours);
});
