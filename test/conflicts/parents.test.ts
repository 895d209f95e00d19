/** A parent that one side removed and the other gave a child: nothing is decided in silence. */
import { describe, expect, test } from 'vitest';
import { useServers, waitFor } from '../support/servers.ts';
import { useTwoWay } from '../support/two-way.ts';

const servers = await useServers();

describe.each([true, false])('where the role may be a replica: %s', (replica) => {
  const nodes = useTwoWay(servers, { replica });

  test('both lanes say that it does not hold, and the child is still there', async () => {
    await nodes.inStep(
      'create table parent (id int primary key); create table child (id int primary key, parent int references parent)',
      'insert into parent values (1), (2)',
    );
    await nodes.apart(async () => {
      await nodes.a.query('insert into child values (10, 1)');
      await nodes.b.query('delete from parent where id = 1');
    });
    const says = async () =>
      (await nodes.status()).map(({ why }) => why.some((one) => /foreign key/.test(one)));
    await waitFor(async () => (await says()).every(Boolean), {
      what: 'both lanes to say what is the matter',
    });
    const { rows } = await nodes.a.query('select id from child');
    expect(rows).toEqual([{ id: 10 }]);
  });
});
