/**
 * What a database holds beside its tables that no sync carries. Setup names it, so that nobody finds out on the
 * day of the move.
 */
import { FOREIGN_SCHEMAS } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';

const LEFT_BEHIND = `
  select format('%s large objects are not carried, they are in no table; move them with: pg_dump --blobs --section=data',
                count(*)) as note
    from pg_largeobject_metadata having count(*) > 0
  union all
  select note from (
    select format(case c.relkind when 'm' then 'materialized view %I.%I is not carried; on the target: refresh materialized view %1$I.%2$I;'
                                 else 'foreign table %I.%I is not carried: its rows are on another server' end,
                  n.nspname, c.relname) as note
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('m', 'f') and not c.relispartition and n.nspname !~ $1
       and not exists (select from pg_depend d
                        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by n.nspname, c.relname) relations`;

/** One sentence each: what it is, and what to do about it. */
export async function readLeftBehind(source: Session): Promise<string[]> {
  const rows = await source.rows<{ note: string }>(LEFT_BEHIND, [FOREIGN_SCHEMAS]);
  return rows.map(({ note }) => note);
}
