/**
 * Table patterns: `schema.table` with `*` (any characters) and `?` (one character).
 *
 * Names are compared with the catalog's as they are, upper and lower case included: nothing is folded, with
 * or without quotes. Double quotes only take the special meaning from dot, comma, star and question mark;
 * a quote inside quotes is written twice. Pure: whether a table exists is for the catalog to say.
 */

import { IbexError } from './errors.ts';

interface NamePattern {
  /** The name itself when the pattern has no wildcard. */
  readonly exact: string | undefined;
  readonly regexp: RegExp;
}

/** One pattern of a `tables` or `exclude` list. */
export interface TablePattern {
  /** As the user wrote it, for messages. */
  readonly text: string;
  readonly schema: NamePattern;
  readonly table: NamePattern;
}

/**
 * Reads a comma-separated list of patterns, in order.
 * @throws IbexError `config` for an empty pattern, an open quote, or a pattern that is not `schema.table`.
 */
export function parsePatterns(text: string): TablePattern[] {
  if (text.includes('://')) throw wrong('a URL stands where a table pattern belongs');
  if (text.split('"').length % 2 === 0) throw wrong(`the quote in ${text} is not closed`);
  return split(text, ',').map((item) => parsePattern(item.trim()));
}

/** True when the pattern covers the table of that schema. */
export function matches(pattern: TablePattern, schema: string, table: string): boolean {
  return pattern.schema.regexp.test(schema) && pattern.table.regexp.test(table);
}

/** True when the pattern can cover one table only, so that covering none means a table that is not there. */
export function isExact(pattern: TablePattern): boolean {
  return pattern.schema.exact !== undefined && pattern.table.exact !== undefined;
}

function parsePattern(text: string): TablePattern {
  if (text === '') throw wrong('a table pattern is empty');
  const [schema, table, ...rest] = split(text, '.').map((name) => parseName(name.trim()));
  if (schema === undefined || table === undefined) {
    throw wrong(`${text} does not name a schema: write schema.table, such as public.${text}`);
  }
  if (rest.length > 0) {
    throw wrong(
      `${text} has more than one dot: write schema.table, with double quotes around a name with a dot`,
    );
  }
  if (schema.exact === '' || table.exact === '') throw wrong(`${text} lacks a name: write schema.table`);
  return { text, schema, table };
}

function parseName(text: string): NamePattern {
  let exact: string | undefined = '';
  let source = '';
  for (const [token, quoted] of text.matchAll(/"((?:[^"]|"")*)"|[^"]/gu)) {
    if (quoted === undefined && (token === '*' || token === '?')) {
      exact = undefined;
      source += token === '*' ? '.*' : '.';
    } else {
      const literal = quoted?.replaceAll('""', '"') ?? token;
      if (exact !== undefined) exact += literal;
      source += literal.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
    }
  }
  return { exact, regexp: new RegExp(`^${source}$`, 'su') };
}

/** Splits outside quotes. A doubled quote opens and closes at once, so it needs no case of its own. */
function split(text: string, separator: ',' | '.'): string[] {
  const parts = [''];
  let quoted = false;
  for (const char of text) {
    if (char === '"') quoted = !quoted;
    if (char === separator && !quoted) parts.push('');
    else parts[parts.length - 1] += char;
  }
  return parts;
}

function wrong(message: string): IbexError {
  return new IbexError('config', message, {
    hint: 'Patterns look like public.*, app.order_?, "My.Schema"."a*b".',
  });
}
