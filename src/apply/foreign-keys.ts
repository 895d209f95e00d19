/**
 * The foreign keys of the target's tables: which there are, what puts each back as it was, and whether rows stand
 * under them that have no parent.
 */
import { IbexError } from '../core/errors.ts';
import {
  type ColumnPlan,
  keyOf,
  rowLabel,
  type TableName,
  type TablePlan,
  tableLabel,
} from '../core/plan.ts';
import { ident } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import type { Statement } from '../postgres/together.ts';
import type { TableState } from './state.ts';
import { isKnown, isStaged, keyText, selectLeaving, staged as stagedValue, stageName } from './statements.ts';

export interface ForeignKey {
  readonly name: string;
  /** The relation that has it: the child, or a partition of the child. */
  readonly relation: TableName;
  /** The tables at both ends; for a partition, the partitioned table. */
  readonly child: TableName;
  readonly parent: TableName;
  /** Their states in the sync; null for tables that are not part of it. */
  readonly childState: TableState | null;
  readonly parentState: TableState | null;
  /** The statement that puts its comment back. */
  readonly remark: string | null;
  /** Cannot be added NOT VALID: before PostgreSQL 18 a partitioned table cannot have such a one. */
  readonly checkedAtOnce: boolean;
  readonly deferred: boolean;
  /** False for one that is NOT VALID: rows without a parent were there when it was made. */
  readonly validated: boolean;
  /** What a DELETE, or an UPDATE of what is referred to, does to the rows of the child; false for an error. */
  readonly actsOnDelete: boolean;
  readonly actsOnUpdate: boolean;
  /** How a `FROM` names relation and referenced relation. */
  readonly from: string;
  readonly parentFrom: string;
  /** The columns that refer, those that are referred to, and the operators between them. */
  readonly pairs: readonly { readonly child: string; readonly parent: string; readonly operator: string }[];
  /** Rows meet by equal values; a key over periods is not understood here. */
  readonly plain: boolean;
}

const isWanted = (table: string, schema: string) =>
  `(${schema}.nspname, ${table}.relname) in (select w.schema, w.name from json_to_recordset($2) w(schema text, name text))`;

const nameOf = (table: string, schema: string) =>
  `json_build_object('schema', ${schema}.nspname, 'name', ${table}.relname)`;

const stateOf = (table: string, schema: string) =>
  `(select s.state from ibex.target_table s
     where s.sync = $1 and s.schema_name = ${schema}.nspname and s.table_name = ${table}.relname and s.state <> 'dropped')`;

const rootOf = (relation: string) =>
  `case when ${relation}.relispartition then pg_partition_root(${relation}.oid)::oid else ${relation}.oid end`;

/** Rows of a plain table alone, not of those that inherit from it: that is what a foreign key speaks of. */
const from = (relation: string, schema: string) =>
  `concat(case when ${relation}.relkind = 'r' then 'only ' end, format('%I.%I', ${schema}.nspname, ${relation}.relname))`;

/** One that is NOT ENFORCED stands in nobody's way. */
const READ_FOREIGN_KEYS = `
  select k.conname as name, c.relkind = 'p' and current_setting('server_version_num')::int < 180000 as "checkedAtOnce",
         k.condeferred as deferred, k.convalidated as validated, ${nameOf('c', 'cn')} as relation,
         ${nameOf('cr', 'crn')} as child, ${nameOf('pr', 'prn')} as parent,
         ${stateOf('cr', 'crn')} as "childState", ${stateOf('pr', 'prn')} as "parentState",
         (select format('comment on constraint %I on %I.%I is %L', k.conname, cn.nspname, c.relname, d.text)
            from obj_description(k.oid, 'pg_constraint') d(text) where d.text is not null) as remark,
         k.confdeltype in ('c', 'n', 'd') as "actsOnDelete", k.confupdtype in ('c', 'n', 'd') as "actsOnUpdate",
         ${from('c', 'cn')} as "from", ${from('p', 'pn')} as "parentFrom", x.pairs, x.plain
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid join pg_namespace cn on cn.oid = c.relnamespace
    join pg_class p on p.oid = k.confrelid join pg_namespace pn on pn.oid = p.relnamespace
    join pg_class cr on cr.oid = ${rootOf('c')} join pg_namespace crn on crn.oid = cr.relnamespace
    join pg_class pr on pr.oid = ${rootOf('p')} join pg_namespace prn on prn.oid = pr.relnamespace
    cross join lateral (
      select json_agg(json_build_object('child', a.attname, 'parent', b.attname,
                                        'operator', format('operator(%I.%s)', n.nspname, o.oprname)) order by x.ord) as pairs,
             bool_and(o.oprname = '=') as plain
        from unnest(k.conkey, k.confkey, k.conpfeqop) with ordinality x(child, parent, operator, ord)
        join pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.child
        join pg_attribute b on b.attrelid = k.confrelid and b.attnum = x.parent
        join pg_operator o on o.oid = x.operator join pg_namespace n on n.oid = o.oprnamespace
    ) x
   where k.contype = 'f' and k.conparentid = 0 and (${isWanted('cr', 'crn')} or ${isWanted('pr', 'prn')})
     and pg_get_constraintdef(k.oid) !~ ' NOT ENFORCED$'
   order by 4::text, 1`;

/** Both its tables are carried. */
export function isWithin({ childState, parentState }: ForeignKey): boolean {
  return childState !== null && parentState !== null;
}

/**
 * Whether a foreign key has to be looked after where nothing holds a replica to it: one with an end outside of the sync, of
 * which the source knows nothing. Where others write the target too (`rivals`) also one between tables in step: its parent
 * may be gone on one side and have a child on the other.
 */
export function isUnwatched(key: ForeignKey, rivals: boolean): boolean {
  return !isWithin(key) || (rivals && key.childState === 'streaming' && key.parentState === 'streaming');
}

/** Every foreign key that starts or ends at one of the tables or at a partition of one. */
export async function readForeignKeys(
  session: Session,
  sync: string,
  tables: readonly TableName[],
): Promise<ForeignKey[]> {
  if (tables.length === 0) return [];
  const [answer] = await session.together([readingForeignKeys(sync, tables)]);
  return answer?.rows as ForeignKey[];
}

/** What `readForeignKeys` asks. */
export function readingForeignKeys(sync: string, tables: readonly TableName[]): Statement {
  const wanted = tables.map(({ schema, name }) => ({ schema, name }));
  return { text: READ_FOREIGN_KEYS, values: [sync, JSON.stringify(wanted)], prepared: true };
}

/**
 * Refuses rows without a parent: of a staged table only those that the batch wrote, otherwise all of the child's.
 * Errors: `constraint`, naming child, row and foreign key.
 */
export async function requireParents(session: Session, key: ForeignKey, staged?: TablePlan): Promise<void> {
  if (!key.plain || !key.validated) return;
  const plan = staged?.mode === 'key' ? staged : undefined;
  const [written, name] = plan === undefined ? ['', 'null'] : [` and ${isStaged(plan)}`, keyText(plan)];
  const filled = key.pairs.map((pair) => `t.${ident(pair.child)} is not null`).join(' and ');
  const values = key.pairs.map((pair) => `t.${ident(pair.child)}::text`).join(', ');
  const [orphan] = await session.rows<{ values: string; row: string[] | null }>(
    `select concat_ws(', ', ${values}) as values, ${name} as row from ${key.from} t
      where ${filled}${written} and not exists (select from ${key.parentFrom} p where ${meets(key)}) limit 1`,
  );
  if (orphan === undefined) return;
  const [child, parent] = [tableLabel(key.child), tableLabel(key.parent)];
  const columns = key.pairs.map((pair) => pair.child).join(', ');
  const row = plan === undefined || orphan.row === null ? '' : ` (${rowLabel(plan, orphan.row)})`;
  throw new IbexError(
    'constraint',
    `${child}: foreign key ${key.name}: no row of ${parent} for (${columns}) = (${orphan.values})${row}`,
    {
      // The one of the two whose rows came from the source; the other may be none of the sync's.
      table: key.childState === null ? parent : child,
      hint: `Put the missing row into ${parent}, or remove those of ${child} that refer to it.`,
    },
  );
}

/**
 * Refuses children that a staged removal leaves without a parent: nothing tells a replica, and they may be of somebody else
 * than who removed it. Errors: as `requireParents`.
 */
export async function requireNoOrphans(session: Session, key: ForeignKey, parent: TablePlan): Promise<void> {
  const byKey = keyOf(parent).map((column) => column.name);
  if (!key.plain || !key.pairs.every((pair) => byKey.includes(pair.parent)))
    return requireParents(session, key);
  const { found } = await session.row<{ found: boolean }>(
    `select exists (select from ${stageName(parent)} s join ${key.from} t on ${key.pairs
      .map((pair) => {
        const place = byKey.indexOf(pair.parent);
        return `${stagedValue(parent, keyOf(parent)[place] as ColumnPlan)} ${pair.operator} t.${ident(pair.child)}`;
      })
      .join(' and ')} where not s.present) as found`,
  );
  if (found) await requireParents(session, key);
}

/** A row `t` of the child refers to a row `p` of the parent. */
function meets(key: ForeignKey): string {
  return key.pairs
    .map((pair) => `p.${ident(pair.parent)} ${pair.operator} t.${ident(pair.child)}`)
    .join(' and ');
}

/**
 * Whether the actions of a foreign key within the sync would change rows of which the batch knows nothing: those of a
 * key that the source does not have, or of a child that is held. Asked before anything is written.
 */
export async function actsBeyond(
  session: Session,
  key: ForeignKey,
  parent: { readonly plan: TablePlan; readonly gone: number; readonly present: number },
  child: TablePlan | undefined,
): Promise<boolean> {
  if (key.childState === null) return false;
  const byKey = keyOf(parent.plan).map((column) => column.name);
  const others = key.pairs.map((pair) => pair.parent).filter((name) => !byKey.includes(name));
  const leaves = key.actsOnDelete && parent.gone > 0;
  const changes = key.actsOnUpdate && parent.present > 0 && others.length > 0;
  if (parent.plan.mode === 'row' || !(leaves || changes)) return false;
  const { found } = await session.row<{ found: boolean }>(
    `select exists (
       select from (${selectLeaving(parent.plan, leaves, changes ? others : [])}) p
         join (select t.* from ${key.from} t${child?.mode === 'key' ? ` where not ${isKnown(child)}` : ''}) t on ${meets(key)}) as found`,
  );
  return found;
}
