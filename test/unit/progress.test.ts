/** How a copy is shown: units, speed, bars, and lines that renew themselves below a log. */
import { describe, expect, test } from 'vitest';
import { barsOf } from '../../src/cli/bars.ts';
import type { CopyView } from '../../src/observe/copy-watch.ts';
import { sumOf, type TableProgress } from '../../src/observe/progress.ts';
import { progressText } from '../../src/observe/progress-text.ts';
import { fitted, Screen, widthOf } from '../../src/observe/screen.ts';
import { Speed } from '../../src/observe/speed.ts';
import { bytesText, countText, shareText, timeText } from '../../src/observe/units.ts';
import { ESCAPE, shownBy } from '../support/terminal.ts';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

describe('units', () => {
  test('of bytes', () => {
    const sizes = [0, 1023, 1024, 1.5 * MIB, 1024 * MIB - 1, 3 * GIB, 2 ** 70];
    expect(sizes.map(bytesText)).toEqual([
      ...['0 B', '1023 B', '1.0 KiB', '1.5 MiB', '1.0 GiB', '3.0 GiB', '1048576.0 PiB'],
    ]);
    expect(shareText(512 * MIB, 20 * GIB)).toBe('0.5 of 20.0 GiB');
    expect(shareText(512 * MIB, null)).toBe('512.0 MiB');
  });

  test('of counts and times', () => {
    expect([0, 999, 1000, 1234567.4].map(countText)).toEqual(['0', '999', '1,000', '1,234,567']);
    expect([0.2, 59, 61, 3600, 3601, 90_000, 172_800].map(timeText)).toEqual([
      ...['1 s', '59 s', '2 min', '1 h', '1 h 1 min', '1 d 1 h', '2 d'],
    ]);
  });
});

describe('speed', () => {
  function speedOf(...samples: readonly (readonly [at: number, bytes: number])[]): Speed {
    const speed = new Speed();
    for (const [at, bytes] of samples) speed.add({ at, bytes, rows: bytes / 10 });
    return speed;
  }

  test('of a steady copy is its rate, from the third second on', () => {
    expect(speedOf([0, 0], [2, 200]).rate).toBeNull();
    const speed = speedOf(...Array.from({ length: 60 }, (_, i) => [i, 500 + i * 100] as const));
    expect(speed.rate?.bytesPerSecond).toBeCloseTo(100);
    expect(speed.rate?.rowsPerSecond).toBeCloseTo(10);
    expect(speed.secondsLeft(1000)).toBeCloseTo(10);
  });

  test('follows what happens now more than what was', () => {
    const slower = Array.from(
      { length: 80 },
      (_, i) => [i, i < 40 ? i * 100 : 4000 + (i - 40) * 10] as const,
    );
    const rate = speedOf(...slower).rate?.bytesPerSecond ?? 0;
    expect(rate).toBeGreaterThan(10);
    expect(rate).toBeLessThan(30);
  });

  test('leaves open what it cannot know', () => {
    const speed = speedOf([0, 0], [5, 500]);
    expect(speed.secondsLeft(null)).toBeNull();
    expect(speedOf([0, 500], [60, 500]).secondsLeft(1000)).toBeNull();
    expect(new Speed().secondsLeft(1)).toBeNull();
  });

  test('begins anew when something is copied again', () => {
    expect(speedOf([0, 0], [5, 500], [6, 100], [7, 200]).rate).toBeNull();
  });
});

function tableOf(name: string, change: Partial<TableProgress> = {}): TableProgress {
  return {
    table: `public.${name}`,
    state: 'copying',
    reason: null,
    copied: 1000,
    expected: 4000,
    surplus: null,
    bytes: { copied: GIB, planned: 4 * GIB },
    sent: GIB / 2,
    chunks: { done: 16, all: 64 },
    ...change,
  };
}

function viewOf(tables: readonly TableProgress[], change: Partial<CopyView> = {}): CopyView {
  const rate = { bytesPerSecond: 85 * MIB, rowsPerSecond: 1_234_567 };
  return { copy: sumOf(tables, 2), tables, rate, secondsLeft: 700, ...change };
}

const DONE = { state: 'streaming', chunks: { done: 1, all: 1 }, bytes: { copied: 0, planned: 0 } } as const;
const UNKNOWN = {
  state: 'pending',
  bytes: { copied: 0, planned: null },
  chunks: { done: 0, all: 0 },
} as const;

describe('bars', () => {
  test('show all tables, and each that is under way', () => {
    const tables = [
      tableOf('orders'),
      tableOf('items', { bytes: { copied: 3 * GIB, planned: 4 * GIB } }),
      tableOf('done', DONE),
    ];
    expect(barsOf(viewOf(tables), 110, 20)).toEqual([
      'all tables     [###############...............]  50 %  4.0 of 8.0 GiB  3,000 rows  85.0 MiB/s  12 min left',
      'public.orders  [#######.......................]  25 %  1.0 of 4.0 GiB  1,000 rows',
      'public.items   [######################........]  75 %  3.0 of 4.0 GiB  1,000 rows',
      '1 of 3 tables copied, 2 jobs under way',
    ]);
  });

  test('sum up what has no room for a bar of its own', () => {
    const tables = Array.from({ length: 9 }, (_, i) => tableOf(`t${i}`));
    const labels = (lines: number) => barsOf(viewOf(tables), 110, lines).map((line) => line.split('  ')[0]);
    expect(labels(20).slice(1, -1)).toEqual([
      ...['t0', 't1', 't2', 't3'].map((name) => `public.${name}`),
      '5 more',
    ]);
    expect(labels(4).slice(1, -1)).toEqual(['9 more']);
    expect(barsOf(viewOf(tables), 110, 20)[5]).toContain('5.0 of 20.0 GiB  5,000 rows');
  });

  test('say what is not known', () => {
    const view = viewOf([tableOf('a'), tableOf('b', UNKNOWN)], { secondsLeft: null, rate: null });
    const [all, ...more] = barsOf(view, 100, 20);
    expect(all).toMatch(/^all tables +\[ {30}\] {3}\? % +1\.0 GiB {2}2,000 rows {2}time left unknown$/);
    expect(more.at(-1)).toBe('0 of 2 tables copied, 1 to come, 2 jobs under way');
  });

  test('name what is held up', () => {
    const view = viewOf([tableOf('a', { state: 'held', reason: 'no such column' }), tableOf('b', DONE)]);
    expect(barsOf(view, 100, 20).at(-1)).toBe(
      '1 of 2 tables copied, 1 held up, see `ibex status`, 2 jobs under way',
    );
  });

  test('are full only when all is copied', () => {
    const almost = tableOf('a', { bytes: { copied: 4 * GIB - 1, planned: 4 * GIB } });
    expect(barsOf(viewOf([almost]), 100, 20)[0]).toContain('#.]  99 %');
    expect(barsOf(viewOf([tableOf('a', DONE)]), 100, 20)[0]).toContain('##]  100 %');
  });

  test.each([200, 110, 80, 60, 40, 20, 9, 1])('fit %i columns', (columns) => {
    const name = 'a_table_with_a_very_long_name_of_sixty_three_characters_in_all_';
    const lines = barsOf(viewOf([tableOf(name), tableOf('注文\n履歴'), tableOf('b')]), columns, 20);
    expect(lines).toHaveLength(5);
    for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(columns);
    for (const line of lines) expect(line).not.toMatch(/\p{Cc}/u);
    if (columns >= 60) expect(lines[0]).toMatch(/\[#+\.+\].* 25 %.*12 min left/);
  });

  test.each([10, 4, 3, 2, 1])('fit %i lines', (lines) => {
    const tables = Array.from({ length: 9 }, (_, i) => tableOf(`t${i}`));
    expect(barsOf(viewOf(tables), 80, lines).length).toBeLessThanOrEqual(lines);
  });

  test('are one line in a log', () => {
    expect(progressText(viewOf([tableOf('a'), tableOf('b', DONE)]))).toBe(
      'copied 1.0 of 4.0 GiB (25 %), 2,000 rows, 1 of 2 tables, 85.0 MiB/s, 1,234,567 rows/s, about 12 min left',
    );
    const unknown = viewOf([tableOf('a', UNKNOWN)], { rate: null, secondsLeft: null });
    expect(progressText(unknown)).toBe('copied 0 B (? %), 1,000 rows, 0 of 1 tables, time left unknown');
  });
});

describe('a screen', () => {
  function terminal(columns: number) {
    const writes: string[] = [];
    const state = { columns, rows: 24, isTTY: true, write: (text: string) => writes.push(text) };
    return { state, writes, lines: () => shownBy(writes.join(''), state.columns) };
  }

  test('renews its lines in place, in one write each', () => {
    const { state, writes, lines } = terminal(40);
    const screen = new Screen(state);
    screen.show(['first line', 'second', 'third']);
    screen.show(['1st', 'second']);
    expect(lines()).toEqual(['1st', 'second', '']);
    expect(writes).toHaveLength(2);
    screen.clear();
    screen.clear();
    expect(lines()).toEqual(['']);
    expect(writes).toHaveLength(3);
  });

  test('keeps them below what is printed', () => {
    const { state, lines } = terminal(40);
    const screen = new Screen(state);
    screen.print('before\n');
    screen.show(['a long first line', 'second']);
    screen.print('log\nof two lines\n');
    screen.show(['bar']);
    expect(lines()).toEqual(['before', 'log', 'of two lines', 'bar', '']);
    screen.clear();
    screen.print('after\n');
    expect(lines()).toEqual(['before', 'log', 'of two lines', 'after', '']);
  });

  test('finds them again when the terminal became narrower', () => {
    const { state, writes } = terminal(40);
    const screen = new Screen(state);
    screen.show(['x'.repeat(30), 'y']);
    state.columns = 12;
    screen.show(['z']);
    // Three lines of x and one of y.
    expect(writes[1]?.startsWith(`\r${ESCAPE}[4A`)).toBe(true);
  });
});

test('texts are cut to a width by what they take on a terminal', () => {
  expect(fitted('short', 10)).toBe('short');
  expect(fitted('public.orders', 8)).toBe('public..');
  expect(fitted('注文履歴表', 7)).toBe('注文..');
  expect(fitted('a\nb\u001b[2J', 10)).toBe('a?b?[2J');
  expect(fitted('abc', 1)).toBe('.');
  expect(widthOf('e\u0301')).toBe(1);
});
