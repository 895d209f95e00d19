/** The way to the servers: poolers before either side, and the application's own connection. */
import { afterEach, describe, expect, test } from 'vitest';
import { usePair } from '../support/pair.ts';
import {
  findPgBouncer,
  type PgBouncer,
  type PgBouncerOptions,
  startPgBouncer,
} from '../support/pgbouncer.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { errorsOf, examine, findingsOf, remedy } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);
const program = findPgBouncer();
let pooler: PgBouncer | undefined;

afterEach(async () => {
  await pooler?.stop();
  pooler = undefined;
});

/** The source's URL by way of a pooler. */
async function through(mode: PgBouncerOptions['mode']): Promise<string> {
  const { sourceUrl } = pair.databases;
  const { username, password } = new URL(sourceUrl);
  const users = { [username]: decodeURIComponent(password) };
  pooler = await startPgBouncer(program as string, { to: servers.source.port, mode, users });
  return pooler.through(sourceUrl);
}

describe.skipIf(program === undefined)('a pooler', () => {
  test('that gives out transactions cannot be used, but the application may', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key)');
    const url = await through('transaction');
    const { findings } = await examine({ ...pair.databases, sourceUrl: url });
    expect(findings).toMatchObject([{ severity: 'error', check: 'pooler', side: 'source' }]);
    const app = await examine(pair.databases, { appUrl: url });
    expect(errorsOf(app)).toEqual([]);
    expect(findingsOf(app, 'app-pooler')).toHaveLength(1);
    expect(findingsOf(app, 'app-database')).toMatchObject([{ severity: 'info' }]);
  });

  test('that gives out sessions is told', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key)');
    const diagnosis = await examine({ ...pair.databases, sourceUrl: await through('session') });
    expect(errorsOf(diagnosis)).toEqual([]);
    expect(findingsOf(diagnosis, 'pooler')).toMatchObject([{ severity: 'warning', side: 'source' }]);
  });
});

describe('the application', () => {
  test('writes to another database than the source', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key)');
    const diagnosis = await examine(pair.databases, { appUrl: pair.databases.targetUrl });
    expect(errorsOf(diagnosis)).toEqual([
      expect.stringMatching(/is not the source: what the application writes there is not captured$/),
    ]);
  });

  test('has a role whose settings switch things off, or one that may do everything', async () => {
    await onBoth(pair.databases, 'create table t (id int primary key)');
    const { sourceUrl, sourceAdmin } = pair.databases;
    const url = new URL(sourceUrl);
    const database = url.pathname.slice(1);
    const role = `${database}_web`;
    await sourceAdmin.query(`create role ${role} login password 'pw';
      alter role ${role} in database ${database} set session_replication_role to replica;
      alter role ${role} in database ${database} set default_transaction_read_only to on`);
    [url.username, url.password] = [role, 'pw'];
    try {
      const first = await examine(pair.databases, { appUrl: url.href });
      const odd = findingsOf(first, 'app-role');
      expect(odd.map(({ what }) => what)).toEqual([
        expect.stringMatching(/writes with session_replication_role = replica/),
        expect.stringMatching(/are read-only by default/),
      ]);
      expect(errorsOf(first)).toEqual([]);
      for (const finding of odd) await remedy(finding, pair.databases);
      expect(findingsOf(await examine(pair.databases, { appUrl: url.href }), 'app-role')).toEqual([]);
      await sourceAdmin.query(`alter role ${role} superuser`);
      expect(findingsOf(await examine(pair.databases, { appUrl: url.href }), 'app-role')).toMatchObject([
        { what: expect.stringMatching(/is a superuser/) },
      ]);
    } finally {
      await sourceAdmin.query(`drop role ${role}`);
    }
  });
});
