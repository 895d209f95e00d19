/** The tables of the sync: what setup says to each, and what would meet their rows later. */
import { readForeignKeys } from '../../apply/foreign-keys.ts';
import { firesFor, isUserTrigger, treeOf } from '../../apply/target-table.ts';
import { guardName } from '../../core/conflict.ts';
import { type CarryRule, type TableName, tableLabel } from '../../core/plan.ts';
import type { TableInfo } from '../../core/table.ts';
import { listTables } from '../../postgres/catalog.ts';
import { isInstalled, migrateHere } from '../../postgres/migrate.ts';
import { ident, tableIdent } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';
import { findObstacles } from '../../setup/tables.ts';
import { errorFinding, FEW, type Finding, info, someOf, warning } from './finding.ts';
import { tryOut } from './patient.ts';

export interface TableOptions {
  readonly source: Session;
  readonly target: Session;
  readonly sync: string;
  readonly replica: boolean;
  readonly carry: readonly CarryRule[];
}

/** What setup refuses, and the tables to which it has nothing to say. */
export async function probeObstacles(
  options: TableOptions,
  tables: readonly TableInfo[],
): Promise<{ findings: Finding[]; fit: TableInfo[] }> {
  const obstacles = await findObstacles(options, tables);
  const stopped = new Set(obstacles.map(({ table }) => table));
  const there = new Set((await listTables(options.target)).map(tableLabel));
  const lacking = obstacles.flatMap(({ table }) => (there.has(tableLabel(table)) ? [] : [tableLabel(table)]));
  const together = lacking.length > FEW ? new Set(lacking) : new Set<string>();
  const alone = obstacles.filter(({ table }) => !together.has(tableLabel(table)));
  return {
    findings: [
      ...(together.size > 0 ? [areLacking(lacking)] : []),
      ...alone.map(({ error }) => errorFinding('table', 'both', error)),
    ],
    fit: tables.filter((table) => !stopped.has(table)),
  };
}

/** As before the schema was copied. */
function areLacking(labels: readonly string[]): Finding {
  const what = `${labels.length} tables do not exist on the target: ${someOf(labels)}`;
  return {
    severity: 'error',
    check: 'table',
    side: 'both',
    what,
    remedy: '`ibex schema copy` creates what is missing.',
  };
}

const named = (tables: readonly TableName[]) =>
  JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));

/** The chosen tables with their partitions, as `c` in `n`; the chosen one is `root` in `rn`. */
const MEMBERS = `
  json_to_recordset($1) w(schema text, name text)
  join pg_namespace rn on rn.nspname = w.schema
  join pg_class root on root.relnamespace = rn.oid and root.relname = w.name and root.relkind in ('r', 'p')
  cross join lateral ${treeOf('root.oid')} m
  join pg_class c on c.oid = m.oid join pg_namespace n on n.oid = c.relnamespace`;

/** Tables whose rows a policy hides from the role: reading them, or writing them, is an error then. */
export async function probeRowSecurity(
  session: Session,
  side: 'source' | 'target',
  tables: readonly TableName[],
): Promise<Finding[]> {
  const hidden = await session.rows<TableName & { owner: boolean; role: string }>(
    `select n.nspname as schema, c.relname as name, pg_has_role(c.relowner, 'usage') as owner,
            current_user::text as role
       from ${MEMBERS} where row_security_active(c.oid) order by 1, 2`,
    [named(tables)],
  );
  return hidden.map(({ owner, role, ...table }) => ({
    severity: 'error',
    check: 'row-security',
    side,
    what: `row level security hides rows of ${tableLabel(table)} from role ${role}`,
    remedy: owner
      ? `On the ${side}: alter table ${tableIdent(table)} no force row level security;`
      : `As a superuser on the ${side}: alter role ${ident(role)} bypassrls; or connect as the owner of the table.`,
  }));
}

export async function probeTruncate(target: Session, tables: readonly TableName[]): Promise<Finding[]> {
  const rows = await target.rows<TableName & { role: string }>(
    `select n.nspname as schema, c.relname as name, current_user::text as role
       from ${MEMBERS} where not has_table_privilege(c.oid, 'truncate') order by 1, 2`,
    [named(tables)],
  );
  return rows.map(({ role, ...table }) =>
    warning(
      'truncate',
      'target',
      `role ${role} may not truncate ${tableLabel(table)}`,
      `On the target: grant truncate on ${tableIdent(table)} to ${ident(role)};`,
    ),
  );
}

/** Foreign keys of the target that lead out of the set, or into it. */
export async function probeForeignKeys(
  { target, sync }: TableOptions,
  tables: readonly TableName[],
): Promise<Finding[]> {
  const keys = await tryOut(target, async () => {
    if (!(await isInstalled(target, 'target'))) await migrateHere(target, 'target');
    return readForeignKeys(target, sync, tables);
  });
  const inSet = new Set(tables.map(tableLabel));
  return keys.flatMap(({ name, relation, child, parent }): Finding[] => {
    const [from, to] = [tableLabel(child), tableLabel(parent)];
    const outside = !inSet.has(to) ? to : !inSet.has(from) ? from : null;
    if (outside === null) return [];
    return [
      warning(
        'foreign-key',
        'target',
        `foreign key ${name} of ${tableLabel(relation)} refers to ${to}, and ${outside} is not carried`,
        `Carry it as well: add it to --tables '${outside}'; or on the target: ` +
          `alter table ${tableIdent(relation)} drop constraint ${ident(name)};`,
      ),
    ];
  });
}

/** What of the target fires for rows that are written there. */
export async function probeSetAside(
  { target, replica }: TableOptions,
  tables: readonly TableName[],
): Promise<Finding[]> {
  const rows = await target.rows<TableName & { objects: string }>(
    `select schema, name, string_agg(object, ', ' order by object) as objects from (
       select n.nspname as schema, c.relname as name, 'trigger ' || t.tgname as object
         from ${MEMBERS} join pg_trigger t on t.tgrelid = c.oid
        where ${isUserTrigger('t')} and t.tgenabled in ${firesFor(replica)}
       union all
       select n.nspname, c.relname, 'rule ' || r.rulename
         from ${MEMBERS} join pg_rewrite r on r.ev_class = c.oid
        where r.ev_type in ('2', '3', '4') and r.ev_enabled in ${firesFor(replica)}
     ) o group by 1, 2 order by 1, 2`,
    [named(tables)],
  );
  return rows.map(({ objects, ...table }) =>
    info(
      'set-aside',
      'target',
      `${tableLabel(table)}: ${objects} will be disabled as long as the sync lives`,
    ),
  );
}

/** Tables of the target that could not have a guard. */
export async function probeGuard(
  target: Session,
  sync: string,
  tables: readonly TableName[],
): Promise<Finding[]> {
  const foreign = await target.rows<TableName & { role: string; owner: string }>(
    `select n.nspname as schema, c.relname as name, current_user::text as role, pg_get_userbyid(c.relowner) as owner
       from ${MEMBERS} where not pg_has_role(c.relowner, 'usage') order by 1, 2`,
    [named(tables)],
  );
  const carried = (await isInstalled(target, 'source'))
    ? await target.rows<TableName & { sync: string }>(
        `select n.nspname as schema, c.relname as name, t.sync
           from ${MEMBERS} join ibex.source_table t on t.relid = c.oid where t.sync <> $2 order by 1, 2, 3`,
        [named(tables), guardName(sync)],
      )
    : [];
  const finding = (what: string, remedy: string): Finding => ({
    severity: 'error',
    check: 'guard',
    side: 'target',
    what,
    remedy,
  });
  return [
    ...foreign.map(({ role, owner, ...table }) =>
      finding(
        `role ${role} does not own ${tableLabel(table)}, so its guard cannot be put up`,
        `On the target: grant ${ident(owner)} to ${ident(role)}; or connect as ${owner}.`,
      ),
    ),
    ...carried.map(({ sync: other, ...table }) =>
      finding(
        `sync ${other} notes the changes of ${tableLabel(table)}, and a guard stands alone`,
        'Leave `guard` out, or the table out of one of them.',
      ),
    ),
  ];
}
