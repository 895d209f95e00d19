/**
 * What the catalogs say about types: what a type is made of, how its values become text and come back, and whether
 * their binary form means the same elsewhere.
 */
import type { Wrap } from '../core/plan.ts';
import type { TypeInfo } from '../core/table.ts';
import type { Session } from './session.ts';

/**
 * Versions from which on a type has values that older servers do not know. An infinite interval they take for
 * 178,956,970 years, an infinite numeric for damage to the protocol; of its text they say what it is and where.
 */
const INFINITE: Readonly<Record<string, number>> = { interval: 170_000, numeric: 140_000 };

/**
 * The types of the given oids with all they are made of. An array is what its element calls its array: int2vector,
 * say, is none. The column of pg_range for multiranges, and they, exist from PostgreSQL 14 on.
 *
 * What is looked up by an oid stands in subqueries: as joins it took three times as long, most of it to plan.
 */
const READ_TYPES = `
  with recursive needed(oid) as (
    select unnest($1::oid[])
    union
    select p.oid
      from needed n join pg_type t on t.oid = n.oid
      cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all select e.oid from pg_type e where e.oid = t.typelem and e.typarray = t.oid
        union all select a.atttypid from pg_attribute a
                   where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
        union all select r.rngsubtype from pg_range r where r.rngtypid = t.oid
        union all select r.rngtypid from pg_range r
                   where t.typtype = 'm' and (to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid
      ) p(oid)
  )
  select t.oid::int8::text as oid, t.typtype::text as kind, n.nspname as schema, t.typname as name,
         format('%I.%I', n.nspname, t.typname) as quoted, format_type(t.oid, null) as shown,
         n.nspname = 'pg_catalog' and t.oid < 16384 as builtin,
         (select x.extname from pg_depend g join pg_extension x on x.oid = g.refobjid
           where g.classid = 'pg_type'::regclass and g.objid = t.oid and g.deptype = 'e'
             and g.refclassid = 'pg_extension'::regclass) as extension,
         t.typbasetype::int8::text as base, t.typtypmod as typmod,
         (select e.oid::int8::text from pg_type e where e.oid = t.typelem and e.typarray = t.oid) as element,
         r.rngsubtype::int8::text as subtype, nullif(r.rngcanonical::oid, 0)::regproc::text as canonical,
         (select m.rngtypid::int8::text from pg_range m
           where t.typtype = 'm' and (to_jsonb(m) ->> 'rngmultitypid')::oid = t.oid) as range,
         t.typsend <> 0 and t.typreceive <> 0 as sends,
         (select format('operator(%I.%s)', pn.nspname, p.oprname)
            from pg_opclass c join pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
            join pg_amop a on a.amopfamily = c.opcfamily and a.amopstrategy = 3
             and a.amoplefttype = c.opcintype and a.amoprighttype = c.opcintype
            join pg_operator p on p.oid = a.amopopr join pg_namespace pn on pn.oid = p.oprnamespace
           where c.opcdefault and c.opcintype = t.oid and pn.nspname <> 'pg_catalog') as equals,
         (select format('%I.%I', f.nspname, i.proname) from pg_proc i join pg_namespace f on f.oid = i.pronamespace
           where i.oid = t.typinput) as input,
         (select i.pronargs from pg_proc i where i.oid = t.typinput) as arguments,
         case when t.typelem <> 0 then t.typelem else t.oid end::int8::text as "ioParameter",
         (select format('%I.%I', f.nspname, o.proname) from pg_proc o join pg_namespace f on f.oid = o.pronamespace
           where o.oid = t.typoutput) as output,
         exists (select from pg_cast c where c.castsource = 'text'::regtype and c.casttarget = t.oid
                    and c.castmethod = 'f') as "castFromText",
         exists (select from pg_cast c where c.castsource = t.oid and c.casttarget = 'text'::regtype
                    and c.castmethod = 'f') as "castToText",
         coalesce((select json_agg(json_build_object('name', a.attname, 'oid', a.atttypid::int8::text, 'typmod', a.atttypmod)
                                   order by a.attnum)
                     from pg_attribute a
                    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '[]') as attributes
    from needed d join pg_type t on t.oid = d.oid join pg_namespace n on n.oid = t.typnamespace
    left join pg_range r on r.rngtypid = t.oid`;

interface TypeRow {
  oid: string;
  kind: string;
  schema: string;
  name: string;
  quoted: string;
  shown: string;
  builtin: boolean;
  extension: string | null;
  base: string;
  typmod: number;
  element: string | null;
  subtype: string | null;
  canonical: string | null;
  range: string | null;
  sends: boolean;
  equals: string | null;
  input: string;
  arguments: number;
  ioParameter: string;
  output: string;
  castFromText: boolean;
  castToText: boolean;
  attributes: { name: string; oid: string; typmod: number }[];
}

/** Gives the type of an oid and a typmod. */
export type TypeLookup = (oid: string, typmod: number) => TypeInfo;

/** Reads types by their oids, and all that they are made of. */
export async function readTypes(session: Session, oids: readonly string[]): Promise<TypeLookup> {
  const rows = await session.rows<TypeRow>(READ_TYPES, [[...new Set(oids)]]);
  const byOid = new Map(rows.map((row) => [row.oid, row]));
  const lookup: TypeLookup = (oid, typmod) => describe(byOid, lookup, session.version, oid, typmod);
  return lookup;
}

function describe(
  types: ReadonlyMap<string, TypeRow>,
  lookup: TypeLookup,
  version: number,
  oid: string,
  typmod: number,
): TypeInfo {
  const declared = types.get(oid) as TypeRow;
  let row = declared;
  let limit = typmod;
  while (row.kind === 'd') {
    if (limit === -1) limit = row.typmod;
    row = types.get(row.base) as TypeRow;
  }
  const parts = partsOf(row, limit, lookup);
  const fromText = inputOf(row);
  return {
    name: row.quoted,
    declared: declared.quoted,
    shown: declared.shown,
    identity: identityOf(row, parts),
    kind: kindOf(row),
    typmod: limit,
    binary: binaryOf(row, parts, version),
    equals: row.equals ?? '=',
    toText: row.castToText ? [`pg_catalog.textin(${row.output}(`, `::${row.quoted}))`] : null,
    fromText,
    readable: fromText !== null || !row.castFromText,
    parts,
  };
}

function partsOf(row: TypeRow, typmod: number, lookup: TypeLookup): TypeInfo['parts'] {
  if (row.element !== null) return [{ name: 'element', type: lookup(row.element, typmod) }];
  if (row.range !== null) return [{ name: 'range', type: lookup(row.range, -1) }];
  if (row.subtype !== null) {
    return [{ name: `subtype ${row.canonical ?? ''}`, type: lookup(row.subtype, -1) }];
  }
  return row.attributes.map((attribute) => ({
    name: attribute.name,
    type: lookup(attribute.oid, attribute.typmod),
  }));
}

function kindOf(row: TypeRow): TypeInfo['kind'] {
  if (row.element !== null) return 'array';
  const kinds: Readonly<Record<string, TypeInfo['kind']>> = {
    e: 'enum',
    c: 'composite',
    r: 'range',
    m: 'multirange',
  };
  return kinds[row.kind] ?? 'base';
}

/** An extension may live in another schema over there; an array is what its elements are. */
function identityOf(row: TypeRow, parts: TypeInfo['parts']): string {
  if (row.builtin) return row.name;
  if (row.element !== null) return `${parts[0]?.type.identity}[]`;
  return row.extension === null ? row.quoted : `extension ${row.extension}.${row.name}`;
}

/**
 * Built-in types whose binary form is not for other servers: oids by another name, XML, which loses its declaration
 * of an encoding, and those of which their own server would not take an empty value back.
 */
const NOT_BINARY = /^(reg.*|xml|int2vector|oidvector|tsquery)$/;

/** Types of the application have oids inside. */
function binaryOf(row: TypeRow, parts: TypeInfo['parts'], version: number): number | null {
  if (!row.builtin || !row.sends || row.kind === 'c' || NOT_BINARY.test(row.name)) return null;
  const infinite = INFINITE[row.name];
  if (infinite !== undefined) return version >= infinite ? infinite : 0;
  const inside = parts.map((part) => part.type.binary);
  return inside.includes(null) ? null : Math.max(0, ...inside.map(Number));
}

/**
 * A function that casts from text may do something else than the input function, which then is called itself. For
 * arrays, enums and composites that cannot be said in SQL.
 */
function inputOf(row: TypeRow): Wrap | null {
  if (!row.castFromText || kindOf(row) !== 'base') return null;
  const more = [`, ${row.ioParameter}::oid`, ', -1'].slice(0, row.arguments - 1).join('');
  return [`${row.input}(pg_catalog.textout(`, `)${more})`];
}
