/**
 * The changes of a busy day that the target was away for: as many deltas as 10.8 million transactions of TPC-B leave, three
 * hours at 1,000 a second, most keys many times, with an application that writes on. `npm run volume` has the
 * number in full; here the same takes seconds.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import type { SyncStatus } from '../../src/observe/status.ts';
import { startIbex } from '../support/ibex.ts';
import { compareTables, freshDatabases, redisForTests, useServers, waitFor } from '../support/servers.ts';
import { onBoth, readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

const FULL = process.env.VOLUME === 'full';
/** As pgbench has it at scale 10, or a hundredth of that. */
const ACCOUNTS = FULL ? 1_000_000 : 10_000;
const TRANSACTIONS = FULL ? 10_800_000 : 54_000;
const [TELLERS, BRANCHES] = [100, 10];
/** What is not an account, a teller or a branch is a new row of the history. */
const DELTAS = 4 * TRANSACTIONS;
const PATIENCE_MS = FULL ? 3_600_000 : 120_000;
const MB = 1024 * 1024;

const SCHEMA = `
  create table accounts (aid int primary key, bid int, abalance int, filler char(84));
  create table tellers (tid int primary key, bid int, tbalance int, filler char(84));
  create table branches (bid int primary key, bbalance int, filler char(88));
  create table history (tid int, bid int, aid int, delta int, mtime timestamptz);`;

const servers = await useServers();

/** Small tables take the loops, the accounts what is left, each statement committed so that no dead rows pile up. */
async function writeBacklog(source: pg.Client): Promise<void> {
  const loops = FULL ? 20_000 : 100;
  const inOne = FULL ? 100 : 50;
  for (let done = 0; done < loops; done += inOne) {
    await source.query(`do $$ begin for i in 1 .. ${inOne} loop
      update tellers set tbalance = tbalance + i; update branches set bbalance = bbalance + i; end loop; end $$`);
    await source.query('vacuum tellers, branches');
  }
  for (let from = 0; from < TRANSACTIONS; from += 1_000_000) {
    await source.query(
      `insert into history select i % ${TELLERS}, i % ${BRANCHES}, i % ${ACCOUNTS}, i, now()
         from generate_series($1::int8 + 1, least($1::int8 + 1000000, ${TRANSACTIONS})) i`,
      [from],
    );
  }
  const left = DELTAS - TRANSACTIONS - loops * (TELLERS + BRANCHES);
  for (let done = 0; done < left; done += ACCOUNTS) {
    await source.query('update accounts set abalance = abalance + 1');
    await source.query('vacuum accounts');
  }
}

/** Transactions of TPC-B, one after the other, until the signal. Resolves to how many. */
async function writeOn(url: string, signal: AbortSignal): Promise<number> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  let n = 0;
  for (; !signal.aborted; n++) {
    const [aid, tid, bid] = [1 + ((n * 7919) % ACCOUNTS), 1 + (n % TELLERS), 1 + (n % BRANCHES)];
    await client.query(`begin;
      update accounts set abalance = abalance + 1 where aid = ${aid};
      update tellers set tbalance = tbalance + 1 where tid = ${tid};
      update branches set bbalance = bbalance + 1 where bid = ${bid};
      insert into history values (${tid}, ${bid}, ${aid}, 1, now()); commit`);
    await sleep(5);
  }
  await client.end();
  return n;
}

function peakMegabytes(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

test('hours of changes reach the target in fixed memory, while writes go on, and it is seen how far', {
  timeout: 3 * PATIENCE_MS,
}, async (context) => {
  await using redis = await redisForTests();
  if (redis === undefined) return context.skip('no redis-server on the PATH');
  const databases = await freshDatabases(servers);
  const port = await freePort();
  const env = {
    IBEX_SOURCE_URL: databases.sourceUrl,
    IBEX_TARGET_URL: databases.targetUrl,
    IBEX_REDIS_URL: redis.url,
    IBEX_MAX_DELTA_BYTES: 'none',
    ...(FULL ? {} : { IBEX_STAGE_ABOVE: '20000' }),
  };
  const start = () => startIbex(['run', '--log-format', 'json', '--listen', `127.0.0.1:${port}`], { env });
  const stop = new AbortController();
  try {
    await onBoth(databases, SCHEMA);
    await databases.source.query(`
      insert into accounts select i, 1, 0, '' from generate_series(1, ${ACCOUNTS}) i;
      insert into tellers select i, 1, 0, '' from generate_series(1, ${TELLERS}) i;
      insert into branches select i, 0, '' from generate_series(1, ${BRANCHES}) i`);
    const first = start();
    await waitUntilCaughtUp(databases, PATIENCE_MS);
    await first.stop();
    await writeBacklog(databases.source);
    const before = await readSyncStatus(databases);
    expect(before.lag.keys).toBeGreaterThanOrEqual(DELTAS);
    // On a fast machine the merge would be over between two looks: it is kept waiting until one has seen it.
    await databases.target.query('begin; lock table branches in share mode');

    const began = Date.now();
    await using daemon = start();
    const writing = writeOn(databases.sourceUrl, stop.signal);
    const seen: SyncStatus[] = [];
    let stageBytes = 0;
    const look = async () => {
      const page = await fetch(`http://127.0.0.1:${port}/status`).catch(() => undefined);
      if (page?.ok) seen.push(((await page.json()) as [SyncStatus])[0]);
      if (seen.at(-1)?.merge != null) await databases.target.query('rollback');
      stageBytes = Math.max(stageBytes, await bytesOfStages(databases.targetAdmin));
      return seen.length > 1 && (seen.at(-1)?.lag.keys ?? DELTAS) < 1_000;
    };
    await waitFor(look, { what: 'the backlog to be taken in', timeout: PATIENCE_MS });
    const tookSeconds = (Date.now() - began) / 1000;
    stop.abort();
    const written = await writing;
    await waitUntilCaughtUp(databases, PATIENCE_MS);
    const peak = { daemon: peakMegabytes(daemon.pid), redis: peakMegabytes(redis.pid) };

    expect(await compareTables(databases.source, databases.target)).toEqual([]);
    for (const table of (await readSyncStatus(databases)).tables) {
      expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
    }
    const backlogs = seen.flatMap((status) => status.backlogs);
    expect(
      backlogs.some(({ staged, left, secondsLeft }) => staged > 0 && left > 0 && secondsLeft !== null),
    ).toBe(true);
    expect(seen.some(({ merge }) => merge !== null)).toBe(true);
    expect(peak.daemon).toBeLessThan(256);
    expect(peak.redis).toBeLessThan(100);
    console.log(
      `${before.lag.keys} deltas, ${before.lag.bytes} bytes of them: taken in after ${tookSeconds.toFixed(0)} s beside ` +
        `${written} transactions; daemon at most ${peak.daemon.toFixed(0)} MB, Redis ${peak.redis.toFixed(0)} MB, ` +
        `stages ${(stageBytes / MB).toFixed(0)} MB`,
    );
  } finally {
    stop.abort();
    await databases.dropAll();
  }
});

/** Disk that the stages take on the target. */
async function bytesOfStages(target: pg.Client): Promise<number> {
  const { rows } = await target.query(
    `select coalesce(sum(pg_total_relation_size(oid)), 0)::float8 as bytes from pg_class
      where relname ~ '^stage_[0-9]+$' and relkind = 'r'`,
  );
  return rows[0].bytes;
}
