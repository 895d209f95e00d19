/**
 * The copy of a database that is in full use, with everything in between that moves rows behind a reader's back.
 * TEST_BACKFILL_SCALE makes the tables larger, TEST_BACKFILL_ROUNDS repeats it with other seeds.
 */
import pg from 'pg';
import { describe, expect, test, vi } from 'vitest';
import { bytes, startChurn } from '../support/churn.ts';
import { BANK, BANK_ROWS, startLoad } from '../support/load.ts';
import { MODES, usePair } from '../support/pair.ts';
import { randomFrom, seedOf } from '../support/random.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

/** Small ones, so that small tables have many. */
vi.mock('../../src/backfill/chunks.ts', async (original) => ({
  ...(await original<object>()),
  chunkSize: () => 256 * 1024,
}));

const servers = await useServers();
const SCALE = Number(process.env.TEST_BACKFILL_SCALE ?? 1);
const ROUNDS = Number(process.env.TEST_BACKFILL_ROUNDS ?? 1);

const TABLES = ['plain', 'vacuumed', 'clustered', 'rewritten', 'refilled'];
/**
 * Some 40 chunks: the rows lie far apart on the source's disk, with room beside them. That is more than 8 MiB, from which
 * on the target's indexes come after the rows.
 */
const ROWS = Math.round(3_000 * SCALE);

const SCHEMA = `${BANK}
  ${[...TABLES, 'wide']
    .map(
      (name) => `create table ${name} (id bigint primary key, v int not null, pad text);
                 create index on ${name} (v); create unique index on ${name} ((id * 2));`,
    )
    .join(' ')}`;

function fill(table: string): string {
  return `insert into ${table} select i, 0, repeat('x', 300) from generate_series(1, ${ROWS}) i on conflict do nothing`;
}

/** Beside others that insert the same keys by turns, filling would sooner or later be one half of a deadlock with them. */
function filledAlone(table: string): string {
  return `begin; lock ${table} in share row exclusive mode; ${fill(table)}; commit`;
}

/** What happens to a table once some of its chunks are copied, and others are not. */
const EVENTS: Readonly<Record<string, readonly string[]>> = {
  plain: ['vacuum plain'],
  vacuumed: ['vacuum full vacuumed'],
  clustered: ['cluster clustered using clustered_pkey'],
  rewritten: ['alter table rewritten alter v type int using v + 0'],
  refilled: [
    'truncate refilled',
    filledAlone('refilled'),
    `begin; truncate refilled; ${fill('refilled')}; commit`,
  ],
};

async function readIndexes(client: pg.Client): Promise<unknown[]> {
  const { rows } = await client.query(
    `select indexdef from pg_indexes where schemaname = 'public' order by indexname`,
  );
  return rows;
}

describe.each(MODES)('where $mode', ({ mode, replica }) => {
  const pair = usePair(servers, { replica });

  /** By table, how many chunks are copied and how many are left. */
  async function readChunks(): Promise<Map<string, { done: number; left: number }>> {
    const { rows } = await pair.target.query(
      `select t.table_name, count(c.rows)::int as done, count(*)::int - count(c.rows)::int as left
         from ibex.chunk c join ibex.target_table t using (sync, relid) group by t.table_name`,
    );
    return new Map(rows.map(({ table_name, ...chunks }) => [table_name, chunks]));
  }

  async function fillSource(): Promise<void> {
    await pair.source.query(BANK_ROWS);
    for (const table of TABLES) {
      await pair.source.query(`alter table ${table} set (fillfactor = 10); ${fill(table)}`);
    }
    await pair.source.query(`alter table wide alter pad set storage external;
      insert into wide select i, 0, ${bytes(40_000, 'i')} from generate_series(1, ${80 * SCALE}) i`);
  }

  /** Lets everything happen, each in the middle of the copy of its table. Resolves to what did. */
  async function happen(application: pg.Client, random: () => number): Promise<string[]> {
    const happened: string[] = [];
    const due = Object.keys(EVENTS).map((table) => ({ table, from: 1 + Math.floor(random() * 8) }));
    while (due.length > 0) {
      const isNext = async () => {
        const chunks = await readChunks();
        return due.findIndex(({ table, from }) => (chunks.get(table)?.done ?? 0) >= from) + 1;
      };
      const what = `chunks of ${due.map(({ table }) => table)}`;
      const next = await waitFor(isNext, { what, timeout: 120_000 });
      const { table } = due[next - 1] as { table: string };
      due.splice(next - 1, 1);
      for (const statement of EVENTS[table] as readonly string[]) {
        const { done = 0, left = 0 } = (await readChunks()).get(table) ?? {};
        if (left > 0) happened.push(`${statement.slice(0, 30)} at ${done}/${done + left}`);
        await application.query(statement);
      }
    }
    return happened;
  }

  test.for(Array.from({ length: ROUNDS }, (_, i) => i + 1))(
    'a copy beside every kind of write and rewrite ends exact (round %i)',
    { timeout: 300_000 + 60_000 * SCALE },
    async () => {
      const seed = seedOf(`under load, ${mode}`);
      await onBoth(pair.databases, SCHEMA);
      await fillSource();
      const url = pair.databases.sourceUrl;
      const load = await startLoad(url, { clients: 3, seed, pauseMs: 0 });
      const churn = await startChurn(url, { tables: [...TABLES, 'wide'], rows: ROWS, seed });
      const application = new pg.Client({ connectionString: url });
      await application.connect();
      try {
        pair.start({ flags: { limitMbps: '2', jobs: '3' } });
        await waitFor(
          async () =>
            (await pair.target.query("select from ibex.parked where kind = 'index'")).rowCount ===
            3 * TABLES.length,
          { what: 'all indexes of the large tables to be set aside' },
        );
        const happened = await happen(application, randomFrom(seed));
        console.log(`${happened.join(', ')}; ${load.done} + ${churn.done} transactions`);
        expect(happened.length).toBeGreaterThan(3);
      } finally {
        await application.end();
        await load.stop();
        await churn.stop();
      }
      expect(load.errors).toEqual([]);
      await pair.equal(120_000);
      expect(await readIndexes(pair.target)).toEqual(await readIndexes(pair.source));
    },
  );
});
