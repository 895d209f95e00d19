/** That the reading of a batch never stands in the way of an application so that one of both has to fail. */
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers);

test('an application that locks one table after the other is not made to fail by a batch that reads both', async () => {
  await pair.inStep(
    'create table child (id int primary key, v text); create table parent (id int primary key, v text)',
    "insert into child values (1, 'a'); insert into parent values (1, 'a')",
  );
  await pair.sync.stop();
  await pair.source.query("insert into child values (2, 'b'); insert into parent values (2, 'b')");
  // Stands for the application. It looks for deadlocks before the reader would, and so is the one to fail.
  const application = pair.databases.sourceAdmin;
  await application.query(
    "set deadlock_timeout = '500ms'; begin; lock table parent in access exclusive mode",
  );
  pair.start();
  await waitFor(
    async () => {
      const { rows } = await pair.source.query(
        "select from pg_locks where relation = 'parent'::regclass and not granted",
      );
      return rows.length > 0;
    },
    { what: 'the reader to wait for the table' },
  );
  await application.query('truncate child; commit');
  await pair.source.query("insert into child values (3, 'c')");
  await pair.equal();
  expect((await pair.target.query('select id from child')).rows).toEqual([{ id: 3 }]);
});
