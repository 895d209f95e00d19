/**
 * What a change costs as its table grows, and as more of them wait: one transaction changes rows of a table, and from its
 * commit until the target has it time and CPU are taken. Nothing else happens. The same rows whatever the size, which is
 * what growth alone costs; and rows all over the table, of which the larger one has more pages to touch.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Arrival, timeArrival } from '../arrival.ts';
import { totalCpu } from '../cpu.ts';
import type { Databases } from '../pair.ts';
import { NATIVE } from '../peers.ts';
import { REPEAT, type Scenario, say } from '../scenario.ts';
import { streamsOf } from '../streams.ts';
import { inTurns, type Stage } from '../while-streaming.ts';
import { type Cost, PLACES, report, TABLES } from './growth-report.ts';

/** A delta table that holds less than that is as good as empty. */
const FORGOTTEN_BYTES = 2 ** 20;
const FORGOTTEN_WITHIN_MS = 60_000;
/** The larger backlog meets the largest table, which alone has rows enough to spread it. */
const LARGE_BACKLOG = 10;

const options = {
  changes: { kind: 'number', default: 20_000, help: 'rows to change, and rows of the smallest table' },
  repeat: REPEAT,
} as const;

export const growth: Scenario<typeof options> = {
  name: 'growth',
  summary: 'cost of a change as the table grows x10 and x100, and the backlog x10',
  options,
  peers: [NATIVE],
  sizes: {
    smoke: [],
    all: [{ options: { repeat: 9 }, minutes: 3.5 }],
    full: [{ options: { changes: 100_000, repeat: 5 }, minutes: 20 }],
  },
  run: async ({ changes, repeat }, { peers, servers }) => {
    await using pair = await servers();
    const tables = {
      names: TABLES.map(nameOf),
      create: (databases: Databases) => create(databases, changes),
    };
    const turns = await inTurns({ pair, tables, repeat: 1 }, streamsOf(peers), (stage) =>
      measure(stage, changes, repeat),
    );
    return report(await pair.describe(), changes, turns);
  },
};

function nameOf(table: number): string {
  return `grown_x${table}`;
}

/**
 * Pages have room for another version of each row: rows stay where they are however often they change. No vacuum, which
 * comes when it likes and the later the larger a table is.
 */
async function create({ source, target }: Databases, changes: number): Promise<void> {
  for (const table of TABLES) {
    for (const { owner } of [source, target]) {
      await owner.query(
        `create table ${nameOf(table)} (id bigint primary key, value int not null, filler text)
         with (fillfactor = 50, autovacuum_enabled = off)`,
      );
    }
    await source.owner.query(
      `insert into ${nameOf(table)} select i, 0, repeat('x', 20) from generate_series(1, ${table * changes}) i`,
    );
  }
}

type Case = Pick<Cost, 'table' | 'place' | 'backlog'>;

/** All sizes take turns: a machine that is slower for a while is so for all of them. */
async function measure(stage: Stage, changes: number, repeat: number): Promise<Cost[]> {
  // Writes each page to the WAL as a whole, once after the checkpoint: the first of the others would pay for it.
  for (const table of TABLES) await timeArrival(stage, `update ${nameOf(table)} set value = value + 1`);
  await whenForgotten(stage);
  const cases = casesOf();
  const arrivals: Arrival[][] = cases.map(() => []);
  for (let time = 1; time <= repeat; time++) {
    say(`  time ${time} of ${repeat}`);
    for (const [i, one] of cases.entries()) {
      const statement = `update ${nameOf(one.table)} set value = value + 1 where ${rowsAt(one, changes, time)}`;
      arrivals[i]?.push(await timeArrival(stage, statement));
    }
  }
  return cases.map((one, i) => {
    const all = arrivals[i] ?? [];
    const perChange = (seconds: number) => (1e6 * seconds) / (changes * one.backlog);
    return {
      ...one,
      wall: all.map(({ arrival }) => perChange(arrival)),
      cpu: all.map(({ cpu }) => perChange(totalCpu(cpu))),
    };
  });
}

function casesOf(): Case[] {
  const backlogs = (table: number) => (table === Math.max(...TABLES) ? [1, LARGE_BACKLOG] : [1]);
  return PLACES.flatMap((place) =>
    TABLES.flatMap((table) => backlogs(table).map((backlog) => ({ table, place, backlog }))),
  );
}

/** What notes of that change are left on the source are its own cost, not that of those that follow. */
async function whenForgotten({ databases }: Stage): Promise<void> {
  const until = Date.now() + FORGOTTEN_WITHIN_MS;
  while (Date.now() < until) {
    const { rows } = await databases.source.owner.query<{ bytes: number }>(
      `select coalesce(sum(pg_relation_size(c.oid)), 0)::float8 as bytes
         from pg_class c where c.relnamespace = to_regnamespace('ibex') and c.relname ~ '^delta_'`,
    );
    if ((rows[0]?.bytes ?? 0) < FORGOTTEN_BYTES) return;
    await sleep(200);
  }
  throw new Error('the source still has the deltas of a change that was applied');
}

/** The condition of the rows that are changed. */
function rowsAt({ table, place, backlog }: Case, changes: number, time: number): string {
  if (place === 'the same rows') return `id <= ${changes * backlog}`;
  const every = table / backlog;
  return `id % ${every} = ${time % every}`;
}
