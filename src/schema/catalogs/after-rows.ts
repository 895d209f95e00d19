/** What is better made when the rows are there, read from the catalogs: the kinds in the order that is best. */
import { checks, materializedViews, views } from './before-rows.ts';
import { FOREIGN, IS_TABLE, type ObjectQuery, ofApplication, onTable, qualified } from './query.ts';

/** The partitioned index that index `x` belongs to, in `pn` and `p`. */
const PARENT = `
  left join (pg_inherits h join pg_class p on p.oid = h.inhparent join pg_namespace pn on pn.oid = p.relnamespace)
  on h.inhrelid = x.indexrelid`;
const UNDER = { index: `${qualified('p.relname', 'pn')}`, table: qualified('c.relname') };

/** Of partitioned tables each level for itself: the partitions' are attached below, and keep their names. */
const KEYS: ObjectQuery = {
  kind: 'key',
  catalog: `'pg_constraint'`,
  oid: 'k.oid',
  name: onTable('k.conname'),
  statement: `format('alter table only %I.%I add constraint %I %s', n.nspname, c.relname, k.conname,
    pg_get_constraintdef(k.oid))`,
  under: { index: `case when p.oid is not null then ${UNDER.index} end`, table: UNDER.table },
  from: `pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    join pg_index x on x.indexrelid = k.conindid ${PARENT}
    where k.contype in ('p', 'u', 'x') and ${IS_TABLE}`,
};

/** One that is not valid was left half-built by CREATE INDEX CONCURRENTLY; or, if partitioned, lacks partitions. */
const INDEXES: ObjectQuery = {
  kind: 'index',
  catalog: `'pg_class'`,
  oid: 'i.oid',
  name: qualified('i.relname'),
  statement: 'pg_get_indexdef(i.oid)',
  under: KEYS.under as NonNullable<ObjectQuery['under']>,
  from: `pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
    join pg_namespace n on n.oid = c.relnamespace ${PARENT}
    where (x.indisvalid or i.relkind = 'I') and c.relkind in ('r', 'p', 'm') and c.relpersistence <> 't'
      and ${ofApplication('pg_class', 'c.oid')}
      and not exists (select from pg_constraint k where k.conindid = i.oid and k.contype in ('p', 'u', 'x'))`,
};

const INDEX_PARTITIONS: ObjectQuery = {
  kind: 'index partition',
  catalog: `'pg_class'`,
  oid: 'i.oid',
  name: qualified('i.relname'),
  statement: `format('alter index %I.%I attach partition %I.%I', pn.nspname, p.relname, n.nspname, i.relname)`,
  under: UNDER,
  from: `pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
    join pg_namespace n on n.oid = c.relnamespace ${PARENT}
    where p.oid is not null and ${IS_TABLE}`,
};

/** Which index identifies a row, or orders the table. */
const INDEX_ROLES: ObjectQuery = {
  kind: 'index role',
  catalog: `'pg_class'`,
  oid: 'i.oid',
  name: `format('%I.%I %s', n.nspname, c.relname, v.role)`,
  statement: `format('alter table only %I.%I %s %I', n.nspname, c.relname, v.how, i.relname)`,
  from: `pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
    join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (values ('identity', case when x.indisreplident then 'replica identity using index' end),
                               ('order', case when x.indisclustered then 'cluster on' end)) v(role, how)
    where v.how is not null and ${IS_TABLE}`,
};

const REPLICA_IDENTITIES: ObjectQuery = {
  kind: 'index role',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: `format('%I.%I identity', n.nspname, c.relname)`,
  statement: `format('alter table only %I.%I replica identity %s', n.nspname, c.relname,
    case c.relreplident when 'f' then 'full' else 'nothing' end)`,
  from: `pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relreplident in ('f', 'n') and ${IS_TABLE}`,
};

/** Of a partitioned table the whole tree at once. */
const FOREIGN_KEYS: ObjectQuery = {
  kind: 'foreign key',
  catalog: `'pg_constraint'`,
  oid: 'k.oid',
  name: onTable('k.conname'),
  statement: `format('alter table %I.%I add constraint %I %s', n.nspname, c.relname, k.conname,
    pg_get_constraintdef(k.oid))`,
  from: `pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and ${IS_TABLE}`,
};

/** Of a domain, and not yet checked: rows may contradict it. */
const DOMAIN_CHECKS: ObjectQuery = {
  kind: 'check',
  catalog: `'pg_constraint'`,
  oid: 'k.oid',
  name: `format('%I on %s', k.conname, format_type(t.oid, null))`,
  statement: `format('alter domain %s add constraint %I %s', format_type(t.oid, null), k.conname,
    pg_get_constraintdef(k.oid))`,
  from: `pg_constraint k join pg_type t on t.oid = k.contypid join pg_namespace n on n.oid = t.typnamespace
    where k.contype = 'c' and not k.convalidated and ${ofApplication('pg_type', 't.oid')}`,
};

const STATISTICS: ObjectQuery = {
  kind: 'statistics',
  catalog: `'pg_statistic_ext'`,
  oid: 's.oid',
  name: qualified('s.stxname'),
  statement: 'pg_get_statisticsobjdef(s.oid)',
  from: `pg_statistic_ext s join pg_namespace n on n.oid = s.stxnamespace
    where ${ofApplication('pg_statistic_ext', 's.oid')}`,
};

/** A second statement for a trigger or rule that fires otherwise than a new one does. */
const firing = (enabled: string, what: string, name: string) => `
  case when ${enabled} <> 'O' then
    format(E';\\nalter table %I.%I %s ${what} %I', n.nspname, c.relname,
           case ${enabled} when 'D' then 'disable' when 'A' then 'enable always' else 'enable replica' end,
           ${name}) end`;

const RULES: ObjectQuery = {
  kind: 'rule',
  catalog: `'pg_rewrite'`,
  oid: 'r.oid',
  name: onTable('r.rulename'),
  statement: `concat(rtrim(pg_get_ruledef(r.oid), ';'), ${firing('r.ev_enabled', 'rule', 'r.rulename')})`,
  from: `pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
    where r.rulename <> '_RETURN' and ${ofApplication('pg_class', 'c.oid')}`,
};

/** The names of Ibex' own triggers, which are no part of the application's schema. */
export const OUR_TRIGGERS = '^~?ibex_[a-z_]+_[0-9]+$';

const TRIGGERS: ObjectQuery = {
  kind: 'trigger',
  catalog: `'pg_trigger'`,
  oid: 't.oid',
  name: onTable('t.tgname'),
  statement: `concat(pg_get_triggerdef(t.oid), ${firing('t.tgenabled', 'trigger', 't.tgname')})`,
  from: `pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where not t.tgisinternal and coalesce((to_jsonb(t) ->> 'tgparentid')::oid, 0) = 0
      and t.tgname !~ '${OUR_TRIGGERS}' and ${ofApplication('pg_class', 'c.oid')}`,
};

const POLICIES: ObjectQuery = {
  kind: 'policy',
  catalog: `'pg_policy'`,
  oid: 'p.oid',
  name: onTable('p.polname'),
  statement: `format('create policy %I on %I.%I as %s for %s to %s%s%s', p.polname, n.nspname, c.relname,
    case when p.polpermissive then 'permissive' else 'restrictive' end,
    case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete'
                  else 'all' end,
    (select string_agg(case when r = 0 then 'public' else quote_ident(pg_get_userbyid(r)) end, ', ' order by r)
       from unnest(p.polroles) r),
    ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
    ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')`,
  from: `pg_policy p join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
    where ${ofApplication('pg_class', 'c.oid')}`,
};

const ROW_SECURITY: ObjectQuery = {
  kind: 'row security',
  catalog: `'pg_class'`,
  oid: 'c.oid',
  name: `format('%I.%I %s', n.nspname, c.relname, v.how)`,
  statement: `format('alter table only %I.%I %s row level security', n.nspname, c.relname, v.how)`,
  from: `pg_class c join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (values (case when c.relrowsecurity then 'enable' end),
                               (case when c.relforcerowsecurity then 'force' end)) v(how)
    where v.how is not null and ${IS_TABLE}`,
};

/** From the types of objects that may have a comment to what COMMENT ON calls them. */
const COMMENTED = `(values ('schema', 'schema'), ('table', 'table'), ('table column', 'column'), ('view', 'view'),
  ('view column', 'column'), ('materialized view', 'materialized view'), ('materialized view column', 'column'),
  ('composite type column', 'column'), ('index', 'index'), ('sequence', 'sequence'), ('function', 'function'),
  ('procedure', 'procedure'), ('aggregate', 'aggregate'), ('type', 'type'), ('table constraint', 'constraint'),
  ('domain constraint', 'constraint'), ('trigger', 'trigger'), ('policy', 'policy'), ('rule', 'rule'),
  ('collation', 'collation'), ('statistics object', 'statistics'))`;

/** Comments on what users made: built-in objects have lower oids. */
const COMMENTS: ObjectQuery = {
  kind: 'comment',
  catalog: 'd.classoid::regclass::text',
  oid: 'd.objoid',
  name: `concat(w.word, ' ', f.identity)`,
  statement: `format('comment on %s %s is %L', w.word, f.identity, d.description)`,
  from: `pg_description d cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
    join ${COMMENTED} w(type, word) on w.type = i.type
    left join pg_constraint k on d.classoid = 'pg_constraint'::regclass and k.oid = d.objoid
    left join pg_trigger t on d.classoid = 'pg_trigger'::regclass and t.oid = d.objoid
    left join pg_policy p on d.classoid = 'pg_policy'::regclass and p.oid = d.objoid
    left join pg_rewrite r on d.classoid = 'pg_rewrite'::regclass and r.oid = d.objoid
    left join pg_class c on c.oid = coalesce(nullif(k.conrelid, 0), t.tgrelid, p.polrelid, r.ev_class)
    left join pg_namespace n on n.oid = coalesce(c.relnamespace, k.connamespace)
    cross join lateral (select case when i.type = 'domain constraint'
      then format('%I on domain %s', k.conname, format_type(k.contypid, null)) else i.identity end) f(identity)
    where d.objoid >= 16384 and coalesce(n.nspname, i.schema, i.name) !~ ${FOREIGN}
      and not exists (select from pg_depend e where e.classid = d.classoid and e.objid = d.objoid and e.deptype = 'e')`,
};

export const AFTER_ROWS: readonly ObjectQuery[] = [
  KEYS,
  INDEXES,
  INDEX_PARTITIONS,
  INDEX_ROLES,
  REPLICA_IDENTITIES,
  views(true),
  materializedViews(true),
  FOREIGN_KEYS,
  checks(false),
  DOMAIN_CHECKS,
  STATISTICS,
  RULES,
  TRIGGERS,
  POLICIES,
  ROW_SECURITY,
  COMMENTS,
];
