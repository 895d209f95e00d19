/**
 * Writes that a copy has most to fear from: rows that come, go and change their keys behind and before the place where
 * it is reading, rows that outgrow their page and move to another one, values of 40 kB that are stored out of line.
 */
import pg from 'pg';
import { randomFrom } from './random.ts';

export interface Churn {
  /** Transactions committed so far. */
  readonly done: number;
  /** Ends it, when its writers are through; rejects with what one of them was told instead of being served. */
  stop(): Promise<void>;
}

export interface ChurnOptions {
  /** Each with the columns `id bigint` (its key), `v int`, `pad text`. */
  readonly tables: readonly string[];
  /** The keys that the rows had in the beginning are 1 to so many. */
  readonly rows: number;
  readonly writers?: number;
  readonly seed: number;
}

type Below = (limit: number) => number;

/** A value that cannot be compressed away, of about so many bytes. */
export function bytes(length: number, of: string): string {
  const hashes = Math.ceil(length / 32);
  return `(select string_agg(md5(${of} || '-' || h), '') from generate_series(1, ${hashes}) h)`;
}

/** One write to a table; those of different writers never meet in a row, so that none has to wait or fail. */
function write(table: string, { rows, writer, writers }: Mine, below: Below): string {
  const first = 1 + below(rows);
  const mine = `((id % ${writers}) + ${writers}) % ${writers} = ${writer}`;
  const some = `id between ${first} and ${first + below(200)} and ${mine}`;
  const id = writer + writers * below(Math.ceil(rows / writers));
  const fresh = `select ${id} + ${writers * rows} * s, ${below(1000)}, 'new' from generate_series(0, ${below(20)}) s`;
  const kinds = [
    `update ${table} set v = v + 1 where ${some}`,
    // Too long for the place they have: these rows move to another page.
    `update ${table} set pad = repeat('long ', 200 + ${below(800)}) where ${some}`,
    `update ${table} set pad = ${bytes(40_000, `id`)} where id in (${id}, -${id})`,
    `delete from ${table} where ${some}`,
    `insert into ${table} ${fresh} on conflict (id) do update set v = -1, pad = excluded.pad`,
    // A writer owns a key and its opposite, so that there is room for each.
    `update ${table} set id = -id where id in (select id from ${table} t where ${some}
        and not exists (select from ${table} o where o.id = -t.id))`,
    `with gone as (delete from ${table} where ${some} returning v, pad, id)
     insert into ${table} select id + ${writers * 1_000_000}, v, pad from gone on conflict do nothing`,
  ];
  return kinds[below(kinds.length)] as string;
}

interface Mine {
  readonly rows: number;
  readonly writer: number;
  readonly writers: number;
}

export async function startChurn(url: string, options: ChurnOptions): Promise<Churn> {
  const { tables, rows, writers = 2, seed } = options;
  const churn = { done: 0 };
  let stopping = false;
  const running = Array.from({ length: writers }, async (_, writer) => {
    const random = randomFrom(seed + writer);
    const below = (limit: number) => Math.floor(random() * limit);
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      while (!stopping) {
        const table = tables[below(tables.length)] as string;
        const statements = Array.from({ length: 1 + below(3) }, () =>
          write(table, { rows, writer, writers }, below),
        );
        await client.query(`begin; ${statements.join('; ')}; ${random() < 0.1 ? 'rollback' : 'commit'}`);
        churn.done++;
      }
    } finally {
      await client.end();
    }
  });
  for (const writer of running) writer.catch(() => undefined);
  return Object.assign(churn, {
    stop: async () => {
      stopping = true;
      await Promise.all(running);
    },
  });
}
