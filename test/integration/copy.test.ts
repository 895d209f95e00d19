/** COPY towards a server that refuses half-way: the server's own error arrives, whenever it comes. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import { freshDatabases, useServers } from '../support/servers.ts';

const servers = await useServers();

test('a row that is in the way is told as what it is, also to a writer that was about to write more', async () => {
  const databases = await freshDatabases(servers);
  await databases.target.query('create table t (id int primary key, pad text); insert into t values (5)');
  const session = await Session.open({ url: databases.targetUrl, name: 'test' });
  const into = session.copyIn('copy public.t from stdin');
  const writing = async () => {
    for (let i = 0; i < 200; i++) {
      const rows = Array.from({ length: 100 }, (_, j) => `${i * 100 + j}\t${'x'.repeat(200)}\n`);
      await into.write(Buffer.from(rows.join('')));
      await sleep(1);
    }
    return into.end();
  };
  await expect(writing()).rejects.toMatchObject({ kind: 'constraint' });
  expect(await session.rows('select 1 as alive')).toEqual([{ alive: 1 }]);
  await session.close();
  await databases.dropAll();
});
