/** Which values sequences of several nodes hand out, told by drawing them. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { canCollide, interleave } from '../../src/core/interleave.ts';
import { handedOut, type SequenceState } from '../../src/core/sequence.ts';

const DRAWS = 200;

function state(given: Partial<SequenceState>): SequenceState {
  return { last: 1n, called: false, increment: 1n, min: 1n, max: 10_000n, ...given };
}

/** The values that a sequence hands out next. */
function draw(from: SequenceState): bigint[] {
  const { increment, min, max } = from;
  const values = Array.from({ length: DRAWS }, (_, i) => handedOut(from) + increment * BigInt(i + 1));
  return values.filter((value) => value >= min && value <= max);
}

const sequences = fc
  .record({
    last: fc.bigInt(1n, 60n),
    called: fc.boolean(),
    increment: fc.constantFrom(1n, 2n, 3n, 4n, 6n, -1n, -2n, -3n),
  })
  .map(({ increment, ...rest }) => state({ ...rest, increment, min: -10_000n }));

test('those that are said not to collide never hand out the same value', () => {
  fc.assert(
    fc.property(sequences, sequences, (one, other) => {
      if (canCollide(one, other)) return;
      const values = new Set(draw(one));
      expect(draw(other).filter((value) => values.has(value))).toEqual([]);
    }),
    { seed: 1 },
  );
});

test.each([
  ['as they are made', state({}), state({}), true],
  ['odd and even', state({ increment: 2n }), state({ increment: 2n, last: 2n }), false],
  ['ranges of their own', state({ max: 999n }), state({ min: 1000n, last: 1000n }), false],
  [
    'steps of which one divides the other',
    state({ increment: 2n }),
    state({ increment: 4n, last: 2n }),
    false,
  ],
  ['steps that meet', state({ increment: 2n }), state({ increment: 3n, last: 2n }), true],
])('%s', (_, one, other, collide) => {
  expect(canCollide(one, other)).toBe(collide);
});

test('interleaved ones begin beyond what any node has handed out, and never collide', () => {
  const nodes = fc.array(fc.tuple(fc.bigInt(1n, 400n), fc.boolean()), { minLength: 2, maxLength: 4 });
  fc.assert(
    fc.property(nodes, fc.boolean(), (states, up) => {
      const all = states.map(([last, called]) =>
        state({ last: up ? last : -last, called, increment: up ? 1n : -1n, min: -10_000n }),
      );
      const after = all.map((own, place) => {
        const turn = { nodes: BigInt(all.length), place: BigInt(place) };
        const { increment, start } = interleave(own, all, turn, 10n) ?? { increment: 0n, start: 0n };
        return { ...own, increment, last: start, called: false };
      });
      for (const [i, one] of after.entries()) {
        for (const before of all) {
          const further = handedOut(one) + one.increment - handedOut(before);
          expect(up ? further > 0n : further < 0n).toBe(true);
        }
        for (const other of after.slice(i + 1)) expect(canCollide(one, other)).toBe(false);
      }
    }),
    { seed: 1 },
  );
});

test('one that would have to begin beyond its end is left as it is', () => {
  const own = state({ last: 32_000n, called: true, max: 32_767n });
  expect(interleave(own, [own], { nodes: 2n, place: 0n }, 1_000n)).toBeNull();
});
