import fc from 'fast-check';
import { expect, test } from 'vitest';
import { handedOut, reaches, type SequenceState, valueToSet } from '../../src/core/sequence.ts';
import { seedOf } from '../support/random.ts';

const MAX = 2n ** 63n - 1n;

function sequence(last: bigint, called = true, more: Partial<SequenceState> = {}): SequenceState {
  return { last, called, increment: 1n, min: 1n, max: MAX, ...more };
}

test('the target is set a margin ahead of the source', () => {
  expect(valueToSet(sequence(7n), sequence(1n, false), 0n)).toEqual({ last: 1007n, called: true });
  expect(
    valueToSet(sequence(70n, true, { increment: 10n }), sequence(1n, false, { increment: 10n }), 0n),
  ).toEqual({
    last: 10_070n,
    called: true,
  });
});

test('a fast one gets twice what it drew since the last look', () => {
  expect(valueToSet(sequence(100_000n), sequence(1n), 90_000n)?.last).toBe(280_000n);
});

test('the margin is a matter of choice', () => {
  expect(valueToSet(sequence(7n), sequence(1n, false), 0n, 5n)?.last).toBe(12n);
  expect(valueToSet(sequence(7n), sequence(1n, false), 0n, 0n)?.last).toBe(7n);
  expect(valueToSet(sequence(7n), sequence(7n), 0n, 0n)).toBeNull();
});

test('one that ends before where the source stands is told', () => {
  const down = { increment: -1n, min: -100n, max: -1n };
  expect(reaches({ min: 1n, max: 32_767n }, sequence(32_767n))).toBe(true);
  expect(reaches({ min: 1n, max: 32_767n }, sequence(32_768n))).toBe(false);
  expect(reaches(down, sequence(-100n, true, down))).toBe(true);
  expect(reaches(down, sequence(-101n, true, down))).toBe(false);
});

test('one that counts down is set below', () => {
  const down = { increment: -1n, min: -MAX, max: -1n };
  expect(valueToSet(sequence(-7n, true, down), sequence(-1n, false, down), 0n)?.last).toBe(-1007n);
  expect(valueToSet(sequence(-7n, true, down), sequence(-5000n, true, down), 0n)).toBeNull();
  expect(valueToSet(sequence(7n), sequence(-1n, false, down), 0n)).toBeNull();
});

test('a margin leaves most of what is left', () => {
  const small = { max: 32_767n };
  expect(valueToSet(sequence(32_000n, true, small), sequence(1n, false, small), 0n)?.last).toBe(32_076n);
  expect(valueToSet(sequence(32_767n, true, small), sequence(1n, false, small), 0n)?.last).toBe(32_767n);
  expect(valueToSet(sequence(40_000n), sequence(1n, false, small), 0n)?.last).toBe(32_767n);
});

test('one that has handed out nothing yet is set as it is', () => {
  expect(valueToSet(sequence(500n, false), sequence(1n, false), 0n)).toEqual({ last: 500n, called: false });
  expect(valueToSet(sequence(500n, false), sequence(499n), 0n)).toBeNull();
  expect(valueToSet(sequence(1n, false), sequence(1n, false), 0n)).toBeNull();
});

test('one that begins beyond where the source stands is left alone', () => {
  const further = { increment: 2n, min: 0n, max: 1n };
  expect(valueToSet(sequence(-1n, true, { min: -1n, max: 0n }), sequence(0n, false, further), 0n)).toBeNull();
});

test('nothing goes backwards, nothing that was handed out comes again, and all stays within the limits', () => {
  const seed = seedOf('sequences');
  const state = (down: boolean) =>
    fc
      .record({
        step: fc.bigInt({ min: 1n, max: 50n }),
        from: fc.bigInt({ min: -100_000n, max: 0n }),
        width: fc.bigInt({ min: 1n, max: 100_000n }),
        at: fc.bigInt({ min: 0n, max: 100_000n }),
        called: fc.boolean(),
      })
      .map(({ step, from, width, at, called }) => ({
        increment: down ? -step : step,
        min: from,
        max: from + width,
        last: from + (at % (width + 1n)),
        called,
      }));
  const both = fc.boolean().chain((down) => fc.tuple(state(down), state(down), fc.bigInt(0n, 10_000n)));
  fc.assert(
    fc.property(both, ([source, target, drawn]) => {
      const value = valueToSet(source, target, drawn);
      const after = { ...target, ...value };
      const sign = source.increment > 0n ? 1n : -1n;
      const ahead = (a: bigint, b: bigint) => (a - b) * sign >= 0n;
      const limit = sign > 0n ? target.max : target.min;
      const next = after.called ? after.last + after.increment : after.last;
      return (
        after.last >= target.min &&
        after.last <= target.max &&
        ahead(handedOut(after), handedOut(target)) &&
        (ahead(next, source.last + sign) || after.last === limit || !source.called)
      );
    }),
    { seed, numRuns: 2000 },
  );
});
