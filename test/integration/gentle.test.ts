/** Copying that leaves room for others: a limited rate, and a busy source. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const MB = 1_000_000;

/** Rows whose COPY bytes are about so many. */
async function fill(bytes: number): Promise<void> {
  await onBoth(pair.databases, 'create table big (id int primary key, pad text)');
  await pair.source.query(
    `insert into big select i, repeat('x', 1000) from generate_series(1, ${bytes / 1000}) i`,
  );
}

/** Sessions of the application that run a statement for as long as they are there. */
async function occupy(sessions: number): Promise<() => Promise<void>> {
  const clients = Array.from(
    { length: sessions },
    () => new pg.Client({ connectionString: pair.databases.sourceUrl }),
  );
  for (const client of clients) {
    client.on('error', () => undefined);
    await client.connect();
    client.query('select pg_sleep(600)').catch(() => undefined);
  }
  return async () => {
    await pair.source.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(600)'`,
    );
  };
}

test('a limited rate is kept by everything that copies', async () => {
  await fill(3 * MB);
  const began = Date.now();
  pair.start({ flags: { limitMbps: '1.5' } });
  await pair.equal();
  // The lower bound only: how long it takes at the most is a matter of the machine.
  expect(Date.now() - began).toBeGreaterThan(1800);
});

test('beside a busy source it holds back, says so once, and returns by itself', async () => {
  await fill(MB);
  // The copy lasts until it is let go.
  await pair.target.query('begin; lock table big in share mode');
  // As some providers do.
  await pair.databases.sourceAdmin.query('revoke execute on function pg_current_wal_lsn() from public');
  const lines: string[] = [];
  const said = (what: RegExp) => lines.filter((line) => what.test(line)).length;
  const release = await occupy(3);
  pair.start({ flags: { busySessions: '2' }, logTo: (line) => lines.push(line) });
  const slowed = await waitFor(async () => (await pair.sync.status()).slowed, {
    what: 'the copy to hold back',
  });
  // Those who look at the status are sessions, too.
  expect(slowed?.why).toMatch(/^\d sessions are active there$/);
  await release();
  await waitFor(async () => (await pair.sync.status()).slowed === null, { what: 'the copy to go on' });
  expect([said(/the source is busy, \d sessions/), said(/the source is calm again/)]).toEqual([1, 1]);
  await pair.target.query('rollback');
  await pair.equal();
});
