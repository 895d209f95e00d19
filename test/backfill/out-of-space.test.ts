/**
 * A target that runs out of space: the daemon waits, says what for, and goes on by itself. A constraint that fails the
 * way a full disk does stands for one.
 */
import { expect, test } from 'vitest';
import { ibex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth, TEST_PAUSES } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const FULL = /No space left on device/;

/** From the given row on there is no room on the target for the rows of `big`. */
const FILL_DISK = `
  create function room() returns bool language plpgsql as $$ begin
    raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = 'disk_full'; end $$;
  alter table big add constraint room check (id < 100 or room());`;
const MAKE_ROOM = 'alter table big drop constraint room; drop function room()';

async function said(): Promise<string> {
  return (await pair.sync.status()).why.join('\n');
}

test('a copy waits for space, beside tables for which there is enough', async () => {
  await onBoth(
    pair.databases,
    'create table big (id int primary key, v int); create table small (id int primary key)',
  );
  await pair.source.query(
    'insert into big select i, 0 from generate_series(1, 1000) i; insert into small values (1)',
  );
  await pair.target.query(FILL_DISK);
  const lines: string[] = [];
  const began = Date.now();
  pair.start({ logTo: (line) => lines.push(line) });
  await waitFor(async () => FULL.test(await said()), { what: 'status to say that the disk is full' });
  await waitFor(
    async () =>
      (await pair.sync.status()).tables.find(({ table }) => table === 'public.small')?.state === 'streaming',
    { what: 'the other table' },
  );
  await pair.source.query('insert into small values (2); update big set v = 1 where id = 7');
  await waitFor(async () => (await pair.target.query('select from small')).rowCount === 2, {
    what: 'its changes',
  });
  // With a pause before each try but the first: no more of them than fit into the time that it took.
  const tries = lines.filter((line) => FULL.test(line)).length;
  expect(tries).toBeLessThanOrEqual(1 + (Date.now() - began) / TEST_PAUSES.copy);
  await pair.target.query(MAKE_ROOM);
  await pair.becomesEqual();
  await pair.equal();
  expect(await said()).toBe('');
});

test('a backfill that is to come to an end says so, and goes on when it is called again', async () => {
  await onBoth(pair.databases, 'create table big (id int primary key, v int)');
  await pair.source.query('insert into big select i, 0 from generate_series(1, 1000) i');
  await pair.target.query(FILL_DISK);
  const { sourceUrl, targetUrl } = pair.databases;
  const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
  const refused = await ibex(['backfill'], { env });
  expect(refused.code).toBe(1);
  expect(refused.stdout + refused.stderr).toMatch(FULL);
  await pair.target.query(MAKE_ROOM);
  expect((await ibex(['backfill'], { env })).code).toBe(0);
});

test('changes wait for space on the source, and nobody has to do anything else', async () => {
  await pair.inStep(
    'create table big (id int primary key, v int)',
    'insert into big select i, 0 from generate_series(1, 50) i',
  );
  await pair.target.query(FILL_DISK);
  await pair.source.query(
    'insert into big select i, 0 from generate_series(51, 150) i; update big set v = 2 where id < 10',
  );
  await waitFor(async () => FULL.test(await said()), { what: 'status to say that the disk is full' });
  expect((await pair.sync.status()).tables[0]).toMatchObject({ state: 'streaming', reason: null });
  await pair.target.query(MAKE_ROOM);
  await pair.equal();
  await waitFor(async () => (await said()) === '', { what: 'status to be content' });
});
