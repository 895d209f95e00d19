/**
 * Takes pg_dump's plain text apart into objects, by the comment that stands before each. Pure.
 *
 * Comments count outside of quotes only: the body of a function may hold anything.
 */
import type { SchemaObject, Section } from '../objects.ts';

/** What text is made of, apart from plain words: strings, names, dollar-quoted bodies, comments. */
const TOKEN = /'[^']*'|"[^"]*"|\$((?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?)\$[\s\S]*?\$\1\$|--[^\n]*/g;
const HEADER = /^-- Name: (.*); Type: ([A-Z ]+); Schema: (.*); Owner: /;
/** Lines that are for psql, or set what the next statements assume. */
const NOISE = /^(\\(un)?restrict .*|SET default_table_access_method = .*;)$/gm;

/** pg_dump's types that are another word here. All others are put in lower case. */
const KINDS: Readonly<Record<string, string>> = {
  CONSTRAINT: 'key',
  'CHECK CONSTRAINT': 'check',
  'FK CONSTRAINT': 'foreign key',
  'TABLE ATTACH': 'partition',
  'INDEX ATTACH': 'index partition',
  'SEQUENCE OWNED BY': 'sequence owner',
};

const AFTER_ROWS =
  /^((CHECK |FK )?CONSTRAINT|INDEX|INDEX ATTACH|STATISTICS|RULE|TRIGGER|POLICY|ROW SECURITY|COMMENT)$/;

/** Left to the target, or (the last two) nothing to be shown or repeated elsewhere: they hold passwords. */
const LEFT_OUT =
  /^(ACL|DEFAULT ACL|SECURITY LABEL|EVENT TRIGGER|PUBLICATION.*|DATABASE.*|.*DATA|SUBSCRIPTION.*|USER MAPPING)$/;

export interface DumpFilter {
  /** Schemas that are not the application's. */
  readonly foreignSchemas: RegExp;
  /** Names of triggers that are not. */
  readonly ourTriggers: RegExp;
}

interface Entry {
  readonly name: string;
  readonly type: string;
  readonly schema: string;
  text: string;
}

export function parseDump(text: string, filter: DumpFilter): SchemaObject[] {
  const entries = splitDump(text).filter((entry) => isWanted(entry, filter));
  const parents = parentsIn(entries);
  return entries.map((entry) => {
    const section: Section = AFTER_ROWS.test(entry.type) ? 'post-data' : 'pre-data';
    const built = indexIn(entry.text) ?? attachedIn(entry.text)?.child;
    return {
      kind: KINDS[entry.type] ?? entry.type.toLowerCase(),
      name: entry.schema === '-' ? entry.name : `${entry.schema}.${entry.name}`,
      section,
      statement: entry.text.trim().replace(/;$/, ''),
      under: (built !== undefined && parents.get(built)) || null,
    };
  });
}

function splitDump(text: string): Entry[] {
  const entries: Entry[] = [];
  let at = 0;
  const take = (piece: string) => {
    const current = entries.at(-1);
    if (current !== undefined) current.text += piece;
  };
  for (const match of text.matchAll(TOKEN)) {
    const [token] = match;
    take(text.slice(at, match.index).replace(NOISE, ''));
    at = match.index + token.length;
    if (!token.startsWith('--')) take(token);
    const [, name, type, schema] = HEADER.exec(token) ?? [];
    if (name !== undefined && type !== undefined && schema !== undefined) {
      entries.push({ name, type, schema, text: '' });
    }
  }
  take(text.slice(at).replace(NOISE, ''));
  return entries;
}

function isWanted({ name, type, schema, text }: Entry, { foreignSchemas, ourTriggers }: DumpFilter): boolean {
  if (LEFT_OUT.test(type) || foreignSchemas.test(schema)) return false;
  if (type === 'SCHEMA') return name !== 'public' && !foreignSchemas.test(name);
  if (type === 'COMMENT') {
    const [, schemaName] = /^SCHEMA (.*)$/.exec(name) ?? [];
    return (
      !name.startsWith('EXTENSION ') && schemaName !== 'public' && !foreignSchemas.test(schemaName ?? '-')
    );
  }
  const trigger = /^\s*CREATE (?:CONSTRAINT )?TRIGGER "?([^\s"]+)/.exec(text)?.[1];
  return type !== 'TRIGGER' || trigger === undefined || !ourTriggers.test(trigger);
}

const NAME = String.raw`(?:"(?:[^"]|"")*"|[^\s."(;]+)`;
const RELATION = `${NAME}\\.${NAME}`;
const INDEX = new RegExp(`^\\s*CREATE (?:UNIQUE )?INDEX (${NAME}) ON (?:ONLY )?((${NAME})\\.${NAME})`);
const KEY = new RegExp(`^\\s*ALTER TABLE (?:ONLY )?((${NAME})\\.${NAME})\\s+ADD CONSTRAINT (${NAME})`);
const ATTACH = new RegExp(`^\\s*ALTER INDEX (${RELATION}) ATTACH PARTITION (${RELATION})`);

/** The index that a statement builds, as it would be named elsewhere. */
function indexIn(text: string): string | undefined {
  const [, name, , schema] = INDEX.exec(text) ?? [];
  const [, , owner, constraint] = KEY.exec(text) ?? [];
  if (name !== undefined) return `${schema}.${name}`;
  return constraint === undefined ? undefined : `${owner}.${constraint}`;
}

function tableIn(text: string): string | undefined {
  return INDEX.exec(text)?.[2] ?? KEY.exec(text)?.[1];
}

function attachedIn(text: string): { parent: string; child: string } | undefined {
  const [, parent, child] = ATTACH.exec(text) ?? [];
  return parent === undefined || child === undefined ? undefined : { parent, child };
}

/** By the name of a partition's index: the partitioned index that it is attached to, and the partition. */
function parentsIn(entries: readonly Entry[]): Map<string, { index: string; table: string }> {
  const tables = new Map(entries.map(({ text }) => [indexIn(text), tableIn(text)]));
  const parents = new Map<string, { index: string; table: string }>();
  for (const { text } of entries) {
    const attached = attachedIn(text);
    const table = attached && tables.get(attached.child);
    if (attached && table) parents.set(attached.child, { index: attached.parent, table });
  }
  return parents;
}
