/**
 * A move as its user sees it: pgbench at full speed while the database is set up, copied and streamed by the
 * real commands, with a transaction that stays open throughout and commits last.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

const present = spawnSync('pgbench', ['--version']).status === 0;
if (!present && process.env.CI) throw new Error('pgbench is not on the PATH');

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

/** Runs pgbench on the source, without showing it anything of our environment but the PATH. */
function pgbench(...args: string[]) {
  const url = new URL(databases.sourceUrl);
  const child = spawn('pgbench', args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH: process.env.PATH,
      PGHOST: url.hostname,
      PGPORT: url.port,
      PGUSER: decodeURIComponent(url.username),
      PGPASSWORD: decodeURIComponent(url.password),
      PGDATABASE: url.pathname.slice(1),
    },
  });
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const done = once(child, 'close').then(([code]) => {
    if (code !== 0) throw new Error(`pgbench: ${stderr}`);
  });
  return { child, done };
}

const TABLES = ['pgbench_accounts', 'pgbench_branches', 'pgbench_tellers', 'pgbench_history'];

test.for(['in-process', 'redis'])(
  'pgbench at full speed, moved through the %s queue',
  async (kind, context) => {
    if (!present) return context.skip('no pgbench on the PATH');
    await using redis = kind === 'redis' ? await redisForTests() : undefined;
    if (kind === 'redis' && redis === undefined) return context.skip('no redis-server on the PATH');
    await pgbench('-i', '-q', '-s', '3').done;
    for (const table of TABLES) {
      const { rows } = await databases.source.query(
        `select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum) as columns
         from pg_attribute where attrelid = $1::regclass and attnum > 0`,
        [table],
      );
      await databases.target.query(`create table ${table} (${rows[0].columns})`);
    }
    await databases.target.query(`alter table pgbench_accounts add primary key (aid);
    alter table pgbench_branches add primary key (bid); alter table pgbench_tellers add primary key (tid)`);
    const env = {
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: databases.targetUrl,
      ...(redis === undefined ? {} : { IBEX_REDIS_URL: redis.url }),
    };
    const load = pgbench('-n', '-c', '8', '-j', '2', '-T', '8');
    expect((await ibex(['setup'], { env })).code).toBe(0);
    const late = new pg.Client({ connectionString: databases.sourceUrl });
    await late.connect();
    await late.query(`begin; insert into pgbench_history values (-1, -1, -1, 1, now(), 'late');
    savepoint s; insert into pgbench_history values (-2, -2, -2, 2, now(), 'never'); rollback to s;
    insert into pgbench_accounts values (-1, 1, 1, 'late')`);
    daemon = startIbex(['run', '--log-format', 'json'], { env });
    await load.done;
    expect((await ibex(['wait', '--timeout', '3m'], { env })).code).toBe(0);
    await late.query('commit');
    await late.end();
    expect((await ibex(['wait', '--timeout', '3m'], { env })).code).toBe(0);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
    const { rows } = await databases.target.query(`select tid from pgbench_history where tid < 0`);
    expect(rows).toEqual([{ tid: -1 }]);
    await waitFor(async () => (await ibex(['status'], { env })).code === 0, { what: 'status to be READY' });
    expect((await daemon.stop()).code).toBe(0);
  },
);
