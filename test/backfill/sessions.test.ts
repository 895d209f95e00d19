/** How many chunks are copied at once, and what that takes of the source's connections. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { planChunks, setUp } from '../support/chunks.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

/** One table of many chunks, whose rows the target does not take until it is let. */
async function prepare(): Promise<() => Promise<unknown>> {
  await onBoth(pair.databases, 'create table t (id int primary key, pad text)');
  await pair.source.query(`insert into t select i, repeat('x', 200) from generate_series(1, 5000) i`);
  await setUp(pair);
  await planChunks(pair, 64 * 1024);
  // The server ends a session a moment after its client, and counts it until then.
  await waitFor(async () => (await onSource()) === 0, { what: 'the sessions so far to be gone' });
  await pair.target.query('begin; lock table t in share mode');
  return () => pair.target.query('rollback');
}

/** Sessions that copy, as the target sees them waiting. */
async function copying(): Promise<number> {
  const { rowCount } = await pair.databases.targetAdmin.query(
    `select from pg_stat_activity
      where application_name = 'ibex:main:copy' and query like 'copy %' and wait_event_type = 'Lock'`,
  );
  return rowCount ?? 0;
}

async function onSource(): Promise<number> {
  const { rowCount } = await pair.databases.sourceAdmin.query(
    `select from pg_stat_activity where application_name like 'ibex:main:%'`,
  );
  return rowCount ?? 0;
}

test('one table is copied by all jobs', async () => {
  const release = await prepare();
  pair.start({ flags: { jobs: '5', maxSourceConnections: '20' } });
  await waitFor(async () => (await copying()) === 5, { what: 'five chunks to be copied at once' });
  await release();
  await pair.equal();
});

test('but by no more than there are connections for, over all processes', async () => {
  const release = await prepare();
  const others = await occupySource(1, 'ibex:main:other');
  const lines: string[] = [];
  pair.start({ flags: { jobs: '5', maxSourceConnections: '6' }, logTo: (line) => lines.push(line) });
  await waitFor(() => lines.some((line) => line.includes('copying with 2 of 5 jobs')), {
    what: 'to be told so',
  });
  await waitFor(async () => (await copying()) === 2, { what: 'both to copy' });
  expect(await onSource()).toBe(6);
  await release();
  await pair.equal();
  await others.end();
});

test('where the server refuses more, what is there goes on', async () => {
  const release = await prepare();
  const role = (await pair.source.query<{ role: string }>('select current_user as role')).rows[0]?.role;
  await pair.databases.sourceAdmin.query(`alter role ${role} connection limit 20`);
  const others = await occupySource(14, 'application');
  const lines: string[] = [];
  pair.start({ flags: { jobs: '8', maxSourceConnections: '20' }, logTo: (line) => lines.push(line) });
  await waitFor(() => lines.some((line) => line.includes('jobs for now')), { what: 'to be told so' });
  expect(
    lines.filter((line) => /copying with 2 of 8 jobs for now: .*too many connections/.test(line)),
  ).toHaveLength(1);
  await release();
  await others.end();
  await pair.equal();
});

/** Connections of the application, of the same role. */
async function occupySource(count: number, name: string) {
  const clients = Array.from(
    { length: count },
    () => new pg.Client({ connectionString: pair.databases.sourceUrl, application_name: name }),
  );
  for (const client of clients) {
    client.on('error', () => undefined);
    await client.connect();
  }
  return { end: () => Promise.all(clients.map((client) => client.end())) };
}
