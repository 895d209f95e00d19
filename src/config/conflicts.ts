/**
 * The section `conflicts` of a sync: what decides between two rows of one key. Reads it, and refuses a rule that says
 * too little or too much.
 */
import * as z from 'zod';
import {
  CONFLICT_TYPES,
  type ConflictRule,
  type ConflictRules,
  type ConflictType,
  STRATEGIES,
  type Strategy,
  type TableRules,
} from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import { parsePatterns } from '../core/patterns.ts';

const names = STRATEGIES.join(', ');
const strategy = z.enum(STRATEGIES, { error: `must be one of ${names}` });
const word = (what: string) => z.string({ error: `must be ${what}` }).min(1, { error: `must be ${what}` });

const ruleShape = {
  strategy,
  column: word('the name of a column').optional(),
  function: word('the name of a SQL function, schema.name').optional(),
  nodes: z.array(word('the name of a node'), { error: 'must be a list of nodes' }).optional(),
};

type RuleEntry = Strategy | z.output<z.ZodObject<typeof ruleShape>>;

/** What each strategy needs beside its name. */
const NEEDS: Partial<Record<Strategy, 'column' | 'function' | 'nodes'>> = {
  column: 'column',
  function: 'function',
  priority: 'nodes',
};

function complete(entry: RuleEntry, context: z.RefinementCtx): void {
  const rule = typeof entry === 'string' ? { strategy: entry } : entry;
  const need = NEEDS[rule.strategy];
  for (const key of ['column', 'function', 'nodes'] as const) {
    const given = (rule as Record<string, unknown>)[key] !== undefined;
    if (key === need && !given) context.addIssue(`${rule.strategy} needs a mapping with ${key} beside it`);
    if (key !== need && given) context.addIssue(`${key} belongs to another strategy than ${rule.strategy}`);
  }
}

const mappingError = (keys: readonly string[]) => (issue: z.core.$ZodRawIssue) =>
  issue.code === 'unrecognized_keys'
    ? `not a known key; the keys here are ${keys.join(', ')}`
    : `must be one of ${names}, or a mapping with the keys ${keys.join(', ')}`;

/** Tells by its form which of the two an entry was meant to be, so that the message is about that one. */
function ruleOr<T extends z.ZodType>(object: T) {
  return z.unknown().transform((given, context) => {
    const parsed = (typeof given === 'string' ? strategy : object).safeParse(given);
    if (parsed.success) return parsed.data as Strategy | z.output<T>;
    for (const { message, path } of parsed.error.issues)
      context.issues.push({ code: 'custom', message, path, input: given });
    return z.NEVER;
  });
}

const rule = ruleOr(z.strictObject(ruleShape, { error: mappingError(Object.keys(ruleShape)) })).superRefine(
  complete,
);

const types = z.partialRecord(z.enum(CONFLICT_TYPES), rule, {
  error: (issue) =>
    issue.code === 'invalid_key'
      ? `not a type of conflict; there are ${CONFLICT_TYPES.join(', ')}`
      : 'must be a mapping of types of conflicts to strategies',
});

const tableShape = { ...ruleShape, types: types.optional() };
const tableRule = ruleOr(
  z.strictObject(tableShape, { error: mappingError(Object.keys(tableShape)) }),
).superRefine(complete);

const pattern = z.string().superRefine((text, context) => {
  try {
    if (parsePatterns(text).length !== 1) context.addIssue('must be one pattern, such as public.*');
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    context.addIssue(error.message);
  }
});

const shape = {
  default: rule.optional(),
  types: types.optional(),
  tables: z
    .record(pattern, tableRule, {
      error: (issue) =>
        issue.code === 'invalid_key'
          ? (issue.issues[0]?.message ?? 'must be a pattern')
          : 'must be a mapping of patterns of tables to strategies',
    })
    .optional(),
};

export const conflictsSchema = z.strictObject(shape, {
  error: (issue) =>
    issue.code === 'unrecognized_keys'
      ? 'not a known key; the keys here are default, types, tables'
      : 'must be a mapping with the keys default, types, tables',
});

export type FileConflicts = z.output<typeof conflictsSchema>;

export interface RulesContext {
  /** The nodes of the sync: `priority` names all of them. */
  readonly nodes: readonly string[];
  readonly locate: (path: readonly PropertyKey[]) => string;
  readonly values: boolean;
  readonly retentionMs: number | null;
}

/** The rules of a sync. Without a section the newest change of each row stays. Errors: `config` for nodes it does not have. */
export function conflictRules(given: FileConflicts | undefined, context: RulesContext): ConflictRules {
  const { locate, values, retentionMs } = context;
  const all = {
    rule: ruleFrom(given?.default ?? 'newest', ['default'], context),
    types: typesFrom(given?.types, ['types'], context),
  };
  const tables = Object.entries(given?.tables ?? {}).map(([text, entry]) => {
    const [parsed] = parsePatterns(text);
    if (parsed === undefined) throw new IbexError('internal', `${locate(['tables', text])} was not checked`);
    const own = typeof entry === 'string' ? undefined : (entry as { types?: FileConflicts['types'] }).types;
    const place = ['tables', text];
    const rules: TableRules = {
      rule: ruleFrom(entry, place, context),
      types: typesFrom(own, [...place, 'types'], context),
    };
    return { ...rules, pattern: parsed };
  });
  return { all, tables, values, retentionMs };
}

function typesFrom(
  given: FileConflicts['types'],
  place: readonly string[],
  context: RulesContext,
): TableRules['types'] {
  return Object.fromEntries(
    Object.entries(given ?? {}).map(([type, entry]) => [
      type as ConflictType,
      ruleFrom(entry as RuleEntry, [...place, type], context),
    ]),
  );
}

function ruleFrom(entry: RuleEntry, path: readonly string[], { nodes, locate }: RulesContext): ConflictRule {
  const given = typeof entry === 'string' ? { strategy: entry } : entry;
  const place = locate(path);
  const listed = given.nodes ?? [];
  const odd =
    listed.find((name) => !nodes.includes(name)) ??
    nodes.find((name) => given.nodes && !listed.includes(name));
  if (odd !== undefined || new Set(listed).size < listed.length) {
    throw new IbexError('config', `${place}: nodes must be ${nodes.join(' and ')}, each once`);
  }
  const { strategy, column = null, function: name = null } = given;
  return { strategy, column, function: name, nodes: listed, place };
}
