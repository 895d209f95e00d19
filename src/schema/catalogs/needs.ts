/** Which objects belong to some tables, and what they need. */
import type { Session } from '../../postgres/session.ts';

/** What is part of a relation: partitions, constraints, indexes, triggers, defaults, policies, rules, statistics. */
const PARTS = `
  select p.* from (
  select 'pg_class'::regclass::oid, i.inhrelid from pg_inherits i join pg_class c on c.oid = i.inhrelid
   where i.inhparent = w.oid and c.relispartition
  union all select 'pg_class'::regclass, x.indexrelid from pg_index x where x.indrelid = w.oid
  union all select 'pg_constraint'::regclass, k.oid from pg_constraint k where k.conrelid = w.oid
  union all select 'pg_trigger'::regclass, t.oid from pg_trigger t where t.tgrelid = w.oid and not t.tgisinternal
  union all select 'pg_attrdef'::regclass, f.oid from pg_attrdef f where f.adrelid = w.oid
  union all select 'pg_policy'::regclass, p.oid from pg_policy p where p.polrelid = w.oid
  union all select 'pg_rewrite'::regclass, r.oid from pg_rewrite r where r.ev_class = w.oid
  union all select 'pg_statistic_ext'::regclass, s.oid from pg_statistic_ext s where s.stxrelid = w.oid
  ) p(classid, oid) where w.classid = 'pg_class'::regclass`;

/** What an object depends on; a foreign key leads to no other table, and a type leads to its relation. */
const NEEDED = `
  select d.refclassid, d.refobjid from pg_depend d
   where d.classid = w.classid and d.objid = w.oid
     and not (w.classid = 'pg_constraint'::regclass
              and d.refclassid in ('pg_class'::regclass, 'pg_constraint'::regclass)
              and exists (select from pg_constraint k where k.oid = w.oid and k.contype = 'f'))
  union all
  select 'pg_class'::regclass, t.typrelid from pg_type t
   where w.classid = 'pg_type'::regclass and t.oid = w.oid and t.typrelid <> 0`;

/** $1: names of tables. */
const reached = (steps: string) => `
  with recursive w(classid, oid) as (
    select 'pg_class'::regclass::oid, c.oid
      from json_to_recordset($1) j(schema text, name text)
      join pg_namespace n on n.nspname = j.schema join pg_class c on c.relnamespace = n.oid and c.relname = j.name
    union
    select s.classid, s.oid from w cross join lateral (${steps}) s(classid, oid)
     where s.oid >= 16384 or s.classid = 'pg_namespace'::regclass
  ) select w.classid::regclass::text as catalog, w.oid::int8::text as oid from w`;

interface Located {
  readonly catalog: string;
  readonly oid: string;
}

/** Whether an object is part of the tables, or needed by them or their parts. */
export async function readNeeded(
  session: Session,
  tables: readonly { schema: string; name: string }[],
): Promise<(object: Located) => boolean> {
  const found = await locate(session, reached(`${PARTS} union all ${NEEDED}`), tables);
  return ({ catalog, oid }) => found.has(`${catalog} ${oid}`);
}

/** Whether an object is one of the tables, or part of one. */
export async function readParts(
  session: Session,
  tables: readonly { schema: string; name: string }[],
): Promise<(object: Located) => boolean> {
  const found = await locate(session, reached(PARTS), tables);
  return ({ catalog, oid }) => found.has(`${catalog} ${oid}`);
}

async function locate(session: Session, query: string, tables: readonly { schema: string; name: string }[]) {
  const names = JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
  const rows = await session.rows<Located>(query, [names]);
  return new Set(rows.map(({ catalog, oid }) => `${catalog} ${oid}`));
}
