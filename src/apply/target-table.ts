/**
 * What the merge must know about a table of the target beyond its columns: whether a unique index can arbitrate,
 * which foreign keys tie it to others, what could fire or rewrite.
 */
import type { TableName, TablePlan } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';

export interface ForeignKey {
  readonly name: string;
  readonly child: TableName;
  readonly parent: TableName;
  /** `ALTER TABLE` that puts it back as it was. */
  readonly restore: string;
  /** Cannot be added NOT VALID: before PostgreSQL 18 a partitioned table cannot have such a one. */
  readonly checkedAtOnce: boolean;
}

export interface TargetFacts {
  readonly partitioned: boolean;
  /** ON CONFLICT can be said at all: the table has no rule on INSERT or UPDATE, not even a disabled one. */
  readonly takesOnConflict: boolean;
  /** There is an immediate, whole unique index over exactly the key, to infer from it. */
  readonly arbiter: boolean;
  readonly identityAlways: readonly string[];
  /** Columns that the batch does not bring and that are not generated: they keep what they hold. */
  readonly others: readonly string[];
  /** Triggers or rules of the application that would fire for our writes. */
  readonly interferes: boolean;
}

const READ_FACTS = `
  select c.relkind = 'p' as partitioned,
         exists (
           select from pg_index i
            where i.indrelid = c.oid and i.indisunique and i.indimmediate and i.indisvalid
              and i.indpred is null and i.indexprs is null and i.indnkeyatts = cardinality($2::text[])
              and (select array_agg(a.attname::text order by a.attname::text collate "C")
                     from unnest(i.indkey::int2[]) with ordinality k(attnum, ord)
                     join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
                    where k.ord <= i.indnkeyatts)
                  = (select array_agg(n order by n collate "C") from unnest($2::text[]) n)
         ) as arbiter,
         not exists (
           select from pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('2', '3')
         ) as "takesOnConflict",
         coalesce((select array_agg(a.attname::text) from pg_attribute a
                    where a.attrelid = c.oid and a.attidentity = 'a' and not a.attisdropped), '{}') as "identityAlways",
         coalesce((select array_agg(a.attname::text order by a.attnum) from pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                      and a.attname <> all ($3::text[])), '{}') as others,
         exists (
           select from pg_trigger t
            where t.tgrelid = c.oid and not t.tgisinternal and t.tgname !~ '^~?ibex_[a-z]+_[0-9]+$'
              and t.tgenabled = any (case current_setting('session_replication_role')
                                       when 'replica' then array['A', 'R'] else array['O', 'A'] end::"char"[])
         ) or exists (
           select from pg_rewrite r
            where r.ev_class = c.oid and r.ev_type in ('2', '3', '4')
              and r.ev_enabled = any (case current_setting('session_replication_role')
                                        when 'replica' then array['A', 'R'] else array['O', 'A'] end::"char"[])
         ) as interferes
    from pg_class c where c.oid = to_regclass($1)`;

export async function readFacts(
  session: Session,
  plan: TablePlan,
  quotedName: string,
): Promise<TargetFacts | undefined> {
  const names = plan.columns.map((column) => column.name);
  const key = names.slice(0, plan.keyLength);
  const [facts] = await session.rows<TargetFacts>(READ_FACTS, [quotedName, key, names]);
  return facts;
}

const READ_FOREIGN_KEYS = `
  select k.conname as name,
         c.relkind = 'p' and current_setting('server_version_num')::int < 180000 as "checkedAtOnce",
         json_build_object('schema', cn.nspname, 'name', c.relname) as child,
         json_build_object('schema', pn.nspname, 'name', p.relname) as parent,
         format('alter table %I.%I add constraint %I %s', cn.nspname, c.relname, k.conname,
                pg_get_constraintdef(k.oid)) as restore
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid join pg_namespace cn on cn.oid = c.relnamespace
    join pg_class p on p.oid = k.confrelid join pg_namespace pn on pn.oid = p.relnamespace
   where k.contype = 'f' and k.conparentid = 0
     and exists (select from json_to_recordset($1) w(schema text, name text)
                  where (w.schema, w.name) in ((cn.nspname, c.relname), (pn.nspname, p.relname)))
   order by 3::text, 1`;

/** Every foreign key that starts or ends at one of the tables. */
export async function readForeignKeys(session: Session, tables: readonly TableName[]): Promise<ForeignKey[]> {
  if (tables.length === 0) return [];
  const wanted = tables.map(({ schema, name }) => ({ schema, name }));
  return session.rows<ForeignKey>(READ_FOREIGN_KEYS, [JSON.stringify(wanted)]);
}
