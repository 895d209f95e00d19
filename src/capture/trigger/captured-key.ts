/** By which key a table is captured on its node. */
import type { TableName } from '../../core/plan.ts';
import type { Session } from '../../postgres/session.ts';

export interface CapturedKey {
  readonly relid: number;
  /** As the table calls them now. */
  readonly columns: readonly string[];
}

/** Null where the table is not captured, or has its rows noted whole. */
export async function findCapturedKey(session: Session, table: TableName): Promise<CapturedKey | null> {
  const { there } = await session.row<{ there: boolean }>(
    `select to_regclass('ibex.captured') is not null as there`,
  );
  if (!there) return null;
  const [found] = await session.rows<CapturedKey>(
    `select c.relid::int8::float8 as relid,
            (select array_agg(a.attname::text order by k.place)
               from unnest(c.attnums) with ordinality k(attnum, place)
               join pg_attribute a on a.attrelid = c.relid and a.attnum = k.attnum) as columns
       from ibex.captured c join pg_class t on t.oid = c.relid join pg_namespace n on n.oid = t.relnamespace
      where c.mode = 'key' and c.armed_at is not null and n.nspname = $1 and t.relname = $2`,
    [table.schema, table.name],
  );
  return found ?? null;
}
