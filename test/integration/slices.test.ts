/**
 * Large tables are merged in slices while the rest of their batch is still on its way. They go with the batch if it comes
 * to nothing, and are not begun with where it matters what else the batch brings.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Applier } from '../../src/apply/applier.ts';
import { Session } from '../../src/postgres/session.ts';
import { usePair } from '../support/pair.ts';
import { recordBatch } from '../support/recorded.ts';
import { compareTables, useServers, waitFor } from '../support/servers.ts';

const servers = await useServers();
const pair = usePair(servers, { replica: false });

/** Enough for several slices. */
const ROWS = 20_000;
const PAD = `repeat('x', 200)`;

/** In step, stopped, and with a backlog. */
async function behind(schema: string, rows: string, backlog: string): Promise<void> {
  await pair.inStep(schema, rows);
  await pair.sync.stop();
  await pair.source.query(backlog);
}

test('their rows are written while the batch is on its way, and are gone when it comes to nothing', async () => {
  await behind(
    'create table big (id int primary key, v int, pad text); create table small (id int primary key)',
    `insert into big select i, i, ${PAD} from generate_series(1, ${ROWS}) i`,
    `update big set v = -v; delete from big where id % 10 = 0; insert into small values (1);
     insert into big select i, i, ${PAD} from generate_series(${ROWS + 1}, ${ROWS + 2000}) i`,
  );
  const { header, parts } = await recordBatch(pair.databases);
  const big = header.tables.findIndex(({ plan }) => plan.name === 'big');
  const sum = async () => (await pair.target.query('select sum(v)::text as sum from big')).rows[0].sum;
  const before = await sum();
  await using session = await Session.open({ url: pair.databases.targetUrl, name: 'test' });
  const applier = new Applier({ session, origin: 'source', replica: false, onApplied: () => undefined });
  const isWritten = async () => {
    const first = 'select id from big where id between 1 and 1000 for update skip locked';
    return (await pair.target.query(first)).rowCount === 0;
  };
  const broken = {
    header,
    async *parts() {
      for (const part of parts) if (part.table === big) yield part;
      await waitFor(isWritten, { what: 'the first slices to be written' });
      throw new Error('cut');
    },
  };
  await expect(applier.apply(broken)).rejects.toThrow('cut');
  expect(await sum()).toBe(before);
  const whole = {
    header,
    async *parts() {
      yield* parts;
      // What is written already is nobody's to see.
      await sleep(0);
      expect(await sum()).toBe(before);
    },
  };
  await applier.apply(whole);
  expect(await compareTables(pair.source, pair.target)).toEqual([]);
});

test('not of a table in which values change hands, in whichever slices their rows are', async () => {
  await behind(
    'create table big (id int primary key, u int unique, pad text)',
    `insert into big select i, i, ${PAD} from generate_series(1, ${ROWS}) i`,
    `update big set u = -u; update big set u = ${ROWS} + 1 + u`,
  );
  pair.start();
  await pair.equal();
});

test('not of a table whose rows take others with them as they go', async () => {
  await behind(
    `create table big (id int primary key, pad text);
     create table other (id int primary key, up int references big on delete cascade)`,
    `insert into big select i, ${PAD} from generate_series(1, ${ROWS}) i; insert into other select i, i from generate_series(1, 100) i`,
    `update big set pad = pad || id; update other set up = up + 1000; delete from big where id <= 100`,
  );
  await pair.target.query(`alter table other add note text; update other set note = 'of the target'`);
  pair.start();
  await pair.sync.caughtUp();
  expect(await compareTables(pair.source, pair.target, ['public.big'])).toEqual([]);
  const { rows } = await pair.target.query(
    `select count(*)::int as n, count(note)::int as noted, min(up) as least from other`,
  );
  expect(rows).toEqual([{ n: 100, noted: 100, least: 1001 }]);
});

test('a row that the target refuses is named, and nothing of its table is written before it can be', async () => {
  await behind(
    'create table big (id int primary key, v int, pad text)',
    `insert into big select i, i, ${PAD} from generate_series(1, ${ROWS}) i`,
    `update big set v = -v where id <> ${ROWS / 2}; update big set v = 0 where id = ${ROWS / 2}`,
  );
  await pair.target.query('alter table big add constraint not_zero check (v <> 0)');
  pair.start();
  const reason = async () => (await pair.sync.status()).tables.find(({ state }) => state === 'held')?.reason;
  await waitFor(async () => (await reason()) !== undefined, {
    what: 'the table to be held',
    timeout: 60_000,
  });
  expect(await reason()).toContain(`row (id) = (${ROWS / 2})`);
  const { rows } = await pair.target.query('select count(*)::int as n from big where v < 0');
  expect(rows).toEqual([{ n: 0 }]);
  await pair.target.query('alter table big drop constraint not_zero');
  await waitFor(async () => (await pair.sync.status()).verdict === 'READY', {
    what: 'READY',
    timeout: 60_000,
  });
  await pair.equal();
});
