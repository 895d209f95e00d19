/**
 * Sequences of nodes that are all written: which of them hand out the same values, and making them take turns. Carrying
 * them from one side to the other, as a sync that goes one way does, would have both run away from each other for ever.
 */
import { canCollide, interleave } from '../core/interleave.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { SequenceState } from '../core/sequence.ts';
import { tableIdent } from '../postgres/quote.ts';
import { listSequences, readSequences, type Sequence } from '../postgres/sequences.ts';
import type { Session } from '../postgres/session.ts';

export interface SequenceNode {
  readonly name: string;
  readonly session: Session;
}

/** One sequence of one node. */
export interface Member {
  readonly node: SequenceNode;
  readonly sequence: Sequence;
  readonly state: SequenceState;
}

/** What the same column of several nodes draws its values from. */
export interface SharedSequence {
  /** `schema.table.column`, or the name of a sequence that belongs to no column. */
  readonly label: string;
  /** On two nodes at least. */
  readonly members: readonly Member[];
  /** Two of them can hand out the same value. */
  readonly collides: boolean;
}

export interface SharedSequences {
  readonly shared: readonly SharedSequence[];
  /** Labels of those that others have locked, of which nothing is known. */
  readonly locked: readonly string[];
}

/** The sequences of the given tables, and those that belong to no table, where more than one node has them. */
export async function readShared(
  nodes: readonly SequenceNode[],
  tables: readonly TableName[],
): Promise<SharedSequences> {
  const wanted = new Set(tables.map(tableLabel));
  const byLabel = new Map<string, Member[]>();
  const locked: string[] = [];
  for (const node of nodes) {
    const sequences = (await listSequences(node.session)).filter(
      ({ owner, readable }) => readable && (owner === null || wanted.has(owner.table)),
    );
    const read = await readSequences(node.session, sequences);
    locked.push(...read.locked);
    for (const sequence of sequences) {
      const state = read.states.get(tableLabel(sequence));
      if (state === undefined) continue;
      const label = labelOf(sequence);
      byLabel.set(label, [...(byLabel.get(label) ?? []), { node, sequence, state }]);
    }
  }
  const shared = [...byLabel]
    .filter(([, members]) => members.length > 1)
    .map(([label, members]) => ({ label, members, collides: anyCollide(members) }));
  return { shared, locked: [...new Set(locked)] };
}

function labelOf(sequence: Sequence): string {
  const { owner } = sequence;
  return owner === null ? tableLabel(sequence) : `${owner.table}.${owner.column}`;
}

function anyCollide(members: readonly Member[]): boolean {
  return members.some(({ state }, i) => members.slice(i + 1).some((other) => canCollide(state, other.state)));
}

/** What people are told of sequences that collide; null when none does. */
export function collisionText(shared: readonly SharedSequence[]): string | null {
  const labels = shared.filter(({ collides }) => collides).map(({ label }) => label);
  if (labels.length === 0) return null;
  const some =
    labels.length > 5 ? `${labels.slice(0, 5).join(', ')} and ${labels.length - 5} more` : labels.join(', ');
  return `both sides hand out the same values for ${some}`;
}

/** What makes them take turns. */
export const INTERLEAVE = 'Run `ibex sequences interleave`.';

export interface Interleaved {
  readonly node: string;
  /** What the node calls it. */
  readonly sequence: string;
  readonly increment: bigint;
  /** The value that it hands out next. */
  readonly next: bigint;
}

/**
 * Makes the members take turns, each beginning beyond what any of them has handed out. `margin`: so many turns further, for
 * what the others hand out before it is their turn. Each node's is changed in a transaction of its own, under a lock that
 * keeps others from drawing. Resolves to null where a sequence ends before.
 * Errors: `lock` when a sequence is used in a transaction that does not end; `privilege`.
 */
export async function interleaveShared(
  { members }: SharedSequence,
  nodes: readonly string[],
  margin: bigint,
): Promise<Interleaved[] | null> {
  const states = members.map(({ state }) => state);
  const turnOf = ({ name }: SequenceNode) => ({
    nodes: BigInt(nodes.length),
    place: BigInt(nodes.indexOf(name)),
  });
  const fits = members.every(({ node, state }) => interleave(state, states, turnOf(node), margin) !== null);
  if (!fits) return null;
  const done: Interleaved[] = [];
  for (const { node, sequence, state } of members) {
    const made = await node.session.transaction('', async () => {
      const name = tableIdent(sequence);
      await node.session.run(LOCK_TIMEOUT);
      // Nobody draws from it from here on.
      await node.session.run(`alter sequence ${name} increment by ${state.increment}`);
      const now = await node.session.row<{ last: string; called: boolean }>(
        `select last_value::text as last, is_called as called from ${name}`,
      );
      const own = { ...state, last: BigInt(now.last), called: now.called };
      const next = interleave(own, [...states, own], turnOf(node), margin);
      if (next === null) return null;
      const { increment, start } = next;
      await node.session.run(
        `alter sequence ${name} increment by ${increment} start with ${start} restart with ${start}`,
      );
      return { node: node.name, sequence: tableLabel(sequence), increment, next: start };
    });
    if (made === null) return null;
    done.push(made);
  }
  return done;
}

const LOCK_TIMEOUT = `set local lock_timeout = '2s'`;
