/**
 * Sequences of one column on several nodes that are all written: each has to hand out values that no other one does. They
 * take turns (the same step, another remainder), or have ranges of their own. Pure.
 */
import { handedOut, type SequenceState } from './sequence.ts';

/** Whether two sequences can hand out the same value from now on. */
export function canCollide(one: SequenceState, other: SequenceState): boolean {
  if (one.max < other.min || other.max < one.min) return false;
  const step = gcd(size(one.increment), size(other.increment));
  return remainder(nextOf(one), step) === remainder(nextOf(other), step);
}

function nextOf(state: SequenceState): bigint {
  return handedOut(state) + state.increment;
}

export interface Turn {
  /** How many nodes there are, and which of them this is, from 0. */
  readonly nodes: bigint;
  readonly place: bigint;
}

export interface InterleavedSequence {
  readonly increment: bigint;
  readonly start: bigint;
}

/**
 * What makes a sequence take turns with those of the other nodes, beginning beyond what any of them has handed out and
 * `margin` turns more; null where that is further than it goes.
 * `states`: of the same sequence on all nodes; `own` is one of them.
 */
export function interleave(
  own: SequenceState,
  states: readonly SequenceState[],
  { nodes, place }: Turn,
  margin: bigint,
): InterleavedSequence | null {
  const up = own.increment > 0n;
  const increment = up ? nodes : -nodes;
  const furthest = states.map(handedOut).reduce((a, b) => (a > b === up ? a : b));
  const beyond = furthest + (margin + 1n) * increment;
  // The first value from there on, in the direction of the sequence, that leaves this node's remainder.
  const off = up ? remainder(place - beyond, nodes) : remainder(beyond - place, nodes);
  const start = up ? beyond + off : beyond - off;
  return start < own.min || start > own.max ? null : { increment, start };
}

function size(n: bigint): bigint {
  return n < 0n ? -n : n;
}

/** From 0 to `by` - 1, also of negative numbers. */
function remainder(n: bigint, by: bigint): bigint {
  return ((n % by) + by) % by;
}

function gcd(a: bigint, b: bigint): bigint {
  return b === 0n ? a : gcd(b, a % b);
}
