/**
 * Whether both sides hold the same rows: every table, every column by its name, rows as text. Shares no code with
 * the engine, so that it cannot make the same mistake, and asks the databases alone.
 *
 * Each table is hashed and counted in SQL, in 256 buckets; only the rows of buckets that differ are fetched. Of a
 * partitioned table the partition counts as part of the row.
 */
import type { ClientBase } from 'pg';

export interface TableComparison {
  /** `schema.name`. */
  readonly table: string;
  /** Rows of the source. */
  readonly rows: number;
  /** Rows that one side has and the other lacks. */
  readonly differences: number;
  /** Up to five of them, as text. */
  readonly examples: readonly string[];
}

const MAX_EXAMPLES = 5;

/** Each side is read in one snapshot, with everything pinned that changes how a value prints. */
const BEGIN = `
  BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
  SET LOCAL search_path = pg_catalog;
  SET LOCAL row_security = off;
  SET LOCAL DateStyle = 'ISO, YMD';
  SET LOCAL IntervalStyle = 'postgres';
  SET LOCAL TimeZone = 'UTC';
  SET LOCAL extra_float_digits = 3;
  SET LOCAL bytea_output = 'hex';
  SET LOCAL statement_timeout = 0`;

const LIST_TABLES = `
  SELECT n.nspname || '.' || c.relname AS name,
         format(CASE c.relkind WHEN 'r' THEN 'ONLY %I.%I' ELSE '%I.%I' END, n.nspname, c.relname) AS "from",
         coalesce(string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C"), '')
           || CASE c.relkind WHEN 'p' THEN ', tableoid::regclass' ELSE '' END AS columns
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
   WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
     AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'ibex')
   GROUP BY n.nspname, c.relname, c.relkind`;

interface Table {
  readonly name: string;
  readonly from: string;
  readonly columns: string;
}

/** Compares everything outside the schemas of the system and of Ibex. The clients must not be in a transaction. */
export async function compareAll(source: ClientBase, target: ClientBase): Promise<TableComparison[]> {
  await Promise.all([source.query(BEGIN), target.query(BEGIN)]);
  try {
    const [left, right] = await Promise.all([listTables(source), listTables(target)]);
    const names = [...new Set([...left.keys(), ...right.keys()])].sort();
    const results: TableComparison[] = [];
    for (const name of names) {
      results.push(await compareTable(name, [source, left.get(name)], [target, right.get(name)]));
    }
    return results;
  } finally {
    await Promise.all([source.query('ROLLBACK'), target.query('ROLLBACK')]);
  }
}

async function listTables(client: ClientBase): Promise<Map<string, Table>> {
  const { rows } = await client.query<Table>(LIST_TABLES);
  return new Map(rows.map((table) => [table.name, table]));
}

type Side = [client: ClientBase, table: Table | undefined];

async function compareTable(table: string, source: Side, target: Side): Promise<TableComparison> {
  const [left, right] = [source[1], target[1]];
  if (left === undefined || right === undefined) {
    const examples = [left === undefined ? 'the source has no such table' : 'the target has no such table'];
    return { table, rows: 0, differences: 1, examples };
  }
  if (left.columns !== right.columns) {
    const examples = [`columns of the source: ${left.columns}`, `columns of the target: ${right.columns}`];
    return { table, rows: 0, differences: 1, examples };
  }
  const [here, there] = await Promise.all([hashBuckets(source[0], left), hashBuckets(target[0], right)]);
  const rows = [...here.values()].reduce((sum, { n }) => sum + Number(n), 0);
  const buckets = [...new Set([...here.keys(), ...there.keys()])].filter(
    (bucket) =>
      here.get(bucket)?.n !== there.get(bucket)?.n || here.get(bucket)?.sum !== there.get(bucket)?.sum,
  );
  if (buckets.length === 0) return { table, rows, differences: 0, examples: [] };
  const sides = await Promise.all([
    fetchRows(source[0], left, buckets),
    fetchRows(target[0], right, buckets),
  ]);
  return { table, rows, ...difference(...sides) };
}

/** Rows with their hash; hashes go by bytes, so that no collation has a say. */
function hashedRows({ from, columns }: Table): string {
  return `(SELECT r, hashtextextended(r COLLATE "C", 0) AS h FROM (SELECT ROW(${columns})::text AS r FROM ${from}) t) t`;
}

/** Number of rows and sum of their hashes by bucket: their order does not matter, how often they occur does. */
async function hashBuckets(
  client: ClientBase,
  table: Table,
): Promise<Map<number, { n: string; sum: string }>> {
  const { rows } = await client.query<{ bucket: number; n: string; sum: string }>(
    `SELECT (h & 255)::int AS bucket, count(*) AS n, sum(h) AS sum FROM ${hashedRows(table)} GROUP BY 1`,
  );
  return new Map(rows.map(({ bucket, n, sum }) => [bucket, { n, sum }]));
}

/** Each different row as text, with how often it occurs. */
async function fetchRows(client: ClientBase, table: Table, buckets: number[]): Promise<Map<string, number>> {
  const { rows } = await client.query<{ r: string; n: string }>(
    `SELECT r COLLATE "C" AS r, count(*) AS n FROM ${hashedRows(table)}
      WHERE (h & 255)::int = ANY ($1::int[]) GROUP BY 1 ORDER BY 1`,
    [buckets],
  );
  return new Map(rows.map(({ r, n }) => [r, Number(n)]));
}

function difference(source: Map<string, number>, target: Map<string, number>) {
  const excess = (rows: Map<string, number>, other: Map<string, number>, where: string) =>
    [...rows].flatMap(([row, n]) => {
      const more = n - (other.get(row) ?? 0);
      return more > 0 ? [{ more, text: `only in the ${where}: ${row.slice(0, 300)}` }] : [];
    });
  const all = [...excess(source, target, 'source'), ...excess(target, source, 'target')];
  return {
    differences: all.reduce((sum, { more }) => sum + more, 0),
    // By text, so that both versions of a row stand next to each other where their keys do.
    examples: all
      .map(({ text }) => text)
      .sort((a, b) => (a.slice(20) < b.slice(20) ? -1 : 1))
      .slice(0, MAX_EXAMPLES),
  };
}
