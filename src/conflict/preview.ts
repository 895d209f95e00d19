/**
 * What another strategy would have made of a recorded conflict. Nothing is changed: values are compared by the types
 * of the table's columns, and functions called in a transaction that is rolled back, on the node that decided.
 */
import type { Strategy } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type Conflict, type ConflictSide, nodesOf, type RowTexts, winnerOf } from './recorded.ts';

/** A strategy with what it needs. */
export interface PreviewRule {
  readonly strategy: Strategy;
  readonly column: string | null;
  readonly function: string | null;
  readonly nodes: readonly string[];
}

/** One of `stands` (the node whose row it is), `made` (a new row) and `unknown` (why it cannot be told); none: it would wait. */
export interface Outcome {
  readonly stands: string | null;
  readonly made: RowTexts | null;
  readonly unknown: string | null;
}

const WAITS: Outcome = { stands: null, made: null, unknown: null };
const stands = (node: string): Outcome => ({ ...WAITS, stands: node });
const unknown = (why: string): Outcome => ({ ...WAITS, unknown: why });

/** `session` is one of the node that decided. */
export async function previewConflict(
  session: Session,
  conflict: Conflict,
  rule: PreviewRule,
): Promise<Outcome> {
  const { first, second } = nodesOf(conflict);
  switch (rule.strategy) {
    case 'source':
      return stands(first.node);
    case 'target':
      return stands(second.node);
    case 'newest':
    case 'oldest':
      return byTime(conflict, rule.strategy === 'newest');
    case 'priority':
      return byPriority(conflict, rule.nodes);
    case 'column':
      return byColumn(session, conflict, rule.column ?? '');
    case 'function':
      return byFunction(session, conflict, rule.function ?? '');
    case 'hold':
    case 'abort':
      return WAITS;
  }
}

/** Whether the conflict would have ended in another way than it did. */
export function endsOtherwise(conflict: Conflict, outcome: Outcome): boolean {
  if (outcome.unknown !== null) return false;
  const made = (row: RowTexts | null) => JSON.stringify(row && Object.entries(row).sort());
  return outcome.stands !== winnerOf(conflict) || made(outcome.made) !== made(conflict.made);
}

/** The side of the node whose name comes first: what ties go to. */
function byName({ local, incoming }: Conflict): Outcome {
  return stands(local.node < incoming.node ? local.node : incoming.node);
}

function byTime(conflict: Conflict, newest: boolean): Outcome {
  const { local, incoming } = conflict;
  if (local.at === null || incoming.at === null) return unknown('when the rows were changed is not known');
  const difference = local.at.getTime() - incoming.at.getTime();
  if (difference === 0) return byName(conflict);
  return stands(difference > 0 === newest ? local.node : incoming.node);
}

function byPriority({ local, incoming }: Conflict, nodes: readonly string[]): Outcome {
  const first = nodes.find((node) => node === local.node || node === incoming.node);
  return first === undefined ? unknown('neither node is in the list') : stands(first);
}

/** Types in which one of the rows is gone: that it is not there says nothing of the record. */
function isGone({ type }: Conflict, side: 'local' | 'incoming'): boolean {
  return type === (side === 'local' ? 'update_missing' : 'delete_origin_differs');
}

const NO_VALUES = unknown('the record keeps no values of the rows');

async function byColumn(session: Session, conflict: Conflict, column: string): Promise<Outcome> {
  const { local, incoming } = conflict;
  if (isGone(conflict, 'local')) return stands(incoming.node);
  if (isGone(conflict, 'incoming')) return stands(local.node);
  if (local.row === null || incoming.row === null) return NO_VALUES;
  if (!Object.hasOwn(local.row, column)) return unknown(`the table has no column ${column}`);
  const [left, right] = [local.row[column] ?? null, incoming.row[column] ?? null];
  if (left === right) return byText(conflict, local.row, incoming.row);
  if (left === null || right === null) return stands(left === null ? incoming.node : local.node);
  const type = await typeOf(session, conflict, column);
  if (type === null) return unknown(`the table has no column ${column} any more`);
  const { greater, equal } = await session.row<{ greater: boolean; equal: boolean }>(
    `select $1::text::${type} > $2::text::${type} as greater, $1::text::${type} = $2::text::${type} as equal`,
    [left, right],
  );
  if (equal) return byText(conflict, local.row, incoming.row);
  return stands(greater ? local.node : incoming.node);
}

/** The row whose text is greater, column by column in the order of their names: bytes, and no value beyond all. */
function byText({ local, incoming }: Conflict, mine: RowTexts, theirs: RowTexts): Outcome {
  for (const column of Object.keys(mine).sort()) {
    const [left, right] = [mine[column] ?? null, theirs[column] ?? null];
    if (left === right) continue;
    const greater =
      left === null || (right !== null && Buffer.compare(Buffer.from(left), Buffer.from(right)) > 0);
    return stands(greater ? local.node : incoming.node);
  }
  return stands(incoming.node);
}

async function typeOf(session: Session, conflict: Conflict, column: string): Promise<string | null> {
  const [found] = await session.rows<{ type: string }>(
    `select format_type(a.atttypid, a.atttypmod) as type
       from pg_attribute a
      where a.attrelid = to_regclass($1) and a.attname = $2 and not a.attisdropped`,
    [identOf(conflict), column],
  );
  return found?.type ?? null;
}

function identOf({ schema, table }: Conflict): string {
  return tableIdent({ schema, name: table });
}

/** What functions find names by when a conflict is decided. */
const FUNCTION_PATH = `set local search_path = "$user", public`;

/** Rows are given in the order of the nodes, as the function is called when a conflict is decided. */
async function byFunction(session: Session, conflict: Conflict, name: string): Promise<Outcome> {
  const { first, second } = nodesOf(conflict);
  if (first.row === null && second.row === null) return NO_VALUES;
  const table = identOf(conflict);
  const texts = conflict.columns.map((column) => `(r.made).${ident(column)}::text`);
  const row = (n: number) =>
    `(select x from jsonb_populate_record(null::${table}, $${n}::jsonb) x where $${n}::jsonb is not null)`;
  try {
    const [made] = await session.rehearse(async () => {
      await session.run(FUNCTION_PATH);
      return session.rows<{ gone: boolean; values: (string | null)[] }>(
        `select r.made is not distinct from null as gone, array[${texts.join(', ')}] as values
           from (select ${functionIdent(name)}(${row(1)}, ${row(2)}, $3::jsonb) as made offset 0) r`,
        [jsonOf(first), jsonOf(second), JSON.stringify(metaOf(conflict))],
      );
    });
    if (made === undefined || made.gone) return goneOutcome(conflict);
    const values = Object.fromEntries(conflict.columns.map((column, i) => [column, made.values[i] ?? null]));
    const same = [first, second].find((side) => isSameRow(side.row, values));
    return same === undefined ? { ...WAITS, made: values } : stands(same.node);
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind === 'connection') throw error;
    return unknown(`${name} fails: ${error.message}`);
  }
}

function jsonOf({ row }: ConflictSide): string | null {
  return row && JSON.stringify(row);
}

/** What a function is told beside the rows, as when a conflict is decided. */
function metaOf(conflict: Conflict): object {
  const { schema, table, type, key } = conflict;
  const { first, second } = nodesOf(conflict);
  const told = ({ node, at }: ConflictSide) => ({ node, at });
  return { table: `${schema}.${table}`, type, key, first: told(first), second: told(second) };
}

/** The function wants no row: that of the node where it is gone stands, if there is one. */
function goneOutcome(conflict: Conflict): Outcome {
  if (isGone(conflict, 'local')) return stands(conflict.local.node);
  if (isGone(conflict, 'incoming')) return stands(conflict.incoming.node);
  return { ...WAITS, made: {} };
}

function isSameRow(row: RowTexts | null, other: RowTexts): boolean {
  return row !== null && Object.keys(other).every((column) => row[column] === other[column]);
}

function functionIdent(name: string): string {
  return name.split('.').map(ident).join('.');
}
