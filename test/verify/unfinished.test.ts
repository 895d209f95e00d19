/** A comparison that did not come to its end is gone on with: what counts from before, what does not, and who is told. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { IbexError } from '../../src/core/errors.ts';
import { Session } from '../../src/postgres/session.ts';
import { Unfinished } from '../../src/verify/unfinished.ts';
import type { VerifyOptions } from '../../src/verify/verify.ts';
import { cutover } from '../cutover/move.ts';
import { bytes } from '../support/churn.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { interrupted, named, runVerify, tableOf } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);

const TABLES = 'create table a (id int primary key, v text); create table b (id int primary key, pad text)';
const ROWS = `insert into a select i, 'value ' || i from generate_series(1, 100) i;
              insert into b select i, ${bytes(2_000, 'i')} from generate_series(1, 500) i`;
const FORGE = `update a set v = 'forged' where id = 5`;
const HEAL = `update a set v = 'value 5' where id = 5`;

const ALL = { jobs: 1, keeping: { asked: {}, restart: false, onContinued: () => undefined } };

/** Sessions of which one is lost on the source at the n-th range that is read. */
function losingAt(n: number) {
  let read = 0;
  const { sourceUrl, targetUrl } = pair.databases;
  return (side: 'source' | 'target') =>
    side === 'target'
      ? Session.open({ url: targetUrl, name: 'test:verify' })
      : interrupted(sourceUrl, 'select count(*)', async () => {
          if (++read === n) throw new IbexError('connection', 'lost');
        });
}

/** A comparison that is lost once one range was compared. */
async function half(): Promise<void> {
  await expect(runVerify(pair.databases, { ...ALL, open: losingAt(2) })).rejects.toThrow('lost');
}

async function compared(): Promise<number> {
  const { rows } = await pair.target.query('select from ibex.compared_range where compared_at is not null');
  return rows.length;
}

test('kill -9: the next call reads the rest, and says since when the other part holds', async () => {
  await pair.inStep(TABLES, ROWS);
  const env = { IBEX_SOURCE_URL: pair.databases.sourceUrl, IBEX_TARGET_URL: pair.databases.targetUrl };
  // The second table is as large as not to be its turn for minutes.
  const killed = startIbex(['verify', '--jobs', '1', '--limit-mbps', '0.02'], { env });
  await waitFor(
    async () => {
      const { rows } = await pair.target.query(
        `select to_regclass('ibex.compared_range') is not null as made`,
      );
      return rows[0].made && (await compared()) === 1;
    },
    { what: 'one range to be compared' },
  );
  await killed.kill9();
  await pair.target.query(FORGE);
  await pair.target.query(`update b set pad = 'forged' where id = 7`);

  const directory = mkdtempSync(join(tmpdir(), 'ibex-verify-'));
  try {
    const out = join(directory, 'report.json');
    const { code, stdout, logs } = await ibex(['verify', '--out', out], { env });
    const said = /^continued: 1 ranges were compared by an earlier call, from \S+ \S+ UTC to /;
    expect(logs.map(({ msg }) => msg)).toEqual([expect.stringMatching(said)]);
    expect(code).toBe(1);
    expect(stdout.trim().split('\n')).toEqual([
      'public.b: 1 differ',
      expect.stringContaining('(7) differ'),
      expect.stringMatching(said),
      expect.stringMatching(/^different: 2 tables, 600 rows in 2 ranges/),
    ]);
    const report = JSON.parse(readFileSync(out, 'utf8'));
    expect(report.tables.map(({ ranges }: { ranges: object }) => ranges)).toEqual([
      { compared: 1, before: 1, all: 1 },
      { compared: 1, before: 0, all: 1 },
    ]);
    const { started, continued, ended } = report;
    expect([started, continued.from, continued.to, continued.resumed, ended]).toEqual(
      [started, continued.from, continued.to, continued.resumed, ended].sort(),
    );
    expect(readFileSync(`${out}.md`, 'utf8')).toContain('| public.a | equal | 1 of 1, 1 of them before |');
  } finally {
    rmSync(directory, { recursive: true });
  }
  // That one came to its end.
  const anew = await ibex(['verify'], { env });
  expect(anew).toMatchObject({ code: 1, stdout: expect.stringContaining('public.a: 1 differ'), logs: [] });
});

test('of a table only the ranges count that were compared', async () => {
  await pair.inStep(
    'create table wide (id int primary key, pad text)',
    `insert into wide select i, ${bytes(40_000, 'i')} from generate_series(1, 450) i`,
  );
  await half();
  await pair.target.query(`update wide set pad = 'forged' where id in (1, 450)`);
  const report = await runVerify(pair.databases, ALL);
  expect(named(report)).toEqual(['public.wide different 450']);
  expect(tableOf(report, 'public.wide').ranges).toEqual({ compared: 2, before: 1, all: 2 });
  expect(tableOf(report, 'public.wide').source.rows).toBe(450);
});

test('it counts while all is the same that it rests on, and no longer than a day', async () => {
  await pair.inStep(TABLES, ROWS);
  const { sourceUrl, targetUrl } = pair.databases;
  const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
  const { keeping } = ALL;
  const counts = async (options: Partial<VerifyOptions> = {}, change?: () => Promise<unknown>) => {
    await half();
    expect(await compared()).toBe(1);
    await change?.();
    await pair.target.query(FORGE);
    const report = await runVerify(pair.databases, { ...ALL, ...options });
    await pair.target.query(HEAL);
    const found = named(report).length > 0;
    expect(report.continued === null).toBe(found);
    await pair.target.query('delete from ibex.comparison');
    return !found;
  };
  expect(await counts()).toBe(true);

  expect(await counts({ keeping: null })).toBe(false);
  expect(await counts({ keeping: { ...keeping, restart: true } })).toBe(false);
  expect(await counts({ keeping: { ...keeping, asked: { tables: ['a'] } } })).toBe(false);
  const age = (hours: number) => () =>
    pair.target.query(
      `update ibex.compared_range set compared_at = compared_at - ${hours} * interval '1 hour'`,
    );
  expect(await counts({}, age(23))).toBe(true);
  expect(await counts({}, age(25))).toBe(false);
  const recopy = async () => {
    expect(await ibex(['tables', 'recopy', 'public.a'], { env })).toMatchObject({ code: 0 });
    await pair.ready();
  };
  expect(await counts({}, recopy)).toBe(false);
  // What differed is looked at again, whatever came of it.
  await pair.target.query(FORGE);
  await expect(runVerify(pair.databases, { ...ALL, open: losingAt(2) })).rejects.toThrow('lost');
  expect(await compared()).toBe(0);
  expect(named(await runVerify(pair.databases, ALL))).toEqual(['public.a different 5']);
  await pair.target.query(HEAL);

  await pair.sync.stop();
  // Nobody answers that by copying it.
  const alter = () => onBoth(pair.databases, 'alter table a add n int');
  expect(await counts({}, alter)).toBe(false);
});

test('another database on either side, or a promoted one, begins anew', async () => {
  await pair.inStep(TABLES, ROWS);
  await half();
  const { sourceUrl, targetUrl } = pair.databases;
  await using source = await Session.open({ url: sourceUrl, name: 'test:verify' });
  await using target = await Session.open({ url: targetUrl, name: 'test:verify' });
  const now = new Date();
  const begins = async () =>
    (await Unfinished.open(source, target, 'main', { asked: {}, restart: false }, now)).started === now;
  expect(await begins()).toBe(false);
  for (const side of [source, target]) {
    const row = side.row.bind(side);
    side.row = async <T extends object>(text: string, values?: readonly unknown[]) => {
      const found = await row<T>(text, values);
      return 'timeline' in found ? { ...found, timeline: Number(found.timeline) + 1 } : found;
    };
    expect(await begins()).toBe(true);
    side.row = row;
  }
});

test('a cutover believes nothing but what it has seen itself', async () => {
  await pair.inStep(TABLES, ROWS);
  await pair.ready();
  await half();
  await pair.target.query(FORGE);
  const { outcome, reasons } = await cutover(pair);
  expect([outcome, reasons]).toEqual(['undone', [expect.stringContaining('public.a: 1 differ')]]);
});
