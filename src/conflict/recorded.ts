/**
 * The record of conflicts as people ask for it. Each node keeps what was decided on it; an id names node and record, as
 * in `beta/17`.
 */
import type { ConflictType, Strategy } from '../core/conflict.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';

/**
 * `held` and `aborted` wait for a person; `closed` is what a person has decided since, `resolved` what the strategy did.
 */
export const STATES = ['held', 'aborted', 'resolved', 'closed'] as const;
export type ConflictState = (typeof STATES)[number];

/** The values of a row as text, by column; null: there is none. */
export type RowTexts = Readonly<Record<string, string | null>>;

/** One side of a conflict. */
export interface ConflictSide {
  readonly node: string;
  /** Null: gone, or the record keeps no values. */
  readonly row: RowTexts | null;
  /** When the row was changed there last; null: not known. */
  readonly at: Date | null;
}

export interface Conflict {
  /** `node/number`. */
  readonly id: string;
  /** The node that decided, where the incoming change met the local one. */
  readonly node: string;
  readonly number: string;
  readonly at: Date;
  /** The lane that brought the incoming row: `pair`, or `pair.back` from its second node to its first. */
  readonly sync: string;
  readonly schema: string;
  readonly table: string;
  readonly type: ConflictType;
  /** Of the incoming row, as text. */
  readonly key: readonly string[];
  readonly columns: readonly string[];
  readonly local: ConflictSide;
  readonly incoming: ConflictSide;
  readonly strategy: Strategy;
  /** `new`: what a function made of both; `none`: neither moved. */
  readonly winner: 'local' | 'incoming' | 'new' | 'none';
  /** What took the place of both, with `new`. */
  readonly made: RowTexts | null;
  readonly batch: string;
  readonly state: ConflictState;
  /** Why it waits, or how it was closed. */
  readonly reason: string | null;
}

export interface ConflictFilter {
  /** Names of lanes. */
  readonly syncs: readonly string[];
  readonly types: readonly ConflictType[] | null;
  readonly states: readonly ConflictState[] | null;
  readonly since: Date | null;
  /** The one with this number. */
  readonly number: string | null;
  readonly covers: (table: TableName) => boolean;
}

interface Row {
  readonly number: string;
  readonly at: Date;
  readonly sync: string;
  readonly schema: string;
  readonly table: string;
  readonly type: ConflictType;
  readonly key: string[];
  readonly columns: string[];
  readonly localNode: string;
  readonly incomingNode: string;
  readonly localRow: (string | null)[] | null;
  readonly incomingRow: (string | null)[] | null;
  readonly localAt: Date | null;
  readonly incomingAt: Date | null;
  readonly strategy: Strategy;
  readonly winner: Conflict['winner'];
  readonly newRow: (string | null)[] | null;
  readonly batch: string;
  readonly state: ConflictState;
  readonly reason: string | null;
}

const READ = `
  select id::text as number, at, sync, schema_name as schema, table_name as table, type, key, columns,
         local_node as "localNode", incoming_node as "incomingNode",
         local_row as "localRow", incoming_row as "incomingRow", local_at as "localAt", incoming_at as "incomingAt",
         strategy, winner, new_row as "newRow", batch, state, reason
    from ibex.conflict
   where sync = any ($1) and ($2::text[] is null or type = any ($2)) and ($3::text[] is null or state = any ($3))
     and ($4::timestamptz is null or at >= $4) and ($5::bigint is null or id = $5)
   order by at desc, id desc`;

/** What a node has recorded, the newest first; nothing where no sync ever ended. */
export async function readConflicts(
  session: Session,
  node: string,
  { syncs, types, states, since, number, covers }: ConflictFilter,
): Promise<Conflict[]> {
  if (!(await keepsRecord(session))) return [];
  const rows = await session.rows<Row>(READ, [syncs, types, states, since, number]);
  return rows
    .filter((row) => covers({ schema: row.schema, name: row.table }))
    .map((row) => toConflict(node, row));
}

/** Whether the database is the target of a sync, of a version that knows conflicts. */
async function keepsRecord(session: Session): Promise<boolean> {
  const { there } = await session.row<{ there: boolean }>(
    `select to_regclass('ibex.conflict') is not null as there`,
  );
  return there;
}

function toConflict(node: string, row: Row): Conflict {
  const { localNode, incomingNode, localRow, incomingRow, localAt, incomingAt, newRow, ...rest } = row;
  const texts = (values: (string | null)[] | null): RowTexts | null =>
    values && Object.fromEntries(row.columns.map((column, i) => [column, values[i] ?? null]));
  return {
    ...rest,
    id: `${node}/${row.number}`,
    node,
    local: { node: localNode, row: texts(localRow), at: localAt },
    incoming: { node: incomingNode, row: texts(incomingRow), at: incomingAt },
    made: texts(newRow),
  };
}

export function tableOf({ schema, table }: Pick<Conflict, 'schema' | 'table'>): string {
  return tableLabel({ schema, name: table });
}

/** It waits for a person. */
export function waits({ state }: Pick<Conflict, 'state'>): boolean {
  return state === 'held' || state === 'aborted';
}

/** The node whose row stands; null where neither moved, or a new row took the place of both. */
export function winnerOf({ winner, local, incoming }: Conflict): string | null {
  if (winner === 'local') return local.node;
  return winner === 'incoming' ? incoming.node : null;
}

/** The two nodes in the order in which the sync names them. */
export function nodesOf({ sync, local, incoming }: Conflict): { first: ConflictSide; second: ConflictSide } {
  return isBack(sync) ? { first: local, second: incoming } : { first: incoming, second: local };
}

/** The lane from the second node of `between` to the first. */
function isBack(sync: string): boolean {
  return sync.endsWith('.back');
}

/** The lane of the other direction. */
export function counterpartOf(sync: string): string {
  return isBack(sync) ? sync.slice(0, -'.back'.length) : `${sync}.back`;
}
