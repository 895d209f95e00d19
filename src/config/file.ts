/**
 * Reads ibex.yaml: the options that may stand in a file, and the nodes and syncs.
 *
 * Everything wrong is an error that names the file, the line and the key. Values are never repeated, nor
 * YAML's own messages, which quote the text: a line may hold a password.
 */

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import * as z from 'zod';
import { IbexError } from '../core/errors.ts';
import { isExact, parsePatterns } from '../core/patterns.ts';
import type { TableName } from '../core/plan.ts';
import { conflictsSchema } from './conflicts.ts';
import { fileOptionSchema } from './options.ts';
import { ageBudget, byteBudget, type NodeSource, nodeSource, patterns } from './values.ts';

const NAME = /^[a-z][a-z0-9_]{0,30}$/;
const NAME_RULE = 'must begin with a-z, followed by at most 30 of a-z, 0-9 and _';

const name = z.string({ error: 'must be a name' }).regex(NAME, { error: NAME_RULE });

const sqlText = z.string({ error: 'must be SQL, as a text' }).regex(/\S/, { error: 'must not be empty' });

const columnName = z.string({ error: 'must be the name of a column' }).min(1, { error: 'must not be empty' });

/** `schema.table` without wildcards, quoted as in a pattern. */
const tableName = z.string().superRefine((text, context) => {
  try {
    if (exactTable(text) === undefined) context.addIssue('must be one table, schema.table without wildcards');
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    context.addIssue(error.message);
  }
});

const carrySchema = mapping({
  columns: z
    .array(columnName, { error: 'must be a list of columns' })
    .min(1, { error: 'must name a column' })
    .optional(),
  select: z.record(columnName, sqlText, { error: 'must be a mapping of columns to SQL' }).optional(),
  where: sqlText.optional(),
}).refine((entry) => Object.keys(entry).length > 0, {
  error: 'must have one of the keys columns, select, where',
});

const syncSchema = mapping({
  name,
  from: name.optional(),
  to: name.optional(),
  between: z.tuple([name, name], { error: 'must be a list of two nodes' }).optional(),
  conflicts: conflictsSchema.optional(),
  guard: z.boolean({ error: 'must be true or false' }).optional(),
  // A row that another sync brought and this one left out would be missing without anybody being told.
  forward: z
    .literal(true, { error: 'can only be true: a sync also carries what other syncs brought to its source' })
    .optional(),
  tables: patterns.optional(),
  exclude: patterns.optional(),
  max_delta_bytes: byteBudget.optional(),
  max_delta_age: ageBudget.optional(),
  carry: z
    .record(tableName, carrySchema, {
      error: (issue) =>
        issue.code === 'invalid_key'
          ? (issue.issues[0]?.message ?? 'must be a table')
          : 'must be a mapping of tables to columns, select, where',
    })
    .optional(),
}).superRefine((sync, context) => {
  const refuse = (key: string, message: string) => context.addIssue({ code: 'custom', message, path: [key] });
  if (sync.between === undefined) {
    for (const side of ['from', 'to'] as const) if (sync[side] === undefined) refuse(side, 'must be a name');
    if (sync.conflicts !== undefined && sync.guard !== true)
      refuse('conflicts', 'belongs to a sync with between, or with guard: true');
    // A change of what is not carried would count as one of the row.
    if (sync.carry !== undefined && sync.guard === true)
      refuse('carry', 'does not go together with guard: true');
    return;
  }
  const oneWay = (['from', 'to', 'carry', 'guard'] as const).find((key) => sync[key] !== undefined);
  if (oneWay !== undefined) refuse(oneWay, 'does not go together with between');
});

const fileSchema = mapping({
  ...fileOptionSchema.shape,
  nodes: z
    .record(name, nodeSource, {
      error: (issue) => (issue.code === 'invalid_key' ? NAME_RULE : 'must be a mapping of names to URLs'),
    })
    .optional(),
  syncs: z
    .array(syncSchema, { error: 'must be a list of syncs' })
    .min(1, { error: 'must have at least one sync' })
    .optional(),
});

/** One entry of `syncs`. */
export type FileSync = z.output<typeof syncSchema>;

export interface ConfigFile {
  readonly nodes: Readonly<Record<string, NodeSource>>;
  readonly syncs: readonly FileSync[];
  /** What the file says by top-level key: right by itself, not yet converted. */
  readonly options: Readonly<Record<string, unknown>>;
  /** Where a key stands, such as `ibex.yaml line 4, syncs[0].from`. */
  readonly locate: (path: readonly PropertyKey[]) => string;
}

/** A file that sets nothing, for when there is none. */
export const NO_FILE: ConfigFile = { nodes: {}, syncs: [], options: {}, locate: String };

/**
 * Reads and checks a file.
 * @param label how messages call the file
 * @returns undefined when there is no such file
 * @throws IbexError `config`
 */
export function readConfigFile(path: string, label: string): ConfigFile | undefined {
  let source: string;
  try {
    source = readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new IbexError('config', `${label} cannot be read`, { cause });
  }
  const { content, locate } = parseYaml(source, label);
  const result = fileSchema.safeParse(content);
  if (!result.success) throw refusal(result.error, locate);
  const { nodes, syncs } = result.data;
  if ((nodes === undefined) !== (syncs === undefined)) {
    const [given, missing] = nodes === undefined ? ['syncs', 'nodes'] : ['nodes', 'syncs'];
    throw new IbexError('config', `${locate([given])}: needs ${missing} beside it`);
  }
  return { nodes: nodes ?? {}, syncs: syncs ?? [], options: content, locate };
}

/** The error for the first thing that a schema found wrong. */
export function refusal(error: z.ZodError, locate: ConfigFile['locate']): IbexError {
  const issue = error.issues[0];
  if (issue === undefined) {
    return new IbexError('internal', 'a refused setting has no reason', { cause: error });
  }
  const path = issue.code === 'unrecognized_keys' ? [...issue.path, ...issue.keys.slice(0, 1)] : issue.path;
  return new IbexError('config', `${locate(path)}: ${issue.message}`);
}

/** The one table that a text names; undefined when it may be several. Throws what `parsePatterns` throws. */
export function exactTable(text: string): TableName | undefined {
  const [pattern, ...more] = parsePatterns(text);
  if (pattern === undefined || more.length > 0 || !isExact(pattern)) return undefined;
  const { schema, table } = pattern;
  return { schema: schema.exact ?? '', name: table.exact ?? '' };
}

/** Loaded where there is a file: most commands have none, and start sooner without these eighty modules. */
function loadYaml(): typeof import('yaml') {
  return createRequire(import.meta.url)('yaml');
}

function parseYaml(source: string, label: string) {
  const { isMap, LineCounter, parseDocument, visit } = loadYaml();
  const lines = new LineCounter();
  const document = parseDocument(source, { prettyErrors: false, lineCounter: lines });
  const at = (offset: number) => `${label} line ${lines.linePos(offset).line}`;
  const fault = document.errors[0];
  if (fault) {
    const what = fault.code.toLowerCase().replaceAll('_', ' ');
    throw new IbexError('config', `${at(fault.pos[0])}: this is not valid YAML (${what})`);
  }
  visit(document, {
    Alias(_key, node) {
      if (node.resolve(document)) return;
      throw new IbexError('config', `${at(node.range?.[0] ?? 0)}: a value that begins with * needs quotes`);
    },
  });

  /** Offset of a key, or of the nearest thing around it that exists. */
  const offset = (path: readonly PropertyKey[]): number => {
    if (path.length === 0) return document.contents?.range?.[0] ?? 0;
    const parent = document.getIn(path.slice(0, -1), true);
    const last = path.at(-1);
    const pair = isMap(parent) ? parent.items.find(({ key }) => String(key) === last) : undefined;
    return rangeStart(pair ? pair.key : document.getIn(path, true)) ?? offset(path.slice(0, -1));
  };
  const content: unknown = document.toJS() ?? {};
  return {
    content: content as Record<string, unknown>,
    locate: (path: readonly PropertyKey[]) => [at(offset(path)), showPath(path)].filter(Boolean).join(', '),
  };
}

function rangeStart(node: unknown): number | undefined {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range)
    ? (node.range[0] as number)
    : undefined;
}

/** `syncs[0].from`; a key that is not a word is not shown, since it may be a URL with a password. */
function showPath(path: readonly PropertyKey[]): string {
  return path
    .map((part) => {
      if (typeof part === 'number') return `[${part}]`;
      return /^[\w.-]{1,130}$/.test(String(part)) ? `.${String(part)}` : '.(no word)';
    })
    .join('')
    .replace(/^\./, '');
}

function mapping<T extends z.ZodRawShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) => {
      const keys = Object.keys(shape).join(', ');
      return issue.code === 'unrecognized_keys'
        ? `not a known key; the keys here are ${keys}`
        : `must be a mapping with the keys ${keys}`;
    },
  });
}
