/**
 * What the merge must know about a table of the target beyond its columns: whether a unique index can arbitrate,
 * what refers to it, what is checked late, what could fire or rewrite.
 */
import { IbexError, missingOnTarget } from '../core/errors.ts';
import { keyOf, type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';

export interface TargetFacts {
  /** ON CONFLICT can be said at all: the table has no rule on INSERT or UPDATE, not even a disabled one. */
  readonly takesOnConflict: boolean;
  /** There is an immediate, whole unique index over exactly the key, by its own equality, to infer from it. */
  readonly arbiter: boolean;
  /** Two rows of the same key are refused at once, by an arbiter or as periods that overlap; or will be once an index is back. */
  readonly unique: boolean;
  /** Rows are told apart by something else too: another unique index, or an exclusion constraint, also of a partition. */
  readonly rivals: boolean;
  /** Some unique or exclusion constraint is deferrable, which ON CONFLICT without an arbiter does not take. */
  readonly deferrable: boolean;
  readonly identityAlways: readonly string[];
  /** Columns that the batch does not bring and that are not generated: they keep what they hold. */
  readonly others: readonly string[];
  /** The tables with foreign keys that refer to it, which TRUNCATE asks for. */
  readonly referencedBy: readonly TableName[];
  /** A unique or exclusion constraint is checked at COMMIT. */
  readonly deferred: boolean;
  /** One query for each constraint that a replica is not held to: it finds staged rows that contradict others. */
  readonly unchecked: readonly UncheckedConstraint[];
}

export interface UncheckedConstraint {
  readonly name: string;
  /** Two rows `x` and `y` contradict each other when this holds. */
  readonly contradiction: string;
  /** The expressions `e1 .. en` that it compares, over the table's columns, and the rows that it speaks of. */
  readonly expressions: readonly string[];
  readonly predicate: string | null;
}

/** Our own capture triggers on a table of the target, which may be the source of another sync. */
const OURS = '^~?ibex_[a-z]+_[0-9]+$';

/** The ways in which a trigger or rule is enabled that make it fire for a session, by its session_replication_role. */
export const firesFor = (replica: boolean) => (replica ? `('A', 'R')` : `('O', 'A')`);

/**
 * Whether `trigger` is one of the application's: not ours, and not what makes a constraint work. Before PostgreSQL 15
 * the clones of a row trigger on partitions count as internal; tgparentid, which 12 lacks, tells them from the others.
 */
export const isUserTrigger = (trigger: string) =>
  `(not ${trigger}.tgisinternal or (current_setting('server_version_num')::int < 150000
                                    and (to_jsonb(${trigger}) ->> 'tgparentid')::oid <> 0))
   and ${trigger}.tgname !~ '${OURS}'`;

/** A relation, its oid given, and its partitions. */
export const treeOf = (relation: string) =>
  `(select ${relation}::oid as oid union select p.relid::oid from pg_partition_tree(${relation}) p)`;

/**
 * SQL: the name of a trigger or rule of the application that fires for what this session writes to a table, given
 * as oid; no row when there is none. Asked under the lock of a write it says what fired: enabling needs a stronger one.
 */
export const firing = (table: string) => `
  (select name from (
     select 'trigger ' || quote_ident(tg.tgname) as name, tg.tgenabled as enabled
       from pg_trigger tg where tg.tgrelid in (select m.oid from ${treeOf(table)} m) and ${isUserTrigger('tg')}
     union all
     select 'rule ' || quote_ident(rw.rulename), rw.ev_enabled
       from pg_rewrite rw where rw.ev_class = ${table} and rw.ev_type in ('2', '3', '4')
   ) f where case current_setting('session_replication_role')
               when 'replica' then enabled in ${firesFor(true)} else enabled in ${firesFor(false)} end limit 1)`;

/**
 * No error is no proof: a trigger that returns NULL, or a rule, swallows rows in silence. Part of the transaction that
 * wrote to the table.
 * Errors: `swallowed`, when something of the application may have fired.
 */
export async function requireUndisturbed(session: Session, table: TableName): Promise<void> {
  const [found] = await session.rows<{ name: string }>(
    `select f.name from to_regclass($1) r(relation) cross join lateral ${firing('r.relation')} f(name)`,
    [tableIdent(table)],
  );
  if (found !== undefined) throw disturbed(table, found.name);
}

/** A trigger or rule of the application fired for rows of ours. What was enabled meanwhile is set aside at the next try. */
export function disturbed(table: TableName, name: string): IbexError {
  const label = tableLabel(table);
  return new IbexError('swallowed', `${label}: ${name} of the target fires for replicated rows`, {
    table: label,
    hint: 'It is set aside at the next try. Should it come back: find out who enables it.',
  });
}

/**
 * SQL: whether an index, `i` of pg_index, tells rows of the same key apart at once: over exactly the columns of the
 * key, an array of names, and by its own equality.
 */
export const isKeyIndex = (i: string, key: string) => `(
  ${i}.indisunique and ${i}.indimmediate and ${i}.indisvalid
  and ${i}.indpred is null and ${i}.indexprs is null and ${i}.indnkeyatts = cardinality(${key}::text[])
  and (select array_agg(a.attname::text order by a.attname::text collate "C")
         from unnest(${i}.indkey::int2[]) with ordinality k(attnum, ord)
         join pg_attribute a on a.attrelid = ${i}.indrelid and a.attnum = k.attnum
        where k.ord <= ${i}.indnkeyatts)
      = (select array_agg(n order by n collate "C") from unnest(${key}::text[]) n)
  and not exists (
        select from unnest(${i}.indkey::int2[], ${i}.indclass::oid[], ${i}.indcollation::oid[]) k(attnum, opclass, collated)
          join pg_attribute a on a.attrelid = ${i}.indrelid and a.attnum = k.attnum
          join pg_opclass o on o.oid = k.opclass
         where not o.opcdefault or k.collated <> a.attcollation
            or (o.opcintype <> a.atttypid
                and exists (select from pg_opclass d where d.opcmethod = o.opcmethod and d.opcdefault
                               and d.opcintype = a.atttypid))))`;

/** First the indexes of the table, then what is asked of them: of all indexes there are it would be asked just as well. */
const indexesOf = (relation: string) =>
  `(select i.* from pg_index i where i.indrelid = ${relation} offset 0)`;

const READ_FACTS = `
  select w.i, coalesce(key.arbiter, false) as arbiter,
         coalesce(key.unique, false)
           or exists (select from ibex.parked p
                       where p.key is not null and to_regclass(format('%I.%I', p.schema_name, p.table_name)) = c.oid) as "unique",
         exists (select from ${treeOf('c.oid')} m cross join lateral ${indexesOf('m.oid')} i
                  where (i.indisunique or i.indisexclusion) and not ${isKeyIndex('i', 'w.key')}) as rivals,
         exists (select from pg_index i where i.indrelid = c.oid and not i.indimmediate) as deferrable,
         not exists (
           select from pg_rewrite r where r.ev_class = c.oid and r.ev_type in ('2', '3')
         ) as "takesOnConflict",
         coalesce((select array_agg(a.attname::text) from pg_attribute a
                    where a.attrelid = c.oid and a.attidentity = 'a' and not a.attisdropped), '{}') as "identityAlways",
         coalesce((select array_agg(a.attname::text order by a.attnum) from pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                      and a.attname <> all (w.columns)), '{}') as others,
         coalesce((select json_agg(distinct jsonb_build_object('schema', fn.nspname, 'name', f.relname))
                     from pg_constraint k join pg_class kc on kc.oid = k.conrelid
                     join pg_class f on f.oid = case when kc.relispartition then pg_partition_root(kc.oid)::oid else kc.oid end
                     join pg_namespace fn on fn.oid = f.relnamespace
                    where k.contype = 'f' and k.confrelid in (select m.oid from ${treeOf('c.oid')} m)), '[]') as "referencedBy",
         exists (select from pg_constraint k
                  where k.conrelid = c.oid and k.contype in ('p', 'u', 'x') and k.condeferred) as deferred,
         coalesce((
           select json_agg(json_build_object(
                    'name', k.conname,
                    'expressions', (select json_agg(pg_get_indexdef(i.indexrelid, n, true) order by n)
                                      from generate_series(1, i.indnkeyatts) n),
                    'predicate', pg_get_expr(i.indpred, i.indrelid),
                    'contradiction', (
                      select string_agg(format('(x.e%1$s operator(%2$I.%3$s) y.e%1$s%4$s)', o.n, s.nspname, p.oprname,
                                               case when d.def like '%NULLS NOT DISTINCT%'
                                                    then format(' or x.e%1$s is null and y.e%1$s is null', o.n) else '' end), ' and ')
                        from unnest(coalesce(k.conexclop, array(
                               select w.amopopr
                                 from unnest(i.indclass::oid[]) with ordinality u(opclass, n)
                                 join pg_opclass oc on oc.oid = u.opclass
                                 join pg_amop w on w.amopfamily = oc.opcfamily and w.amopstrategy = 3
                                  and w.amoplefttype = oc.opcintype and w.amoprighttype = oc.opcintype
                                order by u.n))) with ordinality o(operator, n)
                        join pg_operator p on p.oid = o.operator join pg_namespace s on s.oid = p.oprnamespace)))
             from pg_constraint k join pg_index i on i.indexrelid = k.conindid
             cross join lateral pg_get_constraintdef(k.oid) d(def)
            where k.conrelid = c.oid and k.contype in ('p', 'u', 'x') and k.condeferrable
              and current_setting('session_replication_role') = 'replica'), '[]') as unchecked
    from json_to_recordset($1) w(i int4, name text, key text[], columns text[])
    join pg_class c on c.oid = to_regclass(w.name)
    left join lateral (
      select true as unique, bool_or(not i.indisexclusion) as arbiter
        from ${indexesOf('c.oid')} i
       where ${isKeyIndex('i', 'w.key')}
       having count(*) > 0
    ) key on true`;

/** Errors: `schema_mismatch` when the target has no such table. */
export async function readFacts(session: Session, plan: TablePlan): Promise<TargetFacts> {
  const facts = (await readAllFacts(session, [plan])).get(plan.relid);
  if (facts !== undefined) return facts;
  throw missingOnTarget(tableLabel(plan));
}

/** By the plan's `relid`; tables that the target does not have are left out. */
export async function readAllFacts(
  session: Session,
  plans: readonly TablePlan[],
): Promise<Map<number, TargetFacts>> {
  const wanted = plans.map((plan, i) => {
    const columns = plan.columns.map((column) => column.name);
    return { i, name: tableIdent(plan), key: keyOf(plan).map((column) => column.name), columns };
  });
  const rows = await session.prepared<TargetFacts & { i: number }>(READ_FACTS, [JSON.stringify(wanted)]);
  return new Map(rows.map(({ i, ...facts }) => [(plans[i] as TablePlan).relid, facts]));
}
