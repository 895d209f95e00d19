/** Both sides compared row by row, as text in one order, by nothing that the engine has a part in. */
import { createHash } from 'node:crypto';
import pg from 'pg';

export interface Comparison {
  readonly rows: number;
  /** One line for each table that differs. */
  readonly differences: string[];
}

export async function compareSides(
  sourceUrl: string,
  targetUrl: string,
  tables: readonly string[],
): Promise<Comparison> {
  const [source, target] = await Promise.all([dump(sourceUrl, tables), dump(targetUrl, tables)]);
  const differences: string[] = [];
  let rows = 0;
  for (const table of tables) {
    const [here, there] = [source.get(table) ?? [], target.get(table) ?? []];
    rows += here.length;
    if (digest(here) !== digest(there)) differences.push(`${table}: ${describe(here, there)}`);
  }
  return { rows, differences };
}

/** The rows of each table in the order of their text, columns by name. */
async function dump(url: string, tables: readonly string[]): Promise<Map<string, string[]>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query('begin isolation level repeatable read read only');
    const dumped = new Map<string, string[]>();
    for (const table of tables) {
      const { rows } = await client.query<{ row: string }>(
        `select to_jsonb(t)::text as row from ${table} t order by to_jsonb(t)::text collate "C"`,
      );
      dumped.set(
        table,
        rows.map(({ row }) => row),
      );
    }
    return dumped;
  } finally {
    await client.end();
  }
}

function digest(rows: readonly string[]): string {
  return createHash('md5').update(rows.join('\n')).digest('hex');
}

function describe(here: readonly string[], there: readonly string[]): string {
  const [left, right] = [new Set(here), new Set(there)];
  const missing = here.filter((row) => !right.has(row));
  const extra = there.filter((row) => !left.has(row));
  const some = (rows: string[]) => (rows.length === 0 ? 'none' : `${rows.length} (${rows.slice(0, 3)})`);
  return `${here.length} rows on the source, ${there.length} on the target; missing ${some(missing)}, extra ${some(extra)}`;
}
