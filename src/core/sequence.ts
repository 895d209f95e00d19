/**
 * Where a sequence of the target is to stand, given where that of the source stands. Pure.
 *
 * The target's is set ahead of the source's by a margin: between two looks the source goes on handing out values, and
 * if it is lost then, what it handed out must not be handed out again.
 */

export interface SequenceState {
  readonly last: bigint;
  /** False: `last` is what it hands out next. */
  readonly called: boolean;
  readonly increment: bigint;
  readonly min: bigint;
  readonly max: bigint;
}

export type SequenceValue = Pick<SequenceState, 'last' | 'called'>;

/** Steps ahead: ten seconds, the pause between two looks, at a hundred values a second. */
export const MARGIN = 1_000n;
/** A margin takes at most this part of what is left up to the limit: a smallint has 32,767 values in all. */
const SHARE = 10n;

/** The value that was handed out last, or would have been just before the first one. */
export function handedOut({ last, called, increment }: SequenceState): bigint {
  return called ? last : last - increment;
}

/** How many values were handed out between two states of a sequence. */
export function stepsBetween(before: SequenceState, after: SequenceState): bigint {
  const steps = (handedOut(after) - handedOut(before)) / after.increment;
  return steps < 0n ? 0n : steps;
}

/** Whether both count in the same direction. */
export function sameDirection(
  source: Pick<SequenceState, 'increment'>,
  target: Pick<SequenceState, 'increment'>,
): boolean {
  return source.increment > 0n === target.increment > 0n;
}

/** Whether the target's can stand where the source's stands; else it ends before. */
export function reaches(
  target: Pick<SequenceState, 'min' | 'max'>,
  source: Pick<SequenceState, 'increment' | 'last'>,
): boolean {
  return source.increment > 0n ? source.last <= target.max : source.last >= target.min;
}

/**
 * What to set the target's sequence to; null when it is there already, or further, or cannot get
 * there, or counts the other way.
 * `drawn` is how many values the source handed out since the last look: a fast one gets twice that as its margin.
 * `steps` is the margin of the others.
 */
export function valueToSet(
  source: SequenceState,
  target: SequenceState,
  drawn: bigint,
  steps: bigint = MARGIN,
): SequenceValue | null {
  if (!sameDirection(source, target)) return null;
  const up = source.increment > 0n;
  const limit = up ? target.max : target.min;
  const within = (value: bigint) => (up === value > limit ? limit : value);
  const wished = drawn * 2n > steps ? drawn * 2n : steps;
  const value = source.called ? within(source.last + margin(source, limit, wished)) : within(source.last);
  // What it cannot even begin with, it will not hand out.
  if (up ? value < target.min : value > target.max) return null;
  const next = { ...target, last: value, called: source.called };
  const further = handedOut(next) - handedOut(target);
  return (up ? further > 0n : further < 0n) ? { last: value, called: source.called } : null;
}

function margin(source: SequenceState, limit: bigint, wished: bigint): bigint {
  const left = (limit - source.last) / source.increment / SHARE;
  const steps = left < wished ? left : wished;
  return steps > 0n ? steps * source.increment : 0n;
}
