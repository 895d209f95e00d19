/** The statements that README hands out for sequence values, until Ibex carries them itself. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { freshDatabases, useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const STATEMENTS = readFileSync(new URL('../../docs/sequences.sql', import.meta.url), 'utf8');

test('sequences of every kind are moved to where the source stands, never backwards', async () => {
  const databases = await freshDatabases(servers);
  const { source, target } = databases;
  await onBoth(
    databases,
    `create table t (id bigint generated always as identity, n serial);
     create sequence "Odd ""name"" 'x'"; create sequence down increment -1; create sequence ahead; create sequence unused`,
  );
  await source.query(`insert into t select from generate_series(1, 7);
    select nextval('"Odd ""name"" ''x''"'), nextval('down'), nextval('down'), nextval('ahead')`);
  await target.query(`select setval('ahead', 50)`);
  const { rows } = await source.query<{ format: string }>(STATEMENTS);
  for (const { format } of rows) await target.query(format);
  const last = async (name: string) =>
    Number((await target.query(`select last_value from ${name}`)).rows[0].last_value);
  expect(await last('t_id_seq')).toBe(7);
  expect(await last('t_n_seq')).toBe(7);
  expect(await last(`"Odd ""name"" 'x'"`)).toBe(1);
  expect(await last('down')).toBe(-2);
  expect(await last('ahead')).toBe(50);
  expect((await target.query(`select is_called from unused`)).rows[0].is_called).toBe(false);
  await databases.dropAll();
});
