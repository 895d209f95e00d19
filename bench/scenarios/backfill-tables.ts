/** The tables that the scenario `backfill` copies: their shape, their rows, and how a target is emptied again. */
import type { Databases, Side } from '../pair.ts';
import { PGBENCH_TABLES, pgbench } from '../pgbench.ts';

export type CaseName = 'narrow' | 'wide' | 'many' | 'clone';
export const CASES: readonly CaseName[] = ['narrow', 'wide', 'many', 'clone'];

export interface Case {
  readonly name: CaseName;
  readonly title: string;
  readonly rows: number;
  readonly tables: readonly string[];
  /** Makes the tables with their keys, without rows. */
  create(side: Side): Promise<void>;
  /** Puts the rows into the source. */
  fill(databases: Databases): Promise<void>;
  /** What a copy leaves to compare beside the rows: why the target is not what it should be; empty when it is. */
  check?(databases: Databases): Promise<string[]>;
  /** Makes the target what it was before a copy. */
  empty(databases: Databases): Promise<void>;
}

const ROWS_OF_MANY = 100;
const WIDE_BYTES = 20_000;
/** Statements on so many tables stay below the locks that a server has room for. */
const TABLES_AT_ONCE = 200;
const PGBENCH_ROWS = 100_000;

/** Rows like those of pgbench_accounts: about 100 bytes. */
export function narrow(rows: number): Case {
  return {
    name: 'narrow',
    title: `${rows} rows of about 100 bytes in one table`,
    rows,
    tables: ['narrow'],
    create: async ({ owner }) => {
      await owner.query('create table narrow (aid int primary key, bid int, abalance int, filler char(84))');
    },
    fill: async ({ source }) => {
      await source.owner.query(
        `insert into narrow select i, 1 + i / ${PGBENCH_ROWS}, 0, '' from generate_series(1, ${rows}) i`,
      );
    },
    empty: async ({ target }) => {
      await target.owner.query('truncate narrow');
    },
  };
}

/** Rows of 20 kB, out of line, of random bytes that nothing can compress. */
export function wide(rows: number): Case {
  return {
    name: 'wide',
    title: `${rows} rows of 20 kB, out of line, in one table`,
    rows,
    tables: ['wide'],
    create: async ({ owner }) => {
      await owner.query('create table wide (id bigint primary key, body bytea not null)');
      await owner.query('alter table wide alter body set storage external');
    },
    fill: async ({ source }) => {
      // Windows into one megabyte of noise: no two rows are alike, and none repeats itself.
      await source.owner.query(
        `with noise as materialized (
           select string_agg(sha512(int4send(i)), null order by i) as bytes from generate_series(1, 16384) i
         )
         insert into wide
         select i, substring(bytes from 1 + (i * 7919) % (length(bytes) - ${WIDE_BYTES}) for ${WIDE_BYTES})
           from noise, generate_series(1, ${rows}) i`,
      );
    },
    empty: async ({ target }) => {
      await target.owner.query('truncate wide');
    },
  };
}

/** Many tables of 100 rows. */
export function many(count: number): Case {
  const tables = Array.from({ length: count }, (_, i) => `small_${i + 1}`);
  const batches = Array.from({ length: Math.ceil(count / TABLES_AT_ONCE) }, (_, i) =>
    tables.slice(i * TABLES_AT_ONCE, (i + 1) * TABLES_AT_ONCE),
  );
  const forEach = async ({ owner }: Side, statement: (table: string) => string) => {
    for (const batch of batches) await owner.query(batch.map(statement).join('; '));
  };
  return {
    name: 'many',
    title: `${count} tables of ${ROWS_OF_MANY} rows`,
    rows: count * ROWS_OF_MANY,
    tables,
    create: (side) =>
      forEach(side, (table) => `create table ${table} (id int primary key, value text not null)`),
    fill: ({ source }) =>
      forEach(
        source,
        (table) =>
          `insert into ${table} select i, repeat('x', 84) from generate_series(1, ${ROWS_OF_MANY}) i`,
      ),
    empty: async ({ target }) => {
      for (const batch of batches) await target.owner.query(`truncate ${batch.join(', ')}`);
    },
  };
}

/** pgbench's own tables; the target has none of them: who copies brings the schema and the primary keys as well. */
export function clone(rows: number): Case {
  const scale = Math.max(1, Math.round(rows / PGBENCH_ROWS));
  return {
    name: 'clone',
    title: `schema, rows and primary keys of pgbench tables of scale ${scale}`,
    rows: scale * PGBENCH_ROWS,
    tables: PGBENCH_TABLES,
    create: () => Promise.resolve(),
    fill: async ({ source }) => {
      await pgbench(source.login, ['-i', '-q', '-s', String(scale), '-I', 'dtGp']);
    },
    check: async ({ source, target }) => {
      const [left, right] = [await primaryKeys(source), await primaryKeys(target)];
      return left === right ? [] : [`primary keys: ${left} on the source, ${right} on the target`];
    },
    empty: async ({ target }) => {
      await target.superuser.query(`drop table if exists ${PGBENCH_TABLES.join(', ')}`);
    },
  };
}

async function primaryKeys({ superuser }: Side): Promise<string> {
  const { rows } = await superuser.query<{ keys: string }>(
    `select string_agg(conrelid::regclass || ' ' || pg_get_constraintdef(oid), ', ' order by conname) as keys
       from pg_constraint where contype = 'p' and connamespace = 'public'::regnamespace`,
  );
  return rows[0]?.keys ?? 'none';
}
