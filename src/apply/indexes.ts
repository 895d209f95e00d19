/**
 * The indexes of the target's tables, with the constraints that they serve: which there are, what puts each back
 * exactly as it was, and which rows are too many under one that tells keys apart.
 */
import { keyOf, type TableName, type TablePlan } from '../core/plan.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { isKeyIndex, treeOf } from './target-table.ts';

export interface TableIndex {
  readonly name: string;
  /** The table or partition that it stands on, and its oid. */
  readonly table: TableName;
  readonly relation: number;
  /** The index of a partitioned table on which it hangs, or itself. */
  readonly top: string;
  /** What drops it, with all that hang on it. */
  readonly drop: string;
  /** The foreign keys that need it: their tables and names. */
  readonly referencedBy: readonly { readonly relation: TableName; readonly name: string }[];
  /** It cannot be, or had better not be, dropped. */
  readonly stays: boolean;
  /** How many tables up the root of its partitions is, itself included; 0 where there are no partitions. */
  readonly depth: number;
  /** The statements that put it back, with its constraint and whatever marks it. */
  readonly restore: string;
  /** Of these the one that reads the table, under a lock that lets others build; null where there is none. */
  readonly build: string | null;
  /** The statements that put its comments back. */
  readonly remark: string | null;
  /** Numbers of the columns without which it is nothing. */
  readonly needs: readonly number[];
  /** Numbers of the columns of the key that it tells apart; null when it tells none. */
  readonly key: readonly number[] | null;
  /** All that can be said of it: what comes back is to read the same. */
  readonly description: string;
}

/**
 * A partition's index hangs on that of its table, and so on up. A statement that makes one for a partitioned table
 * takes over those of its partitions that are alike.
 */
const READ_INDEXES = `
  with recursive hanging as (
    select i.indexrelid as oid, null::oid as parent, i.indexrelid as top
      from pg_index i
     where i.indrelid in (select m.oid from to_regclass($1) r cross join lateral ${treeOf('r')} m)
       and not exists (select from pg_inherits h where h.inhrelid = i.indexrelid)
    union all
    select h.inhrelid, h.inhparent, g.top from hanging g join pg_inherits h on h.inhparent = g.oid
  )
  select x.relname as name, json_build_object('schema', n.nspname, 'name', c.relname) as table, c.oid::int8::float8 as relation, w.depth::int4 as depth,
         g.top::regclass::text as top,
         case when k.oid is not null then format('alter table %s drop constraint %I', w.table, x.relname)
              else format('drop index %I.%I', n.nspname, x.relname) end as drop,
         array(select json_build_object('relation', json_build_object('schema', fn.nspname, 'name', fc.relname), 'name', f.conname)
                 from pg_constraint f join pg_class fc on fc.oid = f.conrelid join pg_namespace fn on fn.oid = fc.relnamespace
                where f.contype = 'f' and f.conindid = x.oid and f.conparentid = 0) as "referencedBy",
         not i.indisvalid or (w.key is not null and i.indisexclusion) or left(w.def, length(w.head)) <> w.head
           or exists (select from pg_depend d where d.deptype in ('e', 'x')
                         and (d.classid, d.objid) in (('pg_class'::regclass, x.oid), ('pg_constraint'::regclass, k.oid)))
           as stays,
         concat_ws('; ', b.made, b.served, m.marks) as restore, case when x.relkind = 'i' then b.made end as build,
         nullif(concat_ws('; ',
           format('comment on index %I.%I is ', n.nspname, x.relname) || quote_literal(obj_description(x.oid, 'pg_class')),
           format('comment on constraint %I on %I.%I is ', x.relname, n.nspname, c.relname)
             || quote_literal(obj_description(k.oid, 'pg_constraint'))), '') as remark,
         w.needs, w.key,
         concat_ws(' ', w.def, pg_get_constraintdef(k.oid), x.reltablespace, x.reloptions, g.parent::regclass,
                   i.indimmediate, i.indisclustered, i.indisreplident, b.made, b.served, m.marks) as description
    from hanging g
    join pg_index i on i.indexrelid = g.oid join pg_class x on x.oid = g.oid
    join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
    left join pg_constraint k on k.conindid = x.oid and k.conrelid = c.oid and k.contype in ('p', 'u', 'x')
    left join pg_tablespace s on s.oid = x.reltablespace
    cross join lateral (
      select (select count(*) from pg_partition_ancestors(c.oid)) as depth,
             pg_get_indexdef(x.oid) as def,
             format('%s%I.%I', case when c.relkind = 'r' then 'only ' end, n.nspname, c.relname) as table,
             format('CREATE %sINDEX %I ON %s%I.%I ', case when i.indisunique then 'UNIQUE ' end, x.relname,
                    case when x.relkind = 'I' then 'ONLY ' end, n.nspname, c.relname) as head,
             array(select distinct d.refobjsubid::int2 from pg_depend d
                    where (d.classid, d.objid) in (('pg_class'::regclass, x.oid), ('pg_constraint'::regclass, k.oid))
                      and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.refobjsubid > 0) as needs,
             case when ${isKeyIndex('i', '$2')} then (i.indkey::int2[])[0:i.indnkeyatts - 1] end as key,
             k.contype in ('p', 'u') and x.relkind = 'i' and not i.indisexclusion as attached
    ) w
    cross join lateral (
      select case when k.oid is null or w.attached then
               concat('set default_tablespace to ' || quote_ident(s.spcname) || '; ',
                      format('CREATE %sINDEX IF NOT EXISTS %I ON %I.%I ', case when i.indisunique then 'UNIQUE ' end,
                             x.relname, n.nspname, c.relname) || substr(w.def, length(w.head) + 1),
                      case when s.spcname is not null then '; reset default_tablespace' end) end as made,
             case when k.oid is not null then
               format('alter table %s add constraint %I ', w.table, x.relname)
               || case when w.attached
                       then format('%s using index %I%s%s', case k.contype when 'p' then 'primary key' else 'unique' end,
                                   x.relname, case when k.condeferrable then ' deferrable' end,
                                   case when k.condeferred then ' initially deferred' end)
                       else pg_get_constraintdef(k.oid) end end as served
    ) b
    cross join lateral (
      select string_agg(mark, '; ') as marks
        from (select format('alter table %s cluster on %I', w.table, x.relname) where i.indisclustered
              union all
              select format('alter table %s replica identity using index %I', w.table, x.relname) where i.indisreplident
              union all
              (select format('alter index %I.%I alter column %s set statistics %s', n.nspname, x.relname, a.attnum,
                             a.attstattarget)
                 from pg_attribute a where a.attrelid = x.oid and a.attstattarget >= 0 order by a.attnum)) marks(mark)
    ) m
   order by w.depth desc, x.relname, c.oid`;

/** Every index of the table and its partitions, those of partitions first. */
export async function readIndexes(session: Session, plan: TablePlan): Promise<TableIndex[]> {
  const key = keyOf(plan).map((column) => column.name);
  return session.rows<TableIndex>(READ_INDEXES, [tableIdent(plan), key]);
}

/**
 * Leaves one row of each key, whichever. A row that moves while its table is copied in several snapshots comes twice;
 * the batch that takes the table into step writes its key anew. To be called where nothing fires.
 */
export async function removeSurplus(
  session: Session,
  relation: TableName,
  key: readonly number[],
): Promise<void> {
  const names = await session.rows<{ name: string }>(
    `select a.attname as name from unnest($2::int2[]) with ordinality k(number, place)
       join pg_attribute a on a.attrelid = to_regclass($1) and a.attnum = k.number order by k.place`,
    [tableIdent(relation), key],
  );
  const columns = names.map(({ name }) => ident(name)).join(', ');
  await session.run(
    `delete from only ${tableIdent(relation)} t
      using (select ctid as place, row_number() over (partition by ${columns}) as n from only ${tableIdent(relation)}) s
      where s.n > 1 and t.ctid = s.place`,
  );
}
