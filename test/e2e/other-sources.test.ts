/**
 * Servers under the source's name that are not, or not any more, the source: each is recognised, nothing is written to it
 * or carried from it, the way out is named, and leads out.
 */
import { execFile } from 'node:child_process';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../../src/embedded/cluster.ts';
import { type IbexResult, ibex, startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, waitFor } from '../support/servers.ts';

let source: Cluster;
let target: Cluster;
let databases: Databases;
/** Where the settings say that the URL of the source stands. */
let urlFile: string;

const SCHEMA = 'create table t (id int primary key, v int); create table log (id int)';
const START_ANEW = /ibex teardown --yes.*ibex run --existing replace/;

beforeAll(async () => {
  [source, target] = await Promise.all([
    startCluster({ name: 'source', settings: { fsync: 'off' } }),
    startCluster({ name: 'target', settings: { fsync: 'off' } }),
  ]);
  databases = await freshDatabases({ source, target });
  urlFile = join(target.directory, 'source-url');
  await writeFile(urlFile, databases.sourceUrl);
  await databases.target.query(SCHEMA);
  await onSource(`${SCHEMA}; insert into t select i, i from generate_series(1, 100) i`);
});

afterAll(async () => {
  await Promise.all([source?.remove(), target?.remove()]);
});

const env = () => ({ IBEX_SOURCE_URL_FILE: urlFile, IBEX_TARGET_URL: databases.targetUrl });
const run = () => startIbex(['run', '--log-format', 'json'], { env: env() });
const call = (...args: string[]) => ibex(args, { env: env() });

/** As the owner, over a connection of its own: the server may have been another one before. */
async function onSource(sql: string, url = databases.sourceUrl): Promise<pg.QueryResult> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}

async function expectEqual(url = databases.sourceUrl): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  expect(await compareTables(client, databases.target)).toEqual([]);
  await client.end();
}

/** Everything that the daemon has, whatever `log` holds, is on the target. */
async function carry(id: number): Promise<void> {
  await onSource(`insert into log values (${id}); update t set v = v + 1 where id <= 10`);
  await waitFor(
    async () => (await databases.target.query('select from log where id = $1', [id])).rowCount === 1,
    { what: `row ${id} on the target`, timeout: 60_000 },
  );
}

function expectRefusal(
  { code, said }: Pick<IbexResult, 'code' | 'said'>,
  what: RegExp,
  remedy: RegExp,
): void {
  expect(said[0]).toMatch(what);
  expect(said[1]).toMatch(remedy);
  expect(code).toBe(3);
}

/** By the daemon and by whoever asks meanwhile; `status` has to say why. */
async function expectRefused(what: RegExp, remedy: RegExp): Promise<void> {
  const calls = ['run', 'wait'].map((command) => call(command));
  for (const refused of await Promise.all(calls)) expectRefusal(refused, what, remedy);
  const status = await call('status', '--json');
  expect(status.code).toBe(1);
  const [{ verdict, why }] = JSON.parse(status.stdout);
  expect([verdict, why[0]]).toEqual(['NOT READY', expect.stringMatching(what)]);
  expect(why[0]).toMatch(remedy);
}

const targetRows = async () =>
  (await databases.target.query('select (select sum(v) from t) as t, (select count(*) from log) as log'))
    .rows[0];

test('another cluster: nothing is set up on it', async () => {
  await using daemon = run();
  await carry(1);
  expect((await daemon.stop()).code).toBe(0);
  const other = (await freshDatabases({ source: target, target: source })) as Databases;
  await other.source.query(SCHEMA);
  await writeFile(urlFile, other.sourceUrl);
  const before = await targetRows();
  await expectRefused(/system identifier \d+ instead of \d+/, START_ANEW);
  expect((await other.source.query(`select to_regnamespace('ibex') as ibex`)).rows).toEqual([{ ibex: null }]);
  expect(await targetRows()).toEqual(before);
  await writeFile(urlFile, databases.sourceUrl);
  await other.dropAll();
});

test.each(['source', 'target'])('a schema ibex on the %s that a later version made', async (side) => {
  const later = `insert into ibex.migration (name, checksum) values ('${side}/tables/9999_later.sql', '')`;
  const query = (sql: string) => (side === 'source' ? onSource(sql) : databases.target.query(sql));
  await query(later);
  for (const command of ['run', 'status'])
    expectRefusal(
      await call(command),
      /was made by a later version \(\w+\/tables\/9999_later/,
      /that version of ibex/,
    );
  await query(`delete from ibex.migration where name like '%later.sql'`);
});

test('files from before, put back: by the transaction counter, and when it has overtaken the checkpoint, too', async () => {
  const [data, older, newer] = ['data', 'older', 'newer'].map((name) => join(source.directory, name)) as [
    string,
    string,
    string,
  ];
  await using daemon = run();
  await carry(2);
  await source.stop();
  await promisify(execFile)('cp', ['-a', data, older]);
  await source.start();
  await carry(3);
  // What the source notes while a daemon runs, as the checkpoint has it.
  const noted = async () =>
    Number((await databases.target.query('select witness from ibex.checkpoint')).rows[0].witness);
  const { rows } = await onSource('select witness from ibex.source_sync');
  await waitFor(async () => (await noted()) >= Number(rows[0].witness) && (await noted()) > 1, {
    what: 'a batch that has seen the witness',
    timeout: 60_000,
  });
  expect((await daemon.stop()).code).toBe(0);
  const before = await targetRows();
  await source.stop();
  await rename(data, newer);
  await rename(older, data);
  await source.start();
  await expectRefused(/its transaction counter is behind the checkpoint/, START_ANEW);
  await onSource('do $$ begin for i in 1..3000 loop perform txid_current(); commit; end loop; end $$');
  await expectRefused(/has forgotten what was written to its schema ibex/, START_ANEW);
  expect(await targetRows()).toEqual(before);
  // With its own files again all is well.
  await source.stop();
  await rm(data, { recursive: true });
  await rename(newer, data);
  await source.start();
  expect((await call('run', '--until-caught-up')).code).toBe(0);
  await expectEqual();
});

test('a standby that is promoted without the last transactions, and the way out', async () => {
  await source.stop();
  await using standby = await startCluster({
    name: 'standby',
    settings: { fsync: 'off' },
    standbyOf: source,
  });
  await source.start();
  const promotedUrl = Object.assign(new URL(databases.sourceUrl), { port: String(standby.port) }).href;
  await using daemon = run();
  await carry(4);
  await waitFor(async () => (await onSource('select from log where id = 4', promotedUrl)).rowCount === 1, {
    what: 'the standby to follow',
    timeout: 60_000,
  });
  await standby.stop();
  await carry(5);
  await source.stop();
  await standby.start();
  // The name leads to the standby before it is promoted: that may pass, and is waited for.
  await writeFile(urlFile, promotedUrl);
  await daemon.waitForLog(/is a standby/, 90_000);
  expect((await call('status', '--json')).stdout).toMatch(/is a standby/);
  await onSource('select pg_promote(true, 60)', Object.assign(new URL(standby.superuserUrl)).href);
  expect(await daemon.exited).toBe(3);
  expectRefusal({ code: 3, said: daemon.said }, /timeline 2 instead of 1/, START_ANEW);
  await expectRefused(/timeline 2 instead of 1.*may be on the target only/, START_ANEW);
  expect((await databases.target.query('select from log where id = 5')).rowCount).toBe(1);
  expect((await call('teardown', '--yes')).code).toBe(0);
  expect((await call('run', '--existing', 'replace', '--until-caught-up')).code).toBe(0);
  await expectEqual(promotedUrl);
  expect((await databases.target.query('select from log where id = 5')).rowCount).toBe(0);
});
