/**
 * A backlog that is larger than a batch: staged on the target piece by piece while the application writes on, killed at
 * every other piece together with the target's server. What was staged is not sent again, the application's table
 * changes once, from one state of the source to a later one, and memory stays where it was.
 */
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type RunningIbex, startIbex } from '../support/ibex.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import {
  compareTables,
  type Databases,
  freshDatabases,
  redisForTests,
  useServers,
  waitFor,
} from '../support/servers.ts';
import { onBoth, readSyncStatus, waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
let databases: Databases;
let daemon: RunningIbex | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await daemon?.kill9();
  daemon = undefined;
  await databases.dropAll();
});

/** `BACKLOG_KEYS=10000000 npx vitest run test/e2e/backlog.test.ts` is the long form. */
const KEYS = Number(process.env.BACKLOG_KEYS ?? 300_000);
/** About fifteen pieces before the gate is opened, and as many after. */
const STAGE_ABOVE = Math.round(KEYS / 15);
const PATIENCE_MS = Math.max(120_000, KEYS / 10);

function start(redisUrl: string | undefined): RunningIbex {
  return startIbex(['run', '--log-format', 'json', '--stage-above', String(STAGE_ABOVE)], {
    env: {
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: databases.targetUrl,
      ...(redisUrl === undefined ? {} : { IBEX_REDIS_URL: redisUrl }),
    },
  });
}

/** The target as its owner; it lives as long as the server does not crash. */
async function withTarget<T>(work: (target: pg.Client) => Promise<T>): Promise<T> {
  const target = new pg.Client({ connectionString: databases.targetUrl });
  await target.connect();
  try {
    return await work(target);
  } finally {
    await target.end();
  }
}

/** Holds up every piece after this one. */
const gateAfter = (n: number) => `
  create or replace function public.gate() returns trigger language plpgsql as $$
    begin if new.n > ${n} then perform pg_advisory_xact_lock(4711); end if; return new; end $$`;

/** Closed until the client ends. */
async function closeGate(): Promise<pg.Client> {
  const gate = new pg.Client({ connectionString: databases.targetUrl });
  gate.on('error', () => undefined);
  await gate.connect();
  await gate.query('select pg_advisory_lock(4711)');
  return gate;
}

/** Every piece with what would change if it were sent again. */
async function readPieces(): Promise<string[]> {
  const { rows } = await withTarget((target) =>
    target.query(
      `select concat_ws(' ', stage, n, upto, staged_at, xmin) as piece from ibex.piece order by n`,
    ),
  );
  return rows.map(({ piece }) => piece);
}

/** Kills the daemon, and crashes the target's server under what it left there. */
async function crashEverything(gate: pg.Client): Promise<pg.Client> {
  await daemon?.kill9();
  await servers.target.stop('immediate');
  await gate.end().catch(() => undefined);
  await servers.target.start();
  return closeGate();
}

/** Changes what is staged already, what is not yet, and what is about neither. */
async function writeBetween(random: () => number): Promise<void> {
  const from = Math.floor(random() * KEYS * 0.9);
  await databases.source.query(`
    update wide set v = v + 10 where id between ${from} and ${from + KEYS / 100};
    delete from wide where id between ${from + 7} and ${from + 27};
    update wide set id = -id where id between ${from + 107} and ${from + 127};
    insert into wide select -10 * i - ${from}, 1, 'new' from generate_series(1, 50) i on conflict do nothing`);
}

function peakMegabytes(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

test.for([
  { kind: 'in-process', crashesAfter: [5, 10] },
  { kind: 'redis', crashesAfter: [8] },
])(
  'through the $kind queue: nothing staged is sent again after crashes, memory stays below 256 MB',
  { timeout: 240_000 + 10 * PATIENCE_MS },
  async ({ kind, crashesAfter }, context) => {
    await using redis = kind === 'redis' ? await redisForTests() : undefined;
    if (kind === 'redis' && redis === undefined) return context.skip('no redis-server on the PATH');
    const random = randomFrom(seedOf('backlog'));
    await onBoth(databases, 'create table wide (id int primary key, v int, pad text)');
    await databases.source.query(
      `insert into wide select g, 0, repeat('x', 100) from generate_series(1, ${KEYS}) g`,
    );
    daemon = start(redis?.url);
    await waitUntilCaughtUp(databases, PATIENCE_MS);
    await daemon.stop();
    await databases.source.query('update wide set v = v + 1');
    await withTarget((target) =>
      target.query(`${gateAfter(0)};
        create trigger gate before insert on ibex.piece for each row execute function public.gate()`),
    );
    let gate = await closeGate();
    let known: string[] = [];
    for (const pieces of crashesAfter) {
      await withTarget((target) => target.query(gateAfter(pieces)));
      daemon = start(redis?.url);
      await waitFor(async () => (await readPieces()).length === pieces, {
        what: `${pieces} pieces`,
        timeout: PATIENCE_MS,
      });
      await writeBetween(random);
      gate = await crashEverything(gate);
      const now = await readPieces();
      expect(now.slice(0, known.length)).toEqual(known);
      expect(now).toHaveLength(pieces);
      known = now;
      // Nobody sees anything of it before all of it is there.
      const seen = await withTarget((target) => target.query('select distinct v from wide'));
      expect(seen.rows).toEqual([{ v: 0 }]);
    }
    await withTarget((target) => target.query(gateAfter(known.length)));
    daemon = start(redis?.url);
    await daemon.waitForLog(/a large backlog is staged: [\d.,]+ .*of/, PATIENCE_MS);
    await writeBetween(random);
    expect((await readPieces()).slice(0, known.length)).toEqual(known);
    await gate.end();
    await daemon.waitForLog(/the backlog is staged and will be merged/, PATIENCE_MS);
    await waitUntilCaughtUp(databases, PATIENCE_MS);
    await withTarget(async (target) => {
      expect(await compareTables(databases.source, target)).toEqual([]);
      const left = await target.query(`select (select count(*)::int from ibex.stage) as stages,
        (select count(*)::int from pg_class where relname ~ '^stage_[0-9]+$') as tables`);
      expect(left.rows).toEqual([{ stages: 0, tables: 0 }]);
    });
    for (const table of (await readSyncStatus(databases)).tables) {
      expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
    }
    const peak = peakMegabytes(daemon.pid);
    console.log(`${KEYS} keys through the ${kind} queue: peak resident memory ${peak.toFixed(0)} MB`);
    expect(peak).toBeLessThan(256);
  },
);
