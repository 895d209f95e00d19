/**
 * What the user chose to carry of a table: some of its columns, expressions in the place of others, some of its rows.
 * Pure: makes of a table as the source has it the table that travels; `capture/trigger/expressions.ts` asks the server
 * what the expressions are worth.
 */
import { IbexError } from './errors.ts';
import { type CarryRule, type TableName, tableLabel } from './plan.ts';
import type { CapturedTable, ColumnInfo, TableInfo, TypeInfo } from './table.ts';

/** Finds the rule of a table by any of the names that it goes by. */
export function ruleOf(rules: readonly CarryRule[], ...names: readonly TableName[]): CarryRule | undefined {
  return names
    .map((name) => rules.find((rule) => rule.schema === name.schema && rule.name === name.name))
    .find((rule) => rule !== undefined);
}

export interface ServerSays {
  /** The columns of the primary key: the key, as long as the table is not captured. */
  readonly key: readonly string[];
  /** The type of each expression, by the column that it makes. */
  readonly types: ReadonlyMap<string, TypeInfo>;
}

/**
 * The table as it travels: the chosen columns, and those that expressions make.
 * Errors: `config` for a column that is not there, and for a key that would not travel as it is.
 */
export function applyRule<T extends TableInfo>(table: T, rule: CarryRule, { key, types }: ServerSays): T {
  const made = new Map(rule.select.map(({ column, expression }) => [column, expression]));
  const names = new Set(table.columns.map((column) => column.name));
  const unknown = rule.columns?.find((name) => !names.has(name) && !made.has(name));
  if (unknown !== undefined) throw refused(table, rule, `it has no column ${unknown}`);
  if (isCaptured(table) && table.mode === 'row') {
    throw refused(table, rule, 'it has no key by which a row that is not carried any more could be removed');
  }
  requireKey(table, rule, made, isCaptured(table) ? table.noted : key);
  const wanted = rule.columns === null ? names : new Set(rule.columns);
  const plain = table.columns.filter((column) => wanted.has(column.name) && !made.has(column.name));
  const computed = [...made].map(([name, expression]) => computedColumn(name, expression, types));
  return { ...table, columns: [...plain, ...computed], rule };
}

function computedColumn(name: string, expression: string, types: ReadonlyMap<string, TypeInfo>): ColumnInfo {
  const type = types.get(name);
  if (type === undefined) throw new IbexError('internal', `the expression for ${name} has no type`);
  return {
    number: 0,
    name,
    type,
    expression,
    looseCollation: null,
    generated: false,
    formula: null,
    virtual: false,
    identityAlways: false,
    notNull: false,
    hasDefault: false,
  };
}

function isCaptured(table: TableInfo): table is CapturedTable {
  return 'noted' in table;
}

/** A row that is gone is known by its key alone, so the key travels as it is. */
function requireKey(
  table: TableInfo,
  rule: CarryRule,
  made: ReadonlyMap<string, string>,
  key: readonly string[],
): void {
  for (const name of key) {
    if (made.has(name)) throw refused(table, rule, `its key column ${name} cannot be an expression`);
    if (rule.columns !== null && !rule.columns.includes(name)) {
      throw refused(table, rule, `its key column ${name} cannot be left out`);
    }
  }
}

function refused(table: TableName, rule: CarryRule, why: string): IbexError {
  const label = tableLabel(table);
  return new IbexError('config', `${label}: ${why}`, { table: label, hint: `Correct ${rule.place}.` });
}

/**
 * What determines which rows and values of a table are on the target, beside the rows themselves, as a text to
 * compare; null when they are simply the source's. A virtual column is read as its formula says, and no row changes
 * when that does.
 */
export function choiceText(table: TableInfo, carried: readonly ColumnInfo[]): string | null {
  const { rule } = table;
  const virtual = carried.filter((column) => column.virtual).map(({ name, formula }) => [name, formula]);
  if (rule === undefined && virtual.length === 0) return null;
  return JSON.stringify({
    ...(rule === undefined || rule.columns === null ? {} : { columns: [...rule.columns].sort() }),
    ...(rule === undefined || rule.select.length === 0
      ? {}
      : { select: rule.select.map(({ column, expression }) => [column, expression]).sort() }),
    ...(rule === undefined || rule.where === null ? {} : { where: rule.where }),
    ...(virtual.length === 0 ? {} : { virtual }),
  });
}
