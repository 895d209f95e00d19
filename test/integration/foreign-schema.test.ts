/** An application may have a schema `ibex` of its own: it is refused, and never taken for ours. */
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { freshDatabases, useServers } from '../support/servers.ts';

const servers = await useServers();

test("somebody else's schema ibex is refused by setup, and left alone by teardown", async () => {
  const databases = await freshDatabases(servers);
  try {
    await databases.source.query(
      'create schema ibex; create table ibex.goat (id int primary key); insert into ibex.goat values (1)',
    );
    for (const side of [databases.source, databases.target])
      await side.query('create table t (id int primary key)');
    const env = { IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl };
    const setup = await ibex(['setup'], { env });
    expect(setup.stderr).toContain("the schema ibex is somebody else's");
    expect(setup.code).not.toBe(0);
    await ibex(['teardown', '--yes'], { env });
    expect((await databases.source.query('select id from ibex.goat')).rows).toEqual([{ id: 1 }]);
  } finally {
    await databases.dropAll();
  }
});
