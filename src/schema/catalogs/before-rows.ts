/**
 * What rows are written into, read from the catalogs: the kinds in the order in which they are best made.
 *
 * Owners, privileges, tablespaces and what belongs to extensions are left out: the target has its own.
 */
import {
  IS_TABLE,
  NEEDS_KEY,
  type ObjectQuery,
  ofApplication,
  onTable,
  qualified,
  SEQUENCE_OPTIONS,
  STORAGE_PARAMETERS,
  TYPE_AND_COLLATION,
} from './query.ts';

const SCHEMAS: ObjectQuery = {
  kind: 'schema',
  catalog: `'pg_namespace'`,
  oid: 'n.oid',
  name: 'quote_ident(n.nspname)',
  statement: `format('create schema %I', n.nspname)`,
  from: `pg_namespace n where ${ofApplication('pg_namespace', 'n.oid')} and n.nspname <> 'public'`,
};

const EXTENSIONS: ObjectQuery = {
  kind: 'extension',
  catalog: `'pg_extension'`,
  oid: 'x.oid',
  name: 'quote_ident(x.extname)',
  statement: `format('create extension %I%s', x.extname,
    case when n.nspname = 'pg_catalog' then '' else format(' with schema %I', n.nspname) end)`,
  from: `pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname <> 'plpgsql'`,
};

const COLLATIONS: ObjectQuery = {
  kind: 'collation',
  catalog: `'pg_collation'`,
  oid: 'l.oid',
  name: qualified('l.collname'),
  statement: `format('create collation %I.%I (provider = %s, %s, deterministic = %s%s)', n.nspname, l.collname,
    case l.collprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
    case when p.locale is not null then format('locale = %L', p.locale)
         else format('lc_collate = %L, lc_ctype = %L', l.collcollate, l.collctype) end,
    case when l.collisdeterministic then 'true' else 'false' end,
    ', rules = ' || quote_literal(to_jsonb(l) ->> 'collicurules'))`,
  from: `pg_collation l join pg_namespace n on n.oid = l.collnamespace
    cross join lateral (select coalesce(to_jsonb(l) ->> 'colllocale', to_jsonb(l) ->> 'colliculocale',
                                        case when l.collcollate = l.collctype then l.collcollate end)) p(locale)
    where ${ofApplication('pg_collation', 'l.oid')}`,
};

const ofType = (catalog: string) =>
  `pg_type t join pg_namespace n on n.oid = t.typnamespace ${catalog} where ${ofApplication('pg_type', 't.oid')}`;

const ENUMS: ObjectQuery = {
  kind: 'type',
  catalog: `'pg_type'`,
  oid: 't.oid',
  name: qualified('t.typname'),
  statement: `format('create type %I.%I as enum (%s)', n.nspname, t.typname,
    (select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)
       from pg_enum e where e.enumtypid = t.oid))`,
  from: `${ofType('')} and t.typtype = 'e'`,
};

const COMPOSITES: ObjectQuery = {
  ...ENUMS,
  statement: `format('create type %I.%I as (%s)', n.nspname, t.typname,
    (select string_agg(format('%I %s', a.attname, ${TYPE_AND_COLLATION}), ', ' order by a.attnum)
       from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped))`,
  from: `${ofType('join pg_class c on c.oid = t.typrelid')} and t.typtype = 'c' and c.relkind = 'c'`,
};

/** The multirange is named only where its name is not the one that it would get: before 14 there are none. */
const RANGES: ObjectQuery = {
  ...ENUMS,
  statement: `format('create type %I.%I as range (subtype = %s%s%s%s%s%s)', n.nspname, t.typname,
    format_type(r.rngsubtype, null),
    (select format(', subtype_opclass = %I.%I', cn.nspname, o.opcname)
       from pg_opclass o join pg_namespace cn on cn.oid = o.opcnamespace
      where o.oid = r.rngsubopc and not o.opcdefault),
    (select format(', collation = %I.%I', cn.nspname, l.collname)
       from pg_collation l join pg_namespace cn on cn.oid = l.collnamespace
       join pg_type st on st.oid = r.rngsubtype
      where l.oid = r.rngcollation and r.rngcollation <> st.typcollation),
    case when r.rngcanonical <> 0 then format(', canonical = %s', r.rngcanonical) end,
    case when r.rngsubdiff <> 0 then format(', subtype_diff = %s', r.rngsubdiff) end,
    (select format(', multirange_type_name = %I.%I', mn.nspname, m.typname)
       from pg_type m join pg_namespace mn on mn.oid = m.typnamespace
      where m.oid = (to_jsonb(r) ->> 'rngmultitypid')::oid
        and (mn.oid <> n.oid
             or m.typname <> case when t.typname like '%range%'
                                  then regexp_replace(t.typname, 'range', 'multirange')
                                  else t.typname || '_multirange' end)))`,
  from: `${ofType('join pg_range r on r.rngtypid = t.oid')} and t.typtype = 'r'`,
};

const DOMAINS: ObjectQuery = {
  ...ENUMS,
  kind: 'domain',
  statement: `format('create domain %I.%I as %s%s%s%s%s', n.nspname, t.typname,
    format_type(t.typbasetype, t.typtypmod),
    (select format(' collate %I.%I', cn.nspname, l.collname)
       from pg_collation l join pg_namespace cn on cn.oid = l.collnamespace join pg_type b on b.oid = t.typbasetype
      where l.oid = t.typcollation and t.typcollation <> b.typcollation),
    ' default ' || pg_get_expr(t.typdefaultbin, 0), case when t.typnotnull then ' not null' end,
    (select string_agg(format(' constraint %I %s', k.conname, pg_get_constraintdef(k.oid)), '' order by k.conname)
       from pg_constraint k where k.contypid = t.oid and k.contype = 'c' and k.convalidated))`,
  from: `${ofType('')} and t.typtype = 'd'`,
};

/** Those behind identity columns come with their columns. */
const SEQUENCES: ObjectQuery = {
  kind: 'sequence',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: qualified('c.relname'),
  statement: `format('create %ssequence %I.%I as %s %s', case c.relpersistence when 'u' then 'unlogged ' else '' end,
    n.nspname, c.relname, format_type(s.seqtypid, null), ${SEQUENCE_OPTIONS})`,
  from: `pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
    where ${ofApplication('pg_class', 'c.oid')} and c.relpersistence <> 't'
      and not exists (select from pg_depend d
                       where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'i')`,
};

/** Without the constructors that come with each range. */
const FUNCTIONS: ObjectQuery = {
  kind: 'function',
  catalog: `'pg_proc'`,
  oid: 'p.oid',
  name: 'p.oid::regprocedure::text',
  statement: 'pg_get_functiondef(p.oid)',
  from: `pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.prokind <> 'a' and ${ofApplication('pg_proc', 'p.oid')}
      and not exists (select from pg_depend d
                       where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')`,
};

/** Aggregates that are told in a line; `unread.ts` names all others. */
export const PLAIN_AGGREGATE = `(g.aggkind = 'n' and g.aggmtransfn = 0 and g.aggserialfn = 0 and g.aggtransspace = 0
  and g.aggfinalmodify = 'r' and not g.aggfinalextra)`;

const AGGREGATES: ObjectQuery = {
  kind: 'aggregate',
  catalog: `'pg_proc'`,
  oid: 'p.oid',
  name: 'p.oid::regprocedure::text',
  statement: `format('create aggregate %I.%I(%s) (sfunc = %s, stype = %s%s%s%s%s%s)', n.nspname, p.proname,
    case when p.pronargs = 0 then '*' else pg_get_function_identity_arguments(p.oid) end, g.aggtransfn,
    format_type(g.aggtranstype, null),
    case when g.aggfinalfn <> 0 then ', finalfunc = ' || g.aggfinalfn::text end,
    case when g.aggcombinefn <> 0 then ', combinefunc = ' || g.aggcombinefn::text end,
    ', initcond = ' || quote_literal(g.agginitval),
    (select format(', sortop = operator(%I.%s)', opn.nspname, o.oprname)
       from pg_operator o join pg_namespace opn on opn.oid = o.oprnamespace where o.oid = g.aggsortop),
    case p.proparallel when 's' then ', parallel = safe' when 'r' then ', parallel = restricted' end)`,
  from: `pg_aggregate g join pg_proc p on p.oid = g.aggfnoid join pg_namespace n on n.oid = p.pronamespace
    where ${PLAIN_AGGREGATE} and ${ofApplication('pg_proc', 'p.oid')}`,
};

/**
 * From PostgreSQL 18 on these are constraints: with a name, which is told where it is not the one that it would get,
 * and maybe not checked yet, which is told after the rows.
 */
const NOT_NULL = `
  case when a.attnotnull then
    coalesce((select case when not k.convalidated then ''
                          else case when k.conname <> concat(c.relname, '_', a.attname, '_not_null')
                                    then format(' constraint %I', k.conname) else '' end
                            || ' not null' || case when k.connoinherit then ' no inherit' else '' end end
                from pg_constraint k
               where k.conrelid = c.oid and k.contype = 'n' and k.conkey = array[a.attnum]), ' not null') end`;

/** Without defaults, which may need a function that needs the table. A partition has its identity from its table. */
const COLUMN = `
  format('%I %s%s%s', a.attname, ${TYPE_AND_COLLATION},
    case when a.attidentity <> '' and not c.relispartition then
           format(' generated %s as identity (%s)', case a.attidentity when 'a' then 'always' else 'by default' end,
                  (select format('sequence name %I.%I ', sn.nspname, sc.relname) || ${SEQUENCE_OPTIONS}
                     from pg_depend d join pg_class sc on sc.oid = d.objid
                     join pg_namespace sn on sn.oid = sc.relnamespace join pg_sequence s on s.seqrelid = sc.oid
                    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                      and d.refobjid = a.attrelid and d.refobjsubid = a.attnum and d.deptype = 'i'))
         when a.attgenerated <> '' then
           format(' generated always as (%s) %s', pg_get_expr(f.adbin, f.adrelid),
                  case a.attgenerated when 's' then 'stored' else 'virtual' end) end,
    ${NOT_NULL})`;

/** Partitions are tables of their own until they are attached, below: their columns may differ in order. */
const TABLES: ObjectQuery = {
  kind: 'table',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: qualified('c.relname'),
  statement: `format('create %stable %I.%I (%s)%s%s%s', case c.relpersistence when 'u' then 'unlogged ' else '' end,
    n.nspname, c.relname,
    (select string_agg(${COLUMN}, ', ' order by a.attnum)
       from pg_attribute a left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and (a.attislocal or c.relispartition)),
    case when not c.relispartition then
      (select format(' inherits (%s)', string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno))
         from pg_inherits i where i.inhrelid = c.oid having count(*) > 0) end,
    case when c.relkind = 'p' then ' partition by ' || pg_get_partkeydef(c.oid) end,
    ${STORAGE_PARAMETERS})`,
  from: `pg_class c join pg_namespace n on n.oid = c.relnamespace where ${IS_TABLE}`,
};

/** Columns of tables `c` in schemas `n`, and their defaults. */
const COLUMNS = `pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace`;
const ofColumn = (attribute: string) => `format('%I.%I.%I${attribute}', n.nspname, c.relname, a.attname)`;
const alterColumn = (what: string) =>
  `format('alter table only %I.%I alter column %I %s', n.nspname, c.relname, a.attname, ${what})`;

const DEFAULTS: ObjectQuery = {
  kind: 'default',
  catalog: `'pg_attrdef'`,
  oid: 'f.oid',
  name: ofColumn(''),
  statement: alterColumn(`'set default ' || pg_get_expr(f.adbin, f.adrelid)`),
  from: `${COLUMNS} join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum
    where a.attgenerated = '' and c.relkind in ('r', 'p', 'v') and c.relpersistence <> 't'
      and ${ofApplication('pg_class', 'c.oid')}`,
};

/** Of a column that is inherited, and may be null in the parent. */
const NOT_NULLS: ObjectQuery = {
  kind: 'not null',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: ofColumn(''),
  statement: alterColumn(`'set not null'`),
  from: `${COLUMNS} where a.attnotnull and not a.attislocal and a.attnum > 0 and not c.relispartition and ${IS_TABLE}
      and not exists (select from pg_inherits i join pg_attribute pa on pa.attrelid = i.inhparent
                       where i.inhrelid = c.oid and pa.attname = a.attname and pa.attnotnull)`,
};

/** How a column is stored and counted, where that is not what its type brings along. */
const STORAGE: ObjectQuery = {
  kind: 'column storage',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: `format('%I.%I.%I %s', n.nspname, c.relname, a.attname, v.aspect)`,
  statement: alterColumn('v.what'),
  from: `${COLUMNS} join pg_type t on t.oid = a.atttypid
    cross join lateral (values
      ('storage', case when a.attstorage <> t.typstorage then 'set storage ' ||
         case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end end),
      ('compression', case to_jsonb(a) ->> 'attcompression' when 'p' then 'set compression pglz'
                                                            when 'l' then 'set compression lz4' end),
      ('statistics', case when (to_jsonb(a) ->> 'attstattarget')::int >= 0
                          then 'set statistics ' || (to_jsonb(a) ->> 'attstattarget') end),
      -- pg_attver is what newer releases note there for themselves; others do not know it.
      ('options', (select 'set (' || string_agg(o, ', ') || ')' from unnest(a.attoptions) o
                    where o !~ '^pg_attver='))) v(aspect, what)
    where a.attnum > 0 and not a.attisdropped and v.what is not null and ${IS_TABLE}`,
};

const TYPED_TABLES: ObjectQuery = {
  kind: 'typed table',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: qualified('c.relname'),
  statement: `format('alter table only %I.%I of %s', n.nspname, c.relname, format_type(c.reloftype, null))`,
  from: `pg_class c join pg_namespace n on n.oid = c.relnamespace where c.reloftype <> 0 and ${IS_TABLE}`,
};

/** Of a partition all checks, which those of its table join; of an heir those of its own. */
export function checks(validated: boolean): ObjectQuery {
  return {
    kind: 'check',
    catalog: `'pg_constraint'`,
    oid: 'k.oid',
    name: onTable('k.conname'),
    statement: `format('alter table %I.%I add constraint %I %s', n.nspname, c.relname, k.conname,
      pg_get_constraintdef(k.oid))`,
    from: `pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
      where k.contype in ${validated ? `('c') and` : `('c', 'n') and not`} k.convalidated
        and (k.conislocal or c.relispartition)
        and ${IS_TABLE}`,
  };
}

const PARTITIONS: ObjectQuery = {
  kind: 'partition',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: qualified('c.relname'),
  statement: `format('alter table only %s attach partition %I.%I %s', i.inhparent::regclass, n.nspname, c.relname,
    pg_get_expr(c.relpartbound, c.oid))`,
  from: `pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_inherits i on i.inhrelid = c.oid
    where c.relispartition and ${IS_TABLE}`,
};

const SEQUENCE_OWNERS: ObjectQuery = {
  kind: 'sequence owner',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: qualified('c.relname'),
  statement: `format('alter sequence %I.%I owned by %s.%I', n.nspname, c.relname, d.refobjid::regclass, a.attname)`,
  from: `pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S'
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.deptype = 'a'
      and c.relpersistence <> 't' and ${ofApplication('pg_class', 'c.oid')}`,
};

/** Views, those alone that need a key or those alone that do not. */
export function views(needKey: boolean): ObjectQuery {
  return {
    kind: 'view',
    catalog: `'pg_class'`,
    oid: 'c.oid',
    name: qualified('c.relname'),
    statement: `format('create view %I.%I%s as %s', n.nspname, c.relname, ${STORAGE_PARAMETERS},
      rtrim(pg_get_viewdef(c.oid), ';'))`,
    from: `pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'v' and c.relpersistence <> 't' and ${ofApplication('pg_class', 'c.oid')}
        and c.oid ${needKey ? '' : 'not '}in ${NEEDS_KEY}`,
  };
}

/** Without rows: those come last of all. */
export function materializedViews(needKey: boolean): ObjectQuery {
  return {
    ...views(needKey),
    kind: 'materialized view',
    statement: `format('create materialized view %I.%I%s as %s with no data', n.nspname, c.relname,
      ${STORAGE_PARAMETERS}, rtrim(pg_get_viewdef(c.oid), ';'))`,
    from: views(needKey).from.replace(`'v'`, `'m'`),
  };
}

export const BEFORE_ROWS: readonly ObjectQuery[] = [
  SCHEMAS,
  EXTENSIONS,
  COLLATIONS,
  ENUMS,
  COMPOSITES,
  DOMAINS,
  RANGES,
  SEQUENCES,
  FUNCTIONS,
  AGGREGATES,
  TABLES,
  TYPED_TABLES,
  DEFAULTS,
  NOT_NULLS,
  STORAGE,
  checks(true),
  PARTITIONS,
  SEQUENCE_OWNERS,
  views(false),
  materializedViews(false),
];
