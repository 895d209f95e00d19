/** What a database holds, as its catalogs say it: random DDL picks from that. */
import type pg from 'pg';

export interface Column {
  readonly name: string;
  readonly type: string;
  readonly generated: boolean;
  readonly identity: string;
  readonly notNull: boolean;
  /** Part of the primary key. */
  readonly key: boolean;
}

export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** Quoted, with its schema. */
  readonly sql: string;
  readonly partitioned: boolean;
  readonly partitionOf: string | null;
  readonly columns: readonly Column[];
  readonly indexes: readonly {
    readonly name: string;
    readonly unique: boolean;
    readonly constraint: boolean;
  }[];
  readonly constraints: readonly { readonly name: string; readonly type: string }[];
}

const READ = `
  select c.oid::int8::int4 as oid, n.nspname as schema, c.relname as name, format('%I.%I', n.nspname, c.relname) as sql,
         c.relkind = 'p' as partitioned,
         case when c.relispartition then
           (select format('%I.%I', pn.nspname, p.relname) from pg_inherits i join pg_class p on p.oid = i.inhparent
              join pg_namespace pn on pn.oid = p.relnamespace where i.inhrelid = c.oid) end as "partitionOf",
         coalesce((select json_agg(json_build_object(
                     'name', quote_ident(a.attname), 'type', format_type(a.atttypid, a.atttypmod),
                     'generated', a.attgenerated <> '', 'identity', a.attidentity, 'notNull', a.attnotnull,
                     'key', exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary
                                       and a.attnum = any (i.indkey))) order by a.attnum)
                     from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns,
         coalesce((select json_agg(json_build_object(
                     'name', quote_ident(x.relname), 'unique', i.indisunique,
                     'constraint', exists (select from pg_constraint k where k.conindid = x.oid)) order by x.relname)
                     from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid), '[]') as indexes,
         coalesce((select json_agg(json_build_object('name', quote_ident(k.conname), 'type', k.contype) order by k.conname)
                     from pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'f', 'p', 'u')), '[]') as constraints
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname in ('public', 'other') and c.relkind in ('r', 'p') order by 1, 2`;

export async function readCatalog(client: pg.Client): Promise<Relation[]> {
  const { rows } = await client.query<Relation>(READ);
  return rows;
}
