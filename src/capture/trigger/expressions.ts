/**
 * Asks the source whether the expressions of a rule can be carried, and of which types they are.
 *
 * Only a write to a row makes Ibex look at it again, so an expression may depend on nothing but the row. The server
 * itself is the judge: a partial index takes no subquery and nothing that is not IMMUTABLE. It is made on an empty
 * temporary table of the same columns, in a transaction that is rolled back.
 */
import { applyRule } from '../../core/carry.ts';
import { IbexError } from '../../core/errors.ts';
import { type CarryRule, tableLabel } from '../../core/plan.ts';
import type { TableInfo, TypeInfo } from '../../core/table.ts';
import { readTables } from '../../postgres/catalog.ts';
import { ident } from '../../postgres/quote.ts';
import type { Session } from '../../postgres/session.ts';

const ROW = 'pg_temp.ibex_row';

const READ_KEY = `
  select a.attname::text as name
    from pg_index i join pg_attribute a on a.attrelid = i.indrelid
     and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
   where i.indrelid = $1 and i.indisprimary order by a.attnum`;

/** The table as its rule, if it has one, has it travel; or the error that says why it cannot. */
export async function carriedTable<T extends TableInfo>(
  session: Session,
  table: T,
  rule: CarryRule | undefined,
): Promise<T | IbexError> {
  if (rule === undefined) return table;
  try {
    const key = await session.rows<{ name: string }>(READ_KEY, [table.relid]);
    return applyRule(table, rule, {
      key: key.map(({ name }) => name),
      types: await readTypes(session, table, rule),
    });
  } catch (error) {
    if (error instanceof IbexError && error.table !== undefined) return error;
    throw error;
  }
}

/** The type of every expression of the rule, by column. Errors: `config` with the table's name. */
async function readTypes(
  session: Session,
  table: TableInfo,
  rule: CarryRule,
): Promise<Map<string, TypeInfo>> {
  if (rule.select.length === 0 && rule.where === null) return new Map();
  await session.run('begin');
  try {
    await createRow(session, table);
    for (const { column, expression } of rule.select) {
      await concerning(table, rule, `select of ${column}`, expression, () =>
        check(session, expression, ' is null'),
      );
    }
    if (rule.where !== null) {
      const { where } = rule;
      await concerning(table, rule, 'where', where, () => check(session, where, ''));
    }
    const types = new Map<string, TypeInfo>();
    for (const { column, expression } of rule.select) {
      await concerning(table, rule, `select of ${column}`, expression, async () => {
        types.set(column, await typeOf(session, expression));
      });
    }
    return types;
  } finally {
    await session.run('rollback');
  }
}

/** Made from the catalogs, since LIKE would wait for whoever has locked the table. */
async function createRow(session: Session, table: TableInfo): Promise<void> {
  const columns = table.columns.map((column) => `${ident(column.name)} ${column.type.declared}`).join(', ');
  try {
    await session.run(`create temporary table ibex_row (${columns})`);
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind !== 'privilege') throw error;
    const label = tableLabel(table);
    throw new IbexError(
      'privilege',
      `${label}: its expressions are checked on a temporary table; ${error.message}`,
      {
        table: label,
        hint: 'On the source: grant temporary on database .. to the role that Ibex connects as.',
      },
    );
  }
}

/**
 * Both frames take an expression and nothing else: what breaks out of the parentheses breaks CASE, and what breaks
 * out of CASE the parentheses. The parameter makes the server refuse a second statement. An end of line ends a comment.
 */
async function check(session: Session, expression: string, asPredicate: string): Promise<void> {
  await session.rows(`select case when $1::bool then ${expression}\n end from ${ROW} limit 0`, [true]);
  await session.run(`create index on ${ROW} ((1)) where (${expression}\n)${asPredicate}`);
}

async function typeOf(session: Session, expression: string): Promise<TypeInfo> {
  await session.run(
    `create or replace temporary view ibex_value as select (${expression}\n) as value from ${ROW}`,
  );
  const { schema } = await session.row<{ schema: string }>(
    'select nspname as schema from pg_namespace where oid = pg_my_temp_schema()',
  );
  const [view] = await readTables(session, [{ schema, name: 'ibex_value' }]);
  await session.run('drop view pg_temp.ibex_value');
  const type = view?.columns[0]?.type;
  if (type === undefined) throw new IbexError('internal', 'a view has no column');
  return type;
}

/** Whatever the server says of an expression is a fault of the configuration, unless it says it of itself. */
async function concerning(
  table: TableInfo,
  rule: CarryRule,
  part: string,
  expression: string,
  action: () => Promise<void>,
): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    if (!['schema_mismatch', 'privilege', 'constraint', 'unsupported'].includes(error.kind)) throw error;
    const label = tableLabel(table);
    throw new IbexError('config', `${label}: ${part}, ${expression.trim()}: ${error.message}`, {
      table: label,
      hint:
        `Correct ${rule.place}. An expression may use the columns of its row, and IMMUTABLE functions and operators; ` +
        'what is not in pg_catalog with its schema, such as public.f(a) or a operator(public.=) b.',
      cause: error,
    });
  }
}
