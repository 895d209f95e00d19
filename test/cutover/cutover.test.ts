/** A cutover, writes on the new side, the way back, and both once more. */
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { diagnosisText } from '../../src/cutover/doctor/text.ts';
import { errorsOf, examine, findingsOf } from '../doctor/support.ts';
import { ibex } from '../support/ibex.ts';
import { Pair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { readSyncStatus } from '../support/sync.ts';
import { cutover, expectLive, expectSame, ROWS, rollback, SCHEMA, write } from './move.ts';

const servers = await useServers();

describe.each([{ replica: true }, { replica: false }])('replica $replica', ({ replica }) => {
  test('there, back, and there again, and all rows are on both sides', async () => {
    const pair = new Pair();
    await pair.open(servers, { replica });
    try {
      await pair.inStep(SCHEMA, ROWS);
      await pair.ready();
      const moved = await cutover(pair, { unverified: false });
      expect(moved, JSON.stringify(moved)).toMatchObject({
        outcome: 'done',
        live: 'target',
        proof: { pending: 0, verify: { verdict: 'equal', sample: 1 } },
      });
      expect(moved.events.filter(({ seconds }) => seconds !== null).map(({ phase }) => phase)).toEqual([
        'preflight',
        'verify',
        'prepare',
        'fence',
        'drain',
        'sequences',
        'check',
        'switch',
        'reverse',
        'lift',
      ]);
      const noted = await deltas(pair);
      await expectLive(pair, 'target');
      await expectSame(pair);
      // What the way back brings to the old side is not on its way to the new one again.
      expect(await deltas(pair)).toBe(noted);
      expect(await triggered(pair)).toEqual(['O']);
      expect((await cutover(pair)).reasons).toEqual(['the target is live already']);
      await expectExamined(pair);

      const writer = new pg.Client({ connectionString: pair.databases.targetUrl });
      const ended = new Promise((resolve) => writer.on('error', resolve));
      await writer.connect();
      await writer.query('begin; delete from bare where false');
      const back = await rollback(pair, { graceMs: 100, terminate: true });
      await ended;
      expect(back, JSON.stringify(back)).toMatchObject({ outcome: 'done', live: 'source' });
      await expectLive(pair, 'source');
      await expectSame(pair);
      // Both lanes are there, but one side is written: nobody is told to have sequences take turns.
      expect((await readSyncStatus(pair.databases)).remarks).toEqual([]);
      expect(await rollback(pair)).toMatchObject({
        outcome: 'refused',
        reasons: ['the source is live already'],
      });

      // An application that empties a table right before the fence has altered nothing, heard of by the daemon or not.
      const deaf = new pg.Client({ connectionString: pair.databases.sourceUrl });
      await deaf.connect();
      await deaf.query(`begin; select from ibex.captured where relid = 'bare'::regclass for update`);
      await pair.source.query('truncate bare');
      expect(await cutover(pair)).toMatchObject({ reasons: [], outcome: 'done', live: 'target' });
      await deaf.end();
      for (let i = 0; i < 5; i++) await write(pair.target);
      await expectSame(pair);
    } finally {
      await pair.close();
    }
  });
});

/** The doctor looks from the side that is live, and says so; an application that writes to the other one is told where that is. */
async function expectExamined(pair: Pair): Promise<void> {
  const { sourceUrl, targetUrl } = pair.databases;
  const diagnosis = await examine(pair.databases, { appUrl: targetUrl });
  expect(errorsOf(diagnosis)).toEqual([]);
  const [from, to] = [targetUrl, sourceUrl]
    .map((url) => new URL(url))
    .map(({ host, pathname }) => host + pathname);
  expect(diagnosis).toMatchObject({ sync: 'main.back', live: 'target', source: from, target: to });
  expect(diagnosisText(diagnosis)).toMatch(
    `since the cutover the configured target is live: this is main.back, with source ${from} and target ${to}\n`,
  );
  const { findings } = await examine(pair.databases, { appUrl: sourceUrl });
  expect(findingsOf({ ...diagnosis, findings }, 'app-database')).toMatchObject([
    { severity: 'error', remedy: `Give the application the side that is live since the cutover: ${from}.` },
  ]);
}

/** How many changes are noted on the source. */
async function deltas(pair: Pair): Promise<number> {
  const { rows } = await pair.source.query<{ n: number }>(
    `select coalesce(sum((xpath('/row/c/text()', query_to_xml(
              format('select count(*) as c from ibex.delta_%s_%s', relid, n), false, true, '')))[1]::text::int), 0)::int as n
       from ibex.generation`,
  );
  return rows[0]?.n ?? 0;
}

/** How the trigger of the application stands on the target. */
async function triggered(pair: Pair): Promise<string[]> {
  const { rows } = await pair.target.query<{ e: string }>(
    `select tgenabled::text as e from pg_trigger where tgname = 'audited'`,
  );
  return rows.map(({ e }) => e);
}

test('a teardown after a cutover leaves nothing on either side, and both take writes', async () => {
  const pair = new Pair();
  await pair.open(servers, {});
  try {
    await pair.inStep(SCHEMA, ROWS);
    await pair.ready();
    expect(await cutover(pair)).toMatchObject({ outcome: 'done' });
    const { sourceUrl, targetUrl } = pair.databases;
    const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
    const status = JSON.parse((await ibex(['status', '--json'], { env })).stdout)[0];
    expect(status).toMatchObject({ sync: 'main.back', verdict: 'READY' });
    await write(pair.target);
    expect(await ibex(['wait'], { env })).toMatchObject({ code: 0 });
    await expectSame(pair);
    expect((await ibex(['teardown', '--yes'], { env })).said[0]).toMatch(/is being run by a daemon/);
    await pair.sync.stop();
    const torn = await ibex(['teardown', '--yes', '--json'], { env });
    expect(torn, torn.stderr).toMatchObject({ code: 0 });
    expect(JSON.parse(torn.stdout)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
    await write(pair.source);
    await write(pair.target);
    expect(await triggered(pair)).toEqual(['O']);
  } finally {
    await pair.close();
  }
});
