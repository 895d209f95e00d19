/** The flags of `ibex conflicts`, and how they are read. */
import { existsSync, readFileSync } from 'node:fs';
import { InvalidArgumentError, Option } from 'commander';
import type { PreviewRule } from '../conflict/preview.ts';
import { type RowTexts, STATES } from '../conflict/recorded.ts';
import type { Decision } from '../conflict/resolve.ts';
import { CONFLICT_TYPES, STRATEGIES, type Strategy } from '../core/conflict.ts';

const LIMIT = 100;

export const FILTERS: readonly Option[] = [
  new Option('--type <types>', `only these, of ${CONFLICT_TYPES.join(', ')}`).argParser((text) =>
    parseNames(text, CONFLICT_TYPES),
  ),
  new Option(
    '--state <states>',
    `only these, of ${STATES.join(', ')}; held and aborted wait for a person`,
  ).argParser((text) => parseNames(text, STATES)),
  new Option(
    '--since <when>',
    'only those since then: a time such as 2026-11-21T02:00Z, or how long ago, such as 2h',
  ).argParser(parseSince),
  new Option('--limit <N>', 'how many at most').default(LIMIT).argParser(parseLimit),
];

export const PREVIEW = new Option(
  '--preview <strategy>',
  'also say what another strategy would have done: one of newest, oldest, source, target, hold, abort, or priority=NODE,NODE, column=COLUMN, function=SCHEMA.FUNCTION',
).argParser(parseRule);

export const TO = new Option(
  '--to <which>',
  'source or target (the first or second node of the sync), or the row itself as JSON, inline or in a file: every column by its name, values as text or plain JSON; null for no row',
)
  .makeOptionMandatory()
  .argParser(parseDecision);

function parseNames<T extends string>(text: string, known: readonly T[]): T[] {
  const names = text.split(',').map((name) => name.trim() as T);
  const odd = names.find((name) => !known.includes(name));
  if (odd !== undefined) throw new InvalidArgumentError(`There are ${known.join(', ')}.`);
  return names;
}

const AGES = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

function parseSince(text: string): Date {
  const age = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text);
  const at = age ? new Date(Date.now() - Number(age[1]) * AGES[age[2] as keyof typeof AGES]) : new Date(text);
  if (!Number.isNaN(at.getTime())) return at;
  throw new InvalidArgumentError(
    'It must be a time such as 2026-11-21T02:00Z, or how long ago, such as 90m, 2h or 7d.',
  );
}

function parseLimit(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It must be a whole number from 1 on.');
}

/** Errors: commander's, for an unknown strategy and for one that lacks what it needs. */
export function parseRule(text: string): PreviewRule {
  const [name = '', value = ''] = text.split('=', 2);
  const strategy = STRATEGIES.find((one) => one === name);
  if (strategy === undefined) throw new InvalidArgumentError(`There are ${STRATEGIES.join(', ')}.`);
  const needs = NEEDS[strategy];
  if ((value === '') !== (needs === undefined)) {
    throw new InvalidArgumentError(needs === undefined ? `${name} stands alone.` : `Write ${name}=${needs}.`);
  }
  return {
    strategy,
    column: strategy === 'column' ? value : null,
    function: strategy === 'function' ? value : null,
    nodes: strategy === 'priority' ? value.split(',') : [],
  };
}

const NEEDS: Partial<Record<Strategy, string>> = {
  column: 'COLUMN',
  priority: 'NODE,NODE',
  function: 'SCHEMA.FUNCTION',
};

/** A file's name, or JSON where it begins like a row or is null. */
function parseDecision(text: string): Decision {
  if (text === 'source' || text === 'target') return { to: text };
  const inline = /^\s*(\{|null\s*$)/.test(text);
  if (!inline && !existsSync(text))
    throw new InvalidArgumentError('It must be source, target, a row as JSON, or a file that holds one.');
  let row: unknown;
  try {
    row = JSON.parse(inline ? text : readFileSync(text, 'utf8'));
  } catch {
    throw new InvalidArgumentError('That is not valid JSON.');
  }
  if (row === null) return { to: 'row', row: null };
  if (typeof row !== 'object' || Array.isArray(row))
    throw new InvalidArgumentError('A row is a JSON object, or null.');
  return {
    to: 'row',
    row: Object.fromEntries(Object.entries(row).map(([name, value]) => [name, textOf(value)])),
  };
}

/** As the server reads it: objects and arrays are for JSON columns. */
function textOf(value: unknown): RowTexts[string] {
  if (value === null || typeof value === 'string') return value;
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}
