/** What roles may do on the source and may not on the target: what the application would be refused after the move. */
import { FOREIGN_SCHEMAS } from '../../postgres/catalog.ts';
import { ident } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { type Finding, warning } from './finding.ts';

/** One right that somebody granted. Names as statements have them; `role` of everybody is `public`. */
interface Right {
  readonly kind: 'schema' | 'sequence' | 'table';
  readonly object: string;
  readonly schema: string;
  readonly name: string | null;
  readonly column: string | null;
  readonly role: string;
  readonly privilege: string;
}

/** Of schemas, relations and columns, those of their owners, and of the role of ours, left out. */
const READ_RIGHTS = `
  with ours as (select * from pg_namespace where nspname !~ $1),
  rights as (
    select 'schema' as kind, quote_ident(nspname) as object, nspname as schema, null::name as name,
           null::name as column, nspowner as owner, a.grantee, a.privilege_type
      from ours, aclexplode(nspacl) a
    union all
    select case c.relkind when 'S' then 'sequence' else 'table' end, format('%I.%I', n.nspname, c.relname), n.nspname,
           c.relname, null, c.relowner, a.grantee, a.privilege_type
      from pg_class c join ours n on n.oid = c.relnamespace, aclexplode(c.relacl) a
    union all
    select 'table', format('%I.%I', n.nspname, c.relname), n.nspname, c.relname, k.attname, c.relowner, a.grantee,
           a.privilege_type
      from pg_class c join ours n on n.oid = c.relnamespace join pg_attribute k on k.attrelid = c.oid,
           aclexplode(k.attacl) a
     where k.attnum > 0 and not k.attisdropped)
  select r.kind, r.object, r.schema, r.name, r.column, coalesce(g.rolname, 'public') as role,
         lower(r.privilege_type) as privilege
    from rights r left join pg_roles g on g.oid = r.grantee
   where r.grantee <> r.owner and g.rolname is distinct from current_user and coalesce(g.rolname, '') !~ '^pg_'
   order by 6, 1, 2, 7`;

/** Of the rights those that their role does not have; null where there is no such role. Objects that are not there do not count. */
const FIND_LACKING = `
  select w.i, (w.role = 'public' or exists (select from pg_roles where rolname = w.role)) as known
    from json_to_recordset($1) w(i int, kind text, schema name, name name, "column" name, role name, privilege text)
    join pg_namespace n on n.nspname = w.schema
    left join pg_class c on c.relnamespace = n.oid and c.relname = w.name
    left join pg_attribute k on k.attrelid = c.oid and k.attname = w.column and not k.attisdropped
   where (w.name is null or c.oid is not null) and (w."column" is null or k.attnum is not null)
     and case when w.role <> 'public' and not exists (select from pg_roles where rolname = w.role) then true
              when w.kind = 'schema' then not has_schema_privilege(w.role, n.oid, w.privilege)
              when w.kind = 'sequence' then not has_sequence_privilege(w.role, c.oid, w.privilege)
              when w."column" is not null then not has_column_privilege(w.role, c.oid, k.attnum, w.privilege)
              else not has_table_privilege(w.role, c.oid, w.privilege) end`;

/** PostgreSQL 17 has it first. */
const MAINTAIN = { privilege: 'maintain', since: 170000 };

export async function probeGrants(source: Session, target: Session): Promise<Finding[]> {
  const granted = (await source.rows<Right>(READ_RIGHTS, [FOREIGN_SCHEMAS])).filter(
    ({ privilege }) => privilege !== MAINTAIN.privilege || target.version >= MAINTAIN.since,
  );
  const asked = JSON.stringify(granted.map((right, i) => ({ i, ...right })));
  const lacking = await target.rows<{ i: number; known: boolean }>(FIND_LACKING, [asked]);
  const byRole = new Map<string, { known: boolean; rights: Right[] }>();
  for (const { i, known } of lacking) {
    const right = granted[i] as Right;
    const one = byRole.get(right.role) ?? { known, rights: [] };
    one.rights.push(right);
    byRole.set(right.role, one);
  }
  return [...byRole].map(([role, { known, rights }]) => {
    const grants = grantStatements(role, rights);
    const [{ privilege, object }] = rights as [Right, ...Right[]];
    const which = `rights that it has on the source: ${rights.length}, such as ${privilege} on ${object}`;
    return known
      ? warning('grant', 'target', `role ${role} lacks ${which}`, `On the target: ${grants}`)
      : warning(
          'grant',
          'target',
          `there is no role ${role} with the ${which}`,
          `As an administrator of the target: create role ${ident(role)} login; ${grants}`,
        );
  });
}

/** As few statements as there are sets of rights. */
function grantStatements(role: string, rights: readonly Right[]): string {
  const byObject = new Map<string, { kind: Right['kind']; object: string; privileges: string[] }>();
  for (const { kind, object, column, privilege } of rights) {
    const one = byObject.get(`${kind} ${object}`) ?? { kind, object, privileges: [] };
    one.privileges.push(column === null ? privilege : `${privilege} (${ident(column)})`);
    byObject.set(`${kind} ${object}`, one);
  }
  const byRights = new Map<string, string[]>();
  for (const { kind, object, privileges } of byObject.values()) {
    const start = `grant ${privileges.join(', ')} on ${kind} `;
    byRights.set(start, [...(byRights.get(start) ?? []), object]);
  }
  const to = role === 'public' ? 'public' : ident(role);
  return [...byRights].map(([start, objects]) => `${start}${objects.join(', ')} to ${to};`).join(' ');
}
