/**
 * The words of conflicts, and which rule decides one. Rows are told apart by the node that they come from, never by
 * "local" and "incoming": both nodes have to come to the same end. Pure; `conflict/` turns a rule into SQL.
 */
import { isExact, matches, type TablePattern } from './patterns.ts';
import type { TableName } from './plan.ts';

/** PostgreSQL 18's names, for what a state-based merge can tell apart. */
export const CONFLICT_TYPES = [
  /** Both sides inserted the key. */
  'insert_exists',
  /** Both sides changed the row. */
  'update_origin_differs',
  /** Changed there, gone here. */
  'update_missing',
  /** Gone there, changed here. */
  'delete_origin_differs',
  /** Another row here has a unique value of the incoming one. */
  'update_exists',
  /** Several other rows here do. */
  'multiple_unique_conflicts',
] as const;

export type ConflictType = (typeof CONFLICT_TYPES)[number];

/**
 * - `source`, `target`: the row of the first or the second node of `between`; one-way, of `from` or `to`.
 * - `newest`, `oldest`: by the time of the last change of each; ties go to the node whose name comes first.
 * - `priority`: of the node that comes first in the list.
 * - `column`: the greatest value of a column; a row that is there beats one that is gone; ties: the greater row, as text.
 * - `function`: what a SQL function returns.
 * - `hold`: neither row moves until a person decides. `abort`: the sync stops until then.
 */
export const STRATEGIES = [
  'source',
  'target',
  'newest',
  'oldest',
  'priority',
  'column',
  'function',
  'hold',
  'abort',
] as const;

export type Strategy = (typeof STRATEGIES)[number];

export interface ConflictRule {
  readonly strategy: Strategy;
  /** Of `column`. */
  readonly column: string | null;
  /** Of `function`: its name, `schema.name`. */
  readonly function: string | null;
  /** Of `priority`: every node of the sync, the most trusted first. */
  readonly nodes: readonly string[];
  /** Where it stands, for messages. */
  readonly place: string;
}

/** What decides the conflicts of some tables: one rule for all types, and others for some. */
export interface TableRules {
  readonly rule: ConflictRule;
  readonly types: Partial<Record<ConflictType, ConflictRule>>;
}

export interface ConflictRules {
  readonly all: TableRules;
  /** In the order of the file. */
  readonly tables: readonly (TableRules & { readonly pattern: TablePattern })[];
  /** Whether records keep the values of the rows. */
  readonly values: boolean;
  /** How long records are kept, in milliseconds; null: for ever. */
  readonly retentionMs: number | null;
}

/** The rules of a table: those under its own name, else the first pattern that takes it in, else those of the sync. */
export function rulesOf(rules: ConflictRules, table: TableName): TableRules {
  const matching = rules.tables.filter(({ pattern }) => matches(pattern, table.schema, table.name));
  return matching.find(({ pattern }) => isExact(pattern)) ?? matching[0] ?? rules.all;
}

/** The rule for one type of conflict. */
export function ruleFor({ rule, types }: TableRules, type: ConflictType): ConflictRule {
  return types[type] ?? rule;
}

/** Of a sync whose target is written by others too. */
export interface Rivalry {
  /** The lane of the other direction, or of a guard its reader on the target: who has what the target's side writes noted. */
  readonly counterpart: string;
  /** The nodes in the order of `between`, or of `from` and `to`. */
  readonly first: string;
  readonly second: string;
  readonly rules: ConflictRules;
}

/** Under what name the target of a sync that goes one way notes what others write there. Names of users have no dot. */
export function guardName(sync: string): string {
  return `${sync}.guard`;
}
