/** The form of the questions that `before-rows.ts` and `after-rows.ts` ask of the catalogs, and what they share. */
import { FOREIGN_SCHEMAS } from '../../postgres/catalog.ts';
import { literal } from '../../postgres/quote.ts';

/** The pattern of schemas that are not the application's, as SQL. */
export const FOREIGN = literal(FOREIGN_SCHEMAS);

/** One kind of objects: where they are found, and what makes each of them. */
export interface ObjectQuery {
  /** As in CREATE, lower case. */
  readonly kind: string;
  /** Expressions for the catalog that holds an object, and for its oid in there. */
  readonly catalog: string;
  readonly oid: string;
  /** Expressions for the quoted name, unique among objects of the kind, and for the statement without semicolon. */
  readonly name: string;
  readonly statement: string;
  /** FROM and WHERE. */
  readonly from: string;
  /** Expressions for the partitioned index that an index belongs to, and for the table that it stands on. */
  readonly under?: { readonly index: string; readonly table: string };
}

/** The statement that asks. Rows: kind, name, statement, catalog, oid, and under, which is null or an object. */
export function textOf({ kind, catalog, oid, name, statement, from, under }: ObjectQuery): string {
  const parent =
    under === undefined
      ? 'null::json'
      : `case when ${under.index} is not null
              then json_build_object('index', ${under.index}, 'table', ${under.table}) end`;
  return `select '${kind}' as kind, ${name} as name, ${statement} as statement,
                 ${catalog} as catalog, (${oid})::int8::text as oid, ${parent} as under
            from ${from} order by (${oid})::oid, 2`;
}

/** That an object belongs to the application, not to an extension. */
export function ofApplication(catalog: string, oid: string, schema = 'n.nspname'): string {
  return `${schema} !~ ${FOREIGN}
     and not exists (select from pg_depend e
                      where e.classid = '${catalog}'::regclass and e.objid = ${oid} and e.deptype = 'e')`;
}

/** `schema.name` of a row of pg_class or the like, and its pg_namespace. */
export function qualified(column: string, namespace = 'n'): string {
  return `format('%I.%I', ${namespace}.nspname, ${column})`;
}

/** `name on schema.table`. */
export function onTable(column: string): string {
  return `format('%I on %I.%I', ${column}, n.nspname, c.relname)`;
}

/** That table `c` in schema `n` is one that rows are written into. */
export const IS_TABLE = `c.relkind in ('r', 'p') and c.relpersistence <> 't' and ${ofApplication('pg_class', 'c.oid')}`;

/** A column's type with its modifier, and its collation where it is not the type's own. */
export const TYPE_AND_COLLATION = `
  format_type(a.atttypid, a.atttypmod) ||
  coalesce((select format(' collate %I.%I', cn.nspname, l.collname)
              from pg_collation l join pg_namespace cn on cn.oid = l.collnamespace
              join pg_type ct on ct.oid = a.atttypid
             where l.oid = a.attcollation and a.attcollation <> ct.typcollation), '')`;

export const SEQUENCE_OPTIONS = `
  format('increment by %s minvalue %s maxvalue %s start with %s cache %s%s', s.seqincrement, s.seqmin, s.seqmax,
         s.seqstart, s.seqcache, case when s.seqcycle then ' cycle' else '' end)`;

/** What storage parameters a relation and its TOAST table have, as WITH clause; null without any. */
export const STORAGE_PARAMETERS = `
  (select format(' with (%s)', string_agg(p.o, ', '))
     from (select unnest(c.reloptions) as o
           union all
           select 'toast.' || unnest(tc.reloptions) from pg_class tc where tc.oid = c.reltoastrelid) p
   having count(*) > 0)`;

/**
 * Views that need a constraint to be there, since they group by a key and name other columns, and views that read
 * such views. Others can be made before keys are.
 */
export const NEEDS_KEY = `
  (with recursive late(oid) as (
     select r.ev_class from pg_depend d join pg_rewrite r on r.oid = d.objid
      where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_constraint'::regclass
     union
     select r.ev_class from late l
       join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = l.oid
                       and d.classid = 'pg_rewrite'::regclass
       join pg_rewrite r on r.oid = d.objid
   ) select oid from late)`;
