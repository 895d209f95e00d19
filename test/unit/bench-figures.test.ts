/** What the scenarios of the benchmark make of their samples: slopes, the search for a rate, and reports. */
import { describe, expect, test } from 'vitest';
import { report as growth, type Place } from '../../bench/scenarios/growth-report.ts';
import { type Level, report as lag } from '../../bench/scenarios/lag-report.ts';
import { highestRate } from '../../bench/search.ts';
import { percentile, slope } from '../../bench/statistics.ts';
import { byWho, equalityOf, type Turn } from '../../bench/while-streaming.ts';

describe('the slope', () => {
  const line = (y: (x: number) => number) =>
    Array.from({ length: 11 }, (_, index) => ({ x: 100 + index, y: y(100 + index) }));

  test('is that of the line that the points lie on', () => {
    expect(slope(line((x) => 7 - 3 * x))).toBeCloseTo(-3);
  });

  test('does not rise with what goes up and down', () => {
    expect(slope(line((x) => (x % 2 === 0 ? 50 : 10)))).toBeCloseTo(0);
  });

  test('is 0 where there is nothing to draw a line through', () => {
    expect(slope([{ x: 1, y: 5 }])).toBe(0);
    expect(slope([])).toBe(0);
  });
});

test('a percentile lies between its neighbours in proportion', () => {
  expect(percentile([40, 10, 30, 20], 50)).toBe(25);
  expect(percentile([10, 20], 99)).toBeCloseTo(19.9);
});

describe('the search for the highest rate', () => {
  const searched = async (holdsUpTo: number) => {
    const tried: number[] = [];
    const found = await highestRate(1000, 4, async (rate) => {
      tried.push(rate);
      return rate <= holdsUpTo;
    });
    return { found, tried };
  };

  test('halves what is left', async () => {
    expect(await searched(650)).toEqual({ found: 625, tried: [500, 750, 625, 687.5] });
  });

  test('gives none where none held, and comes near the limit where all did', async () => {
    expect((await searched(0)).found).toBe(0);
    expect((await searched(1000)).found).toBe(937.5);
  });
});

describe('turns', () => {
  const turns: Turn<number>[] = [
    { who: 'ibex', round: 1, figures: 1, differences: [] },
    { who: 'native', round: 1, figures: 2, differences: [] },
    { who: 'ibex', round: 2, figures: 3, differences: [] },
  ];

  test('are told by who had them', () => {
    expect([...byWho(turns)]).toEqual([
      ['ibex', [1, 3]],
      ['native', [2]],
    ]);
    expect(equalityOf(turns).ok).toBe(true);
  });

  test('have no figure where the tables came out different, and say so', () => {
    const different: Turn<number>[] = [...turns, { who: 'native', round: 2, differences: ['a'] }];
    expect(byWho(different).get('native')).toEqual([2]);
    expect(equalityOf(different)).toEqual({
      ok: false,
      line: '1 of 4 runs ended DIFFERENT and have no figure',
    });
  });
});

test('lag: the samples of all rounds together, and half the load for the contract', () => {
  const level = (share: number, ...lags: number[]): Level => ({
    share,
    tps: share,
    cores: 1,
    samples: lags.map((one, index) => ({ at: index, lag: one })),
  });
  const turn = (round: number, ...figures: Level[]) => ({ who: 'ibex', round, figures, differences: [] });
  const { content, contract } = lag({}, { scale: 1, seconds: 1, saturating: 100 }, [
    turn(1, level(0, 1), level(50, 10, 20)),
    turn(2, level(0, 3), level(50, 30, 40)),
  ]);
  expect(content).toContainEqual([
    ['', 'transactions/s', 'p50', 'p90', 'p99', 'max', 'cores busy'],
    ['idle, ibex', '0', '2.0', '2.8', '3.0', '3.0', '1.00'],
    ['50 %, ibex', '50', '25.0', '37.0', '39.7', '40.0', '1.00'],
  ]);
  expect(contract).toEqual([
    { row: 'lag-p50', value: 25 },
    { row: 'lag-p99', value: expect.closeTo(39.7) },
  ]);
});

test('growth: a larger table beside the smallest, a larger backlog beside the small one in the same table', () => {
  const cost = (
    table: number,
    backlog: number,
    wall: number,
    cpu: number,
    place: Place = 'the same rows',
  ) => ({
    place,
    table,
    backlog,
    wall: [wall],
    cpu: [cpu],
  });
  const { contract } = growth({}, 10, [
    { who: 'ibex', round: 1, figures: [cost(1, 1, 10, 4), cost(1, 1, 5, 2, 'all over it')], differences: [] },
    {
      who: 'ibex',
      round: 1,
      figures: [cost(100, 1, 11, 6), cost(100, 10, 5, 9), cost(100, 1, 50, 20, 'all over it')],
      differences: [],
    },
  ]);
  expect(contract).toEqual([
    { row: 'growth-table', value: 1.1 },
    { row: 'growth-table', value: 1.5 },
    { row: 'growth-backlog', value: expect.closeTo(5 / 11) },
    { row: 'growth-backlog', value: 1.5 },
  ]);
});
