/** What a rule names must be there before anything is carried: the column of each table, the function on the node that asks it. */
import { type ConflictRules, rulesOf, type TableRules } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import { type TablePlan, tableLabel } from '../core/plan.ts';
import { literal, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';

/** All rules that may decide a conflict of some tables. */
function everyRule({ rule, types }: TableRules) {
  return [rule, ...Object.values(types)];
}

/** The `schema_mismatch` of a table that lacks the column by which its conflicts are to be decided. */
export function missingColumn(rules: ConflictRules, plan: TablePlan): IbexError | undefined {
  const names = plan.columns.map(({ name }) => name);
  const wrong = everyRule(rulesOf(rules, plan)).find(
    ({ strategy, column }) => strategy === 'column' && column !== null && !names.includes(column),
  );
  if (wrong === undefined) return undefined;
  const label = tableLabel(plan);
  return new IbexError('schema_mismatch', `${label} has no column ${wrong.column} to decide conflicts by`, {
    table: label,
    hint: `Correct ${wrong.place}; its columns are ${names.join(', ')}.`,
  });
}

/** The `schema_mismatch` of a table for whose rows there is no such function on this node. */
export async function missingFunction(
  session: Session,
  rules: ConflictRules,
  plan: TablePlan,
): Promise<IbexError | undefined> {
  for (const { strategy, function: name, place } of everyRule(rulesOf(rules, plan))) {
    if (strategy !== 'function' || name === null) continue;
    const signature = `${name}(${tableIdent(plan)},${tableIdent(plan)},jsonb)`;
    const { there } = await session.row<{ there: boolean }>(
      `select to_regprocedure(${literal(signature)}) is not null as there`,
    );
    if (there) continue;
    const label = tableLabel(plan);
    return new IbexError('schema_mismatch', `${label}: ${session.server} has no function ${signature}`, {
      table: label,
      hint: `Create it on both nodes, or correct ${place}: it is given the two rows and returns the one that stands.`,
    });
  }
  return undefined;
}
