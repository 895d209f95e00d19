/** `ibex verify` as its users have it: what it answers, what it writes, what it repairs, and that a stop is no pass. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, expect, test } from 'vitest';
import { ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { runVerify } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);
let running: RunningIbex | undefined;

afterEach(async () => {
  await running?.kill9();
  running = undefined;
});

function env(): Record<string, string> {
  return { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
}

const TABLES = `create table t (id int primary key, v text, n int default 1);
                create table u (a text, b date, primary key (b, a)); create table "o dd" ("k,(" text primary key)`;
const ROWS = `insert into t select i, 'value ' || i from generate_series(1, 100) i;
              insert into u select 'a' || i, 'epoch'::date + i from generate_series(1, 10) i;
              insert into "o dd" values ('x"y'), ('')`;

test('answers, names what differs, writes the report, and repairs through the stream', async () => {
  await onBoth(pair.databases, TABLES);
  await pair.source.query(ROWS);
  const before = await ibex(['verify'], { env: env() });
  expect(before).toMatchObject({ code: 3, said: [expect.stringContaining('not set up'), expect.anything()] });
  running = startIbex(['run'], { env: env() });
  expect(await ibex(['wait'], { env: env() })).toMatchObject({ code: 0 });
  const equal = await ibex(['verify'], { env: env() });
  expect(equal).toMatchObject({ code: 0, stdout: expect.stringMatching(/^equal: 3 tables, 112 rows/) });

  await pair.target.query(`update t set v = 'forged' where id = 5; delete from t where id = 6;
    insert into t values (1000, 'extra'); update u set a = 'moved' where a = 'a3'; delete from "o dd" where "k,(" = ''`);
  const directory = mkdtempSync(join(tmpdir(), 'ibex-verify-'));
  try {
    const out = join(directory, 'report.json');
    const found = await ibex(['verify', '--out', out], { env: env() });
    expect(found.code).toBe(1);
    expect(found.stdout.split('\n')).toEqual(
      expect.arrayContaining([
        'public.t: 1 differ, 1 missing on the target, 1 on the target only',
        '  (5) differ; v: "value 5" | "forged"',
        '  (6) missing on the target',
        '  (1000) on the target only',
        '  (1970-01-04, moved) on the target only',
        '  () missing on the target',
      ]),
    );
    const report = JSON.parse(readFileSync(out, 'utf8'));
    expect(report).toMatchObject({ verdict: 'different', sample: 1, sync: 'main' });
    expect(report.source.system).not.toBe(report.target.system);
    expect(readFileSync(`${out}.md`, 'utf8')).toContain('# Comparison of main: different');
  } finally {
    rmSync(directory, { recursive: true });
  }

  const one = await ibex(['verify', '--tables', 'public.u', '--json'], { env: env() });
  expect(one.code).toBe(1);
  expect(JSON.parse(one.stdout).tables.map(({ table }: { table: string }) => table)).toEqual(['public.u']);
  const repaired = await ibex(['verify', '--repair'], { env: env() });
  expect(repaired).toMatchObject({ code: 0, stdout: expect.stringContaining('repaired: 6 rows') });
  expect(await ibex(['verify', '--sample', '5%'], { env: env() })).toMatchObject({ code: 0 });
});

test('wrong usage is refused', async () => {
  for (const sample of ['7', '0%', '101%', 'all'])
    expect(await ibex(['verify', '--sample', sample], { env: env() })).toMatchObject({ code: 2, stdout: '' });
});

test('one that is stopped says nothing of what it has seen, and is no pass', async () => {
  await pair.inStep(TABLES, ROWS);
  running = startIbex(['verify', '--limit-mbps', '0.001', '--json'], { env: env() });
  const sessions = `select from pg_stat_activity where application_name = 'ibex:main:verify'`;
  await waitFor(async () => ((await pair.source.query(sessions)).rowCount ?? 0) > 1, {
    what: 'verify to begin',
  });
  const { code } = await running.stop();
  expect(code).toBe(3);
  expect(running.stdout).toBe('');
  expect(running.said[0]).toContain('the comparison was stopped');
});

test('nobody but the owner notes keys to be carried', async () => {
  await pair.inStep(TABLES, ROWS);
  const role = `reader_${Date.now()}`;
  const admin = pair.databases.sourceAdmin;
  await admin.query(`create role ${role} login password 'secret'`);
  try {
    await pair.source.query(`grant select, insert, update, delete on t to ${role}`);
    expect(await ibex(['setup'], { env: env() })).toMatchObject({ code: 0 });
    const url = new URL(pair.databases.sourceUrl);
    Object.assign(url, { username: role, password: 'secret' });
    const client = new pg.Client({ connectionString: url.href });
    await client.connect();
    const noting = client.query(`select ibex.note_keys('public.t'::regclass, '[["1"]]')`);
    await expect(noting).rejects.toMatchObject({ code: '42501' });
    await client.end();
  } finally {
    await admin.query(`drop owned by ${role}; drop role ${role}`);
  }
});

test('TRUNCATE, which names no keys and to which snapshots are blind, raises no alarm', async () => {
  await pair.inStep(
    'create table t (id int primary key, v int)',
    'insert into t select i, i from generate_series(1, 2000) i',
  );
  const writing = { stop: false };
  const written = (async () => {
    for (let n = 0; !writing.stop; n++) {
      const rows = `insert into t select i, ${n} from generate_series(1, ${1000 + (n % 2) * 1000}) i`;
      await pair.source.query(`begin; truncate t; ${rows}; commit`);
      await pair.source.query('update t set v = -1 where id < 500');
    }
  })();
  try {
    for (let n = 0; n < 3; n++) {
      const { tables } = await runVerify(pair.databases, { settleMs: 3_000 });
      expect(tables[0]?.counts).toMatchObject({ different: 0, missing: 0, extra: 0 });
    }
  } finally {
    writing.stop = true;
    await written;
  }
});
