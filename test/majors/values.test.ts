/** Values and types that only the newer of two majors knows: carried as text where there is room, else held by name. */
import { describe, test } from 'vitest';
import { canStart } from '../support/majors.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

describe.skipIf(!canStart(18, 12))('from PostgreSQL 18 to 12', async () => {
  const servers = await useServers({}, [18, 12]);
  const pair = usePair(servers);

  /** The reasons of the tables that are held, by name. */
  const reasons = async () =>
    new Map(
      (await pair.sync.status()).tables.flatMap(({ table, reason }) => (reason ? [[table, reason]] : [])),
    );
  /** Waits until exactly these tables are held, for these reasons. One look: a held table is free while it is tried. */
  const areHeld = (expected: Record<string, string>) =>
    waitFor(
      async () => {
        const found = await reasons();
        return (
          [...found.keys()].sort().join() === Object.keys(expected).join() &&
          Object.entries(expected).every(([table, reason]) => found.get(table)?.includes(reason))
        );
      },
      { what: `held: ${JSON.stringify(expected)}` },
    );

  test('a value that the target cannot hold holds its table by name, while it streams and while it is copied', async () => {
    await onBoth(
      pair.databases,
      `create table amount (id int primary key, n numeric);
       create table calm (id int primary key, i interval, n numeric);
       create table copied (id int primary key, n numeric[]);
       create table endless (id int primary key, i interval)`,
    );
    await pair.source.query(
      `insert into amount values (1, 'NaN'); insert into calm values (1, '1 day', 'NaN');
       insert into copied values (1, '{1,Infinity}'); insert into endless values (1, '1 day')`,
    );
    pair.start();
    const copied = { 'public.copied': 'numeric: "Infinity"' };
    await areHeld(copied);
    await pair.source.query("insert into endless values (2, 'infinity'); insert into calm values (2)");
    await pair.source.query("insert into amount values (2, '-Infinity'); insert into calm values (3)");
    await areHeld({
      'public.amount': 'numeric: "-Infinity"',
      ...copied,
      'public.endless': 'interval: "infinity"',
    });

    await pair.source.query("insert into calm values (4, '-1 year', 1e-5)");
    await pair.becomesEqual(['public.calm']);
    await pair.source.query(
      `delete from endless where id = 2; update amount set n = 0 where id = 2; update copied set n = '{}'`,
    );
    await pair.becomesEqual();
  });

  test('types that the target lacks arrive as text where its column is text', async () => {
    const table = (id: string, ranges: string, snapshot: string) =>
      `create table newer (id ${id} primary key, r ${ranges}, s ${snapshot}, v text)`;
    await pair.source.query(table('xid8', 'int4multirange', 'pg_snapshot'));
    await pair.target.query(table('text', 'text', 'text'));
    const row = "'18446744073709551615', '{[1,3),[5,)}', '10:20:10,14', 'a'";
    await pair.source.query(`insert into newer values (${row}), ('7', '{}', null, 'b')`);
    pair.start();
    await pair.equal();
    await pair.source.query(
      "update newer set r = '{[2,4)}', id = '8' where v = 'a'; insert into newer values ('9')",
    );
    await pair.equal();
  });
});
