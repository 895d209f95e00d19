/**
 * A long life, compressed: delta tables are moved on from and emptied many times, beside a transaction that stays open, and
 * with a target that takes nothing for a while. What is kept stays in proportion to what is not applied yet, and reading a
 * batch costs as many pages in the end as in the beginning. `npm run soak` goes on for longer.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect, test } from 'vitest';
import { summaryStatement } from '../../src/capture/trigger/statements.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';

const ROUNDS = process.env.SOAK === 'long' ? 32 : 5;
const ROWS = 20_000;
/**
 * In one round the delta table outgrows the size from which it is moved on from, whatever is left of others. Of each row an
 * UPDATE notes two keys.
 */
const UPDATES = 3;
const MB = 1024 * 1024;
/** A generation that is written is moved on from at this size, or that of all that cannot be emptied if they have more. */
const MOVED_ON_AT = MB / 2;
const PAGE_BYTES = 8192;

const servers = await useServers();
const pair = usePair(servers);

async function writeRound(): Promise<void> {
  for (let i = 0; i < UPDATES; i++) await pair.source.query('update t set v = v + 1');
}

interface Deltas {
  readonly relid: number;
  /** The generation that is written. */
  readonly current: number;
  /** Bytes of each generation that has something in it; null when all are empty. */
  readonly sizes: Record<string, number> | null;
  readonly bytes: number;
}

async function deltas(): Promise<Deltas> {
  const { rows } = await pair.source.query<Deltas>(
    `select c.relid::int8::int as relid, c.generation as current, sum(g.size)::int as bytes,
            json_object_agg(g.n, g.size) filter (where g.size > 0) as sizes
       from ibex.captured c
       join (select relid, n, pg_relation_size(format('ibex.delta_%s_%s', relid, n)::regclass) as size
               from ibex.generation) g using (relid)
      group by c.relid, c.generation`,
  );
  return rows[0] as Deltas;
}

/** Writes a round; returns once the target has it and the delta tables were moved on from and emptied as far as may be. */
async function goRound(pinned: readonly string[]): Promise<void> {
  const before = (await deltas()).current;
  await writeRound();
  await pair.sync.caughtUp();
  await waitFor(
    async () => {
      const { current, sizes, bytes } = await deltas();
      const left = Object.keys(sizes ?? {}).filter((n) => n !== String(current));
      const written = sizes?.[current] ?? 0;
      const isEnough = written >= Math.max(MOVED_ON_AT, bytes - written);
      return current !== before && !isEnough && left.every((n) => pinned.includes(n));
    },
    { what: 'the delta tables to be emptied' },
  );
}

/** How many pages reading a batch from here takes, before it comes to the rows. */
async function pagesRead(): Promise<number> {
  const { relid, sizes } = await deltas();
  const { rows } = await pair.target.query<{ position: string }>('select position from ibex.checkpoint');
  if (sizes === null) return 0;
  const generations = { numbers: Object.keys(sizes).map(Number), echo: null };
  const statement = summaryStatement({ relid }, generations, rows[0]?.position ?? '');
  const explained = await pair.source.query(`explain (analyze, buffers, format json) ${statement}`);
  const { Plan: plan } = explained.rows[0]['QUERY PLAN'][0];
  return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
}

/** Bytes of deltas that the target has not taken, each with its place in the page. */
async function unapplied(): Promise<number> {
  const { relid, sizes } = await deltas();
  const { rows } = await pair.target.query<{ position: string }>('select position from ibex.checkpoint');
  let bytes = 0;
  for (const n of Object.keys(sizes ?? {})) {
    const counted = await pair.source.query(
      `select coalesce(sum(pg_column_size(d) + 4), 0)::int as bytes from ibex.delta_${relid}_${n} d
        where not txid_visible_in_snapshot(d.xid, $1)`,
      [rows[0]?.position],
    );
    bytes += counted.rows[0].bytes;
  }
  return bytes;
}

test('storage and reading stay in proportion, whatever stays open and whoever is away', async () => {
  await pair.inStep(
    'create table t (id int primary key, v int not null default 0)',
    `insert into t select i from generate_series(1, ${ROWS}) i`,
  );
  const application = new pg.Client({ connectionString: pair.databases.sourceUrl });
  await application.connect();
  const pages: number[] = [];
  let pinnedBytes = 0;
  try {
    await application.query('begin; insert into t values (0)');
    // Into this one the open transaction has written, so it cannot be emptied.
    const pinned = [String((await deltas()).current)];
    for (let round = 1; round <= ROUNDS; round++) {
      await goRound(pinned);
      pages.push(await pagesRead());
    }
    pinnedBytes = (await deltas()).sizes?.[pinned[0] as string] ?? 0;
    await application.query('commit');
  } finally {
    await application.end();
  }
  // What cannot be emptied is read each time, and once as much that was not moved on from yet.
  expect(pinnedBytes).toBeGreaterThanOrEqual(MOVED_ON_AT);
  expect(Math.max(...pages)).toBeLessThanOrEqual((1.2 * 2 * pinnedBytes) / PAGE_BYTES);
  await goRound([]);
  await pair.equal();

  // As if the target were away: nothing is applied.
  const locker = new pg.Client({ connectionString: pair.databases.targetUrl });
  await locker.connect();
  await locker.query('begin; select from ibex.checkpoint for no key update');
  for (let round = 0; round < Math.ceil(ROUNDS / 4); round++) await writeRound();
  const [retained, needed] = [(await deltas()).bytes, await unapplied()];
  await locker.end();
  expect(needed).toBeGreaterThan(4 * MB);
  expect(retained).toBeLessThan(2 * needed);
  await goRound([]);
  await pair.equal();
  const last = await pagesRead();
  expect(last).toBeLessThan(pages[0] as number);
  if (process.env.SOAK !== 'long') return;
  const changes = (ROUNDS + 2 + Math.ceil(ROUNDS / 4)) * UPDATES * ROWS;
  console.log(
    `soak: ${changes} changes, ${ROUNDS + 2} rotations at least; pages of a batch ${pages.join(' ')}, at last ${last}; ` +
      `while the target took nothing ${retained} bytes were kept for ${needed} that it lacked`,
  );
});

test('a large generation that is read all the time is emptied while the lane rests', async () => {
  await pair.inStep(
    'create table t (id int primary key, v int not null default 0)',
    `insert into t select i from generate_series(1, ${ROWS}) i`,
  );
  const { current, relid } = await deltas();
  const isEmpty = async () => !Object.keys((await deltas()).sizes ?? {}).includes(String(current));
  const reader = new pg.Client({ connectionString: pair.databases.sourceUrl });
  await reader.connect();
  const read = `begin; lock table ibex.delta_${relid}_${current} in access share mode`;
  try {
    await reader.query(read);
    await pair.source.query(`insert into t select i from generate_series(${ROWS + 1}, 400000) i`);
    expect((await deltas()).bytes).toBeGreaterThan(16 * MB);
    await pair.equal();
    await waitFor(async () => (await deltas()).current !== current, { what: 'the triggers to move on' });
    expect(await isEmpty()).toBe(false);
    // Open whenever the lane looks.
    const lastLook = async () => {
      const { rows } = await pair.source.query<{ at: string }>(
        `select query_start::text as at from pg_stat_activity where application_name = 'ibex:main:flush' and datname = current_database()`,
      );
      return rows[0]?.at;
    };
    const emptied = async () => {
      const before = await lastLook();
      await sleep(400);
      if ((await lastLook()) !== before) return false;
      await reader.query('commit');
      await sleep(200);
      await reader.query(read);
      return isEmpty();
    };
    await waitFor(emptied, { what: 'the generation to be emptied while the lane rests' });
  } finally {
    await reader.end();
  }
  await pair.equal();
});
