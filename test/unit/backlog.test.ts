/** Which piece of a large backlog comes next, and when there is one at all. */
import { describe, expect, test } from 'vitest';
import { isLarge, nextRange } from '../../src/core/backlog.ts';

describe('the next range', () => {
  const files = [
    { generation: 1, blocks: 10 },
    { generation: 2, blocks: 0 },
    { generation: 3, blocks: 5 },
  ];

  test('goes through all blocks of all delta tables, each once', () => {
    const covered = [];
    for (let n = 0; n < 20; n++) {
      const range = nextRange(files, covered, 4);
      if (range === undefined) break;
      covered.push(range);
    }
    expect(covered).toEqual([
      { generation: 1, first: 0, end: 4 },
      { generation: 1, first: 4, end: 8 },
      { generation: 1, first: 8, end: 10 },
      { generation: 3, first: 0, end: 4 },
      { generation: 3, first: 4, end: 5 },
    ]);
  });

  test('goes on where a delta table ended before and has grown', () => {
    const covered = [{ generation: 1, first: 0, end: 7 }];
    expect(nextRange(files, covered, 100)).toEqual({ generation: 1, first: 7, end: 10 });
  });
});

test.for([
  [1_000, null, false],
  [1_001, null, true],
  [1_001, 2_002, true],
  [1_500, 2_999, false],
  [900, 5_000, false],
] as const)('%d deltas after a round of %s are staged first: %s', ([deltas, before, large]) => {
  expect(isLarge(deltas, 1_000, before)).toBe(large);
});
