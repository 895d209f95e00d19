/**
 * Which tables a sync takes, and what speaks against each before anything is installed.
 */
import { firesFor, isUserTrigger } from '../apply/target-table.ts';
import { carriedTable } from '../capture/trigger/expressions.ts';
import { ruleOf } from '../core/carry.ts';
import { IbexError } from '../core/errors.ts';
import { refuseUnfit } from '../core/fit.ts';
import { isExact, matches, type TablePattern } from '../core/patterns.ts';
import { type CarryRule, type TableName, tableLabel } from '../core/plan.ts';
import { columnFault, generatedThere } from '../core/planner.ts';
import type { TableInfo } from '../core/table.ts';
import { listTables, readTables } from '../postgres/catalog.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { withRemedy } from './remedies.ts';

export interface TableChoice {
  readonly tables: readonly TablePattern[];
  readonly exclude: readonly TablePattern[];
}

/**
 * The tables of the source that the patterns name, by default all of the application's. `known` are those that
 * the sync has carried: a daemon does not fail because one of them was dropped.
 * Errors: `unknown_table` for a pattern that names nothing, or when nothing is left.
 */
export async function chooseTables(
  source: Session,
  choice: TableChoice,
  known: readonly TableName[],
): Promise<TableInfo[]> {
  const all = await listTables(source);
  const matching = (pattern: TablePattern) =>
    [...all, ...known].filter((table) => matches(pattern, table.schema, table.name));
  // A wildcard may well exclude nothing yet; a name that excludes nothing is a misspelling.
  for (const pattern of [...choice.tables, ...choice.exclude.filter(isExact)]) {
    if (matching(pattern).length === 0) throw await nothingMatches(source, pattern);
  }
  const wanted = choice.tables.length === 0 ? all : all.filter((table) => isIn(choice.tables, table));
  const left = wanted.filter((table) => !isIn(choice.exclude, table));
  if (left.length === 0 && known.length === 0)
    throw new IbexError('unknown_table', `${source.server}: no table is left to carry`);
  return readTables(source, left);
}

function isIn(patterns: readonly TablePattern[], table: TableName): boolean {
  return patterns.some((pattern) => matches(pattern, table.schema, table.name));
}

/** Errors: `unknown_table` for a pattern of a call that picks nothing from the tables of a sync. */
export function requireMatches(choice: TableChoice, tables: readonly TableName[], sync: string): void {
  for (const pattern of [...choice.tables, ...choice.exclude.filter(isExact)]) {
    if (tables.some((table) => isIn([pattern], table))) continue;
    const some = tables.slice(0, 10).map(tableLabel).join(', ');
    throw new IbexError('unknown_table', `sync ${sync} has no table that matches ${pattern.text}`, {
      hint: tables.length === 0 ? 'It has no tables.' : `It has ${some}${tables.length > 10 ? ', ..' : ''}.`,
    });
  }
}

async function nothingMatches(source: Session, pattern: TablePattern): Promise<IbexError> {
  const { text } = pattern;
  const [partition] = await source.rows<{ root: string }>(
    `select pg_partition_root(c.oid)::regclass::text as root
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relispartition and n.nspname || '.' || c.relname = $1`,
    [text],
  );
  return new IbexError('unknown_table', `${source.server}: no table matches ${text}`, {
    hint: partition
      ? `It is a partition; name its partitioned table, ${partition.root}.`
      : 'Patterns are schema.table, matched case-sensitively; * and ? stand for any characters.',
  });
}

/** Errors: `config` for a rule of a table that the sync does not have: whoever wrote it means to leave something out. */
export function requireRuled(
  options: { readonly carry: readonly CarryRule[]; readonly asked: TableChoice },
  tables: readonly TableName[],
): void {
  if (options.asked.tables.length + options.asked.exclude.length > 0) return;
  const stray = options.carry.find((rule) => !tables.some((table) => tableLabel(table) === tableLabel(rule)));
  if (stray === undefined) return;
  throw new IbexError('config', `${stray.place}: ${tableLabel(stray)} is not a table of this sync`, {
    hint: 'Name a table as the source does, schema.table, upper and lower case included; a partition by its partitioned table.',
  });
}

/** What stands in the way of carrying a table, with the table's name in it. */
export interface Obstacle {
  readonly table: TableInfo;
  readonly error: IbexError;
}

/** The relations that something of others fires on, which its owner alone may set aside. */
const firingOfOthers = (replica: boolean) => `
  select o.oid from pg_trigger t join pg_class o on o.oid = t.tgrelid
   where ${isUserTrigger('t')} and t.tgenabled in ${firesFor(replica)} and not pg_has_role(o.relowner, 'usage')
  union
  select o.oid from pg_rewrite r join pg_class o on o.oid = r.ev_class
   where o.relkind in ('r', 'p') and r.ev_type in ('2', '3', '4') and r.ev_enabled in ${firesFor(replica)}
     and not pg_has_role(o.relowner, 'usage')`;

/** Those that a foreign key of others ties to each other, which a replica need not set aside. */
const TIED_BY_OTHERS = `
  select e.oid from pg_constraint k join pg_class o on o.oid = k.conrelid
   cross join lateral unnest(array[k.conrelid, k.confrelid]) e(oid)
   where k.contype = 'f' and k.conparentid = 0 and not pg_has_role(o.relowner, 'usage')`;

/** That nothing of others has to be set aside, on the table or on a partition of it. Found once, for all tables together. */
function mayBeParked(replica: boolean): string {
  const others = firingOfOthers(replica) + (replica ? '' : ` union ${TIED_BY_OTHERS}`);
  return `c.oid not in (select f.oid from (${others}) f
                        union select a.relid from (${others}) f cross join lateral pg_partition_ancestors(f.oid) a)`;
}

/**
 * Looks, without changing anything, for tables and columns missing on the target and for missing rights on both
 * sides. `replica`: nothing has to be set aside on the target.
 */
export async function findObstacles(
  options: {
    readonly source: Session;
    readonly target: Session;
    readonly replica: boolean;
    readonly carry: readonly CarryRule[];
  },
  tables: readonly TableInfo[],
): Promise<Obstacle[]> {
  const { source, target, replica } = options;
  const counterparts = new Map((await readTables(target, tables)).map((table) => [tableLabel(table), table]));
  const notOwned = await withoutRight(source, tables, `pg_has_role(c.relowner, 'usage')`);
  const notReadable = await withoutRight(source, tables, `has_table_privilege(c.oid, 'select')`);
  const notWritable = await withoutRight(
    target,
    tables,
    `has_schema_privilege(n.oid, 'usage')
     and has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
     and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete')`,
  );
  const { role } = await target.row<{ role: string }>('select current_user as role');
  const notParkable = await withoutRight(target, tables, mayBeParked(replica));
  const obstacles: Obstacle[] = [];
  for (const table of tables) {
    const label = tableLabel(table);
    const carried = await carriedTable(source, table, ruleOf(options.carry, table));
    const error =
      (carried instanceof IbexError ? carried : missing(carried, counterparts.get(label))) ??
      (notOwned.has(label) ? ownerNeeded(source, label) : undefined) ??
      (notReadable.has(label) ? readerNeeded(source, table) : undefined) ??
      (notWritable.has(label) ? writerNeeded(target, table, role) : undefined) ??
      (notParkable.has(label) ? targetOwnerNeeded(target, label) : undefined);
    if (error === undefined) continue;
    obstacles.push({ table, error: await withRemedy(source, target, { ...table, carried: null }, error) });
  }
  return obstacles;
}

/** The `schema_mismatch` of a table whose target lacks it or one of its columns, or has one of an unfit type. */
export function missing(source: TableInfo, target: TableInfo | undefined): IbexError | undefined {
  const label = tableLabel(source);
  if (target === undefined || !['r', 'p'].includes(target.kind)) {
    return new IbexError('schema_mismatch', `table ${label} does not exist on the target`, {
      table: label,
      hint: `Create it there (\`ibex schema copy --tables '${label}'\`), or --exclude '${label}'.`,
    });
  }
  if (target.isPartition) {
    return new IbexError('schema_mismatch', `${label} is a partition of another table on the target`, {
      table: label,
      hint: `Detach it there, or leave it out: --exclude '${label}'.`,
    });
  }
  const there = new Set(target.columns.map((column) => column.name));
  const lost = source.columns.filter((column) => !there.has(column.name));
  if (lost.length === 0) {
    const generated = new Set(target.columns.filter((column) => column.generated).map(({ name }) => name));
    const made = source.columns.find(
      ({ name, expression }) => expression !== undefined && generated.has(name),
    );
    if (made !== undefined) return generatedThere(label, made);
    const carried = source.columns.filter(({ name }) => !generated.has(name));
    return columnFault(label, carried, target) ?? refuseUnfit(source, target);
  }
  const names = lost.map((column) => column.name).join(', ');
  const add = lost.map((column) => `add column ${ident(column.name)} ${column.type.shown}`).join(', ');
  return new IbexError('schema_mismatch', `${label} lacks on the target: column ${names}`, {
    table: label,
    hint: `On the target: alter table ${tableIdent(source)} ${add};`,
  });
}

async function withoutRight(
  session: Session,
  tables: readonly TableName[],
  right: string,
): Promise<Set<string>> {
  const wanted = tables.map(({ schema, name }) => ({ schema, name }));
  const rows = await session.rows<TableName>(
    `select n.nspname as schema, c.relname as name
       from json_to_recordset($1) w(schema text, name text)
       join pg_namespace n on n.nspname = w.schema join pg_class c on c.relnamespace = n.oid and c.relname = w.name
      where not (${right})`,
    [JSON.stringify(wanted)],
  );
  return new Set(rows.map(tableLabel));
}

function ownerNeeded(source: Session, label: string): IbexError {
  return new IbexError(
    'privilege',
    `${source.server}: the role does not own ${label}, and only an owner may manage triggers`,
    {
      table: label,
      hint: `Connect as the owner of ${label}, or grant that role to yours.`,
    },
  );
}

/** An owner may have taken the right away from itself. */
function readerNeeded(source: Session, table: TableName): IbexError {
  const label = tableLabel(table);
  return new IbexError('privilege', `${source.server}: the role may not read ${label}`, {
    table: label,
    hint: `On the source: grant select on ${tableIdent(table)} to the role that Ibex connects as.`,
  });
}

function writerNeeded(target: Session, table: TableName, role: string): IbexError {
  const label = tableLabel(table);
  return new IbexError('privilege', `${target.server}: the role may not read and write ${label}`, {
    table: label,
    hint:
      `On the target: grant usage on schema ${ident(table.schema)} to ${ident(role)}; ` +
      `grant select, insert, update, delete, truncate on ${tableIdent(table)} to ${ident(role)};`,
  });
}

function targetOwnerNeeded(target: Session, label: string): IbexError {
  return new IbexError(
    'privilege',
    `${target.server}: foreign keys, triggers or rules of ${label} have to be set aside, which only an owner may`,
    {
      table: label,
      hint: `Connect as the owner of ${label} and of the tables that refer to it, or grant that role to yours.`,
    },
  );
}
