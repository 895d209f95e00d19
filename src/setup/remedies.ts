/**
 * The DDL that makes a table of the target take what the source's has, as a person would write it. What is spelled is
 * asked of the source's catalogs; nothing is run here.
 */
import type { Carried } from '../core/carried.ts';
import { ERROR_KINDS, IbexError } from '../core/errors.ts';
import type { TableName } from '../core/plan.ts';
import { ident } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';

export interface HeldTable extends TableName {
  readonly relid: number;
  /** What the rows on the target stand for; null when none were carried yet. */
  readonly carried: Carried | null;
}

/** Why a table waits, and what to run on the target so that it goes on. */
export async function reasonToHold(
  source: Session,
  target: Session,
  table: HeldTable,
  error: IbexError,
): Promise<string> {
  return reasonOf(await withRemedy(source, target, table, error));
}

/** The error as the reason of a table that waits. */
export function reasonOf({ kind, message, hint }: IbexError): string {
  if (kind !== 'schema_mismatch' || hint === ERROR_KINDS.schema_mismatch.hint) return message;
  return hint.startsWith(ON_TARGET)
    ? `${message}; on the target: ${hint.slice(ON_TARGET.length)}`
    : `${message}. ${hint}`;
}

const ON_TARGET = 'On the target: ';

/** The error with the statements for its remedy, if there are any. */
export async function withRemedy(
  source: Session,
  target: Session,
  table: HeldTable,
  error: IbexError,
): Promise<IbexError> {
  if (error.kind !== 'schema_mismatch') return error;
  const ddl = await remedies(source, target, table);
  if (ddl.length === 0) return error;
  const details = { hint: `${ON_TARGET}${ddl.join(' ')}`, cause: error.cause };
  return new IbexError(
    error.kind,
    error.message,
    error.table === undefined ? details : { ...details, table: error.table },
  );
}

/** The statements, in the order in which to run them; none when nothing is missing there. */
export async function remedies(source: Session, target: Session, table: HeldTable): Promise<string[]> {
  const [wanted] = await source.rows<Wanted>(READ_WANTED, [table.relid]);
  if (wanted === undefined) return [];
  const named = { schema: wanted.schema, name: wanted.name };
  const { carried } = table;
  const [there] = await target.rows<There>(READ_THERE, [named.schema, named.name]);
  const [former] = carried === null ? [] : await target.rows<There>(READ_FORMER, [carried.relation]);
  if (former !== undefined && former.relation !== there?.relation) {
    return [...(await missingSchema(target, wanted)), ...rename(former, there, wanted)];
  }
  const types = await missingTypes(target, wanted);
  if (there === undefined) return [...(await missingSchema(target, wanted)), ...types, wanted.create];
  return [...types, ...columns(wanted, there, carried)];
}

interface Column {
  readonly number: number;
  readonly name: string;
  /** As SQL spells it. */
  readonly ident: string;
  readonly type: string;
  /** Width or precision; -1 for none. */
  readonly typmod: number;
  readonly base: string;
}

interface Wanted extends TableName {
  readonly ident: string;
  readonly schemaIdent: string;
  readonly nameIdent: string;
  readonly create: string;
  readonly columns: readonly (Column & { readonly definition: string })[];
  /** Types of the application that the columns have, each with the statement that creates it. */
  readonly types: readonly { readonly name: string; readonly create: string }[];
}

interface There extends TableName {
  readonly relation: number;
  readonly ident: string;
  readonly columns: readonly Column[];
}

/** The table that was carried has another name: it takes the new one, after whoever has it has made room. */
function rename(former: There, inTheWay: There | undefined, wanted: Wanted): string[] {
  const statements: string[] = [];
  if (inTheWay !== undefined) {
    statements.push(`alter table ${inTheWay.ident} rename to ${ident(`${inTheWay.name}_other`)};`);
  }
  let now = former.ident;
  if (former.schema !== wanted.schema) {
    statements.push(`alter table ${now} set schema ${wanted.schemaIdent};`);
    now = `${wanted.schemaIdent}.${ident(former.name)}`;
  }
  if (former.name !== wanted.name) statements.push(`alter table ${now} rename to ${wanted.nameIdent};`);
  return statements;
}

/** Columns that were carried under another name are renamed, others added; those too narrow are widened. */
function columns(wanted: Wanted, there: There, carried: Carried | null): string[] {
  const byName = new Map(there.columns.map((column) => [column.name, column]));
  const byNumber = new Map(there.columns.map((column) => [column.number, column]));
  const renames: string[] = [];
  const actions: string[] = [];
  for (const column of wanted.columns) {
    const counterpart = byName.get(column.name);
    const into = carried?.columns.find(({ from }) => from === column.number)?.to;
    const former = into === undefined ? undefined : byNumber.get(into);
    if (counterpart === undefined && former !== undefined)
      renames.push(`alter table ${there.ident} rename column ${former.ident} to ${column.ident};`);
    else if (counterpart === undefined) actions.push(`add column ${column.definition}`);
    else if (tooNarrow(column, counterpart)) actions.push(`alter column ${column.ident} type ${column.type}`);
  }
  return actions.length === 0 ? renames : [...renames, `alter table ${there.ident} ${actions.join(', ')};`];
}

const WIDTHS = ['int2', 'int4', 'int8', 'numeric'];

function tooNarrow(here: Column, there: Column): boolean {
  const widths = [here, there].map(({ base }) => WIDTHS.indexOf(base));
  if (widths.every((width) => width >= 0) && here.base !== there.base)
    return (widths[0] as number) > (widths[1] as number);
  return here.base === there.base && there.typmod >= 0 && (here.typmod < 0 || here.typmod > there.typmod);
}

async function missingSchema(target: Session, { schema, schemaIdent }: Wanted): Promise<string[]> {
  const { there } = await target.row<{ there: boolean }>(
    'select exists (select from pg_namespace where nspname = $1) as there',
    [schema],
  );
  return there ? [] : [`create schema ${schemaIdent};`];
}

async function missingTypes(target: Session, { types }: Wanted): Promise<string[]> {
  if (types.length === 0) return [];
  const rows = await target.rows<{ name: string }>(
    'select t as name from unnest($1::text[]) t where to_regtype(t) is null',
    [types.map(({ name }) => name)],
  );
  const missing = new Set(rows.map(({ name }) => name));
  return types.filter(({ name }) => missing.has(name)).map(({ create }) => create);
}

const COLUMNS = `
  'number', a.attnum, 'name', a.attname, 'ident', quote_ident(a.attname), 'typmod', a.atttypmod,
  'type', format_type(a.atttypid, a.atttypmod), 'base', t.typname`;

/** A default that is a constant goes with the column; one that draws from a sequence would need that first. */
const READ_WANTED = `
  with wanted as (
    select a.attnum, json_build_object(${COLUMNS}, 'definition', concat_ws(' ',
             quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
             (select format('collate %I.%I', n.nspname, l.collname)
                from pg_collation l join pg_namespace n on n.oid = l.collnamespace
               where l.oid = a.attcollation and l.oid <> t.typcollation),
             case a.attgenerated when 's' then format('generated always as (%s) stored', e.text)
                                 when 'v' then format('generated always as (%s)', e.text) end,
             case a.attidentity when 'a' then 'generated always as identity'
                                when 'd' then 'generated by default as identity' end,
             case when a.attgenerated = '' and e.text !~ 'nextval' then 'default ' || e.text end,
             case when a.attnotnull and e.text !~ 'nextval' then 'not null' end)) as spelled,
           concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
             case a.attgenerated when 's' then format('generated always as (%s) stored', e.text)
                                 when 'v' then format('generated always as (%s)', e.text) end,
             case when a.attnotnull then 'not null' end) as created
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      left join lateral (select pg_get_expr(d.adbin, d.adrelid) as text from pg_attrdef d
                          where d.adrelid = a.attrelid and d.adnum = a.attnum) e on true
     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  ), keys as (
    select k.conname, pg_get_constraintdef(k.oid) as definition
      from pg_constraint k where k.conrelid = $1 and k.contype in ('p', 'u')
  ), enums as (
    select distinct e.oid, format('%I.%I', n.nspname, e.typname) as name
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      join pg_type e on e.oid in (t.oid, t.typelem) and e.typtype = 'e' join pg_namespace n on n.oid = e.typnamespace
     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  )
  select n.nspname as schema, c.relname as name, format('%I.%I', n.nspname, c.relname) as ident,
         quote_ident(n.nspname) as "schemaIdent", quote_ident(c.relname) as "nameIdent",
         (select coalesce(json_agg(w.spelled order by w.attnum), '[]') from wanted w) as columns,
         format('create table %I.%I (%s);', n.nspname, c.relname, concat_ws(', ',
                (select string_agg(w.created, ', ' order by w.attnum) from wanted w),
                (select string_agg(k.definition, ', ' order by k.conname) from keys k))) as create,
         (select coalesce(json_agg(json_build_object('name', e.name, 'create',
                   format('create type %s as enum (%s);', e.name,
                          (select string_agg(quote_literal(v.enumlabel), ', ' order by v.enumsortorder)
                             from pg_enum v where v.enumtypid = e.oid)))), '[]') from enums e) as types
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1`;

const THERE = `
  select c.oid::int8::float8 as relation, n.nspname as schema, c.relname as name,
         format('%I.%I', n.nspname, c.relname) as ident,
         (select coalesce(json_agg(json_build_object(${COLUMNS})), '[]')
            from pg_attribute a join pg_type t on t.oid = a.atttypid
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace`;

const READ_THERE = `${THERE} where n.nspname = $1 and c.relname = $2`;
const READ_FORMER = `${THERE} where c.oid::int8 = $1`;
