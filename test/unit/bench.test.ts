/** The frame of `ibex bench`: command, arguments, passes, peers, plots, contract, report. What scenarios measure is theirs. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { draw } from '../../bench/charts/draw.ts';
import type { Bars, Lines } from '../../bench/charts/plot.ts';
import { parse, UsageError } from '../../bench/command-line.ts';
import { CONTRACT, contractTable, verdict, worstOf } from '../../bench/contract.ts';
import { SCENARIOS as ALL } from '../../bench/main.ts';
import { choosePeers, NATIVE, type Peer } from '../../bench/peers.ts';
import {
  contractLines,
  documentOf,
  markdownOf,
  type Origin,
  plotsOf,
  type Result,
  screenOf,
} from '../../bench/report.ts';
import { REPEAT, type Scenario } from '../../bench/scenario.ts';
import { type Run, report } from '../../bench/scenarios/backfill-report.ts';
import { type Run as CatchUpRun, report as reportCatchUp } from '../../bench/scenarios/catch-up-report.ts';
import { ibex } from '../support/ibex.ts';

const ABSENT: Peer = { name: 'absent', programs: ['no-such-program'], unasked: 'by default' };
const RARE: Peer = { name: 'rare', programs: [], unasked: 'never' };

function scenario(name: string, options: Scenario['options'], peers: readonly Peer[] = []): Scenario {
  const run = () => Promise.reject(new Error('not run'));
  const sizes = { smoke: [], all: [{ options: {}, minutes: 1 }], full: [] };
  return { name, summary: name, options, peers, sizes, run };
}

const SCENARIOS = [
  {
    ...scenario('one', { repeat: REPEAT, rows: { kind: 'number', default: 10, help: '' } }, [NATIVE, ABSENT]),
    sizes: {
      smoke: [{ options: { rows: 1 }, minutes: 0.1 }],
      all: [
        { options: {}, minutes: 2 },
        { options: { rows: 20, repeat: 1 }, minutes: 1 },
      ],
      full: [{ options: { rows: 30 }, minutes: 9 }],
    },
  },
  scenario('two', { redis: { kind: 'flag', help: '' }, cases: { kind: 'list', of: ['a', 'b'], help: '' } }),
];

describe('the command', () => {
  test('lists scenarios and options', async () => {
    const { code, stdout, stderr } = await ibex(['bench', '--help']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Usage: ibex bench \[options\] \[scenario\.\. \| smoke \| all\]\n/);
    expect(stdout).toMatch(/^ {2}catch-up +\S/m);
  });

  test('takes wrong usage in two lines', async () => {
    const { code, stderr } = await ibex(['bench', 'nothing']);
    expect(code).toBe(2);
    expect(stderr).toBe('error: unknown scenario: nothing\n  `ibex bench --help` lists what there is.\n');
  });

  test('says so where there is no checkout', () => {
    const root = join(import.meta.dirname, '..', '..');
    const directory = mkdtempSync(join(tmpdir(), 'ibex-installed-'));
    try {
      for (const part of ['bin', 'dist', 'package.json']) {
        cpSync(join(root, part), join(directory, part), { recursive: true });
      }
      symlinkSync(join(root, 'node_modules'), join(directory, 'node_modules'));
      const program = join(directory, 'bin', 'ibex.js');
      const { status, stderr } = spawnSync(process.execPath, [program, 'bench'], { encoding: 'utf8' });
      expect(status).toBe(3);
      expect(stderr).toMatch(/^error: the benchmark is not part of this installation.*\n {2}Run it .*\n$/);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe('arguments', () => {
  test('name scenarios, and give each of them the options that it has', () => {
    const call = parse(['two', '--repeat', '5', 'one', '--cases=b', '--json', 'x.json'], SCENARIOS);
    expect(call?.planned.map(({ scenario: { name }, options }) => [name, options])).toEqual([
      ['one', { repeat: 5, rows: 10 }],
      ['two', { redis: false, cases: ['b'] }],
    ]);
    expect(call?.json).toBe('x.json');
    expect([call?.pass, call?.peers]).toEqual([undefined, undefined]);
  });

  const planned = (...argv: string[]) =>
    parse(argv, SCENARIOS)?.planned.map(({ scenario: { name }, options, minutes }) => [
      name,
      options,
      minutes,
    ]);

  test('without a name mean all, at its sizes', () => {
    const all = [
      ['one', { repeat: 3, rows: 10 }, 2],
      ['one', { repeat: 1, rows: 20 }, 1],
      ['two', { redis: false, cases: ['a', 'b'] }, 1],
    ];
    expect(planned()).toEqual(all);
    expect(planned('all')).toEqual(all);
    expect(planned('smoke')).toEqual([['one', { repeat: 3, rows: 1 }, 0.1]]);
    expect(planned('all', '--full')).toEqual([['one', { repeat: 3, rows: 30 }, 9]]);
  });

  test('take two servers by their URLs, whatever is in these', () => {
    const [source, target] = ['postgresql://u:a,b@one:1/db', 'postgres://u@two/db'];
    expect(parse(['one', '--against', `${source},${target}`], SCENARIOS)?.against).toEqual([source, target]);
  });

  test('go before the sizes', () => {
    expect(planned('smoke', '--rows', '7')).toEqual([['one', { repeat: 3, rows: 7 }, 0.1]]);
  });

  test.each([
    [['three'], 'unknown scenario: three'],
    [['one', '--redis'], '--redis is no option of one'],
    [['one', '--rows', '0'], '--rows must be a whole number above 0'],
    [['two', '--cases', 'a,c'], '--cases takes a, b'],
    [['one', '--peers', 'bucardo'], '--peers takes native, absent, none'],
    [['one', '--nothing'], "Unknown option '--nothing'"],
    [['all', 'one'], 'all stands alone'],
    [['one', '--against', 'postgres://a/b'], /^--against takes SOURCE_URL,TARGET_URL/],
    [['one', '--full'], '--full goes with all'],
  ])('%j are wrong: %s', (argv, message) => {
    expect(() => parse(argv, SCENARIOS)).toThrow(UsageError);
    expect(() => parse(argv, SCENARIOS)).toThrow(message);
  });
});

test('the passes keep to their time', () => {
  const minutes = (pass: 'smoke' | 'all') =>
    ALL.flatMap(({ sizes }) => sizes[pass]).reduce((sum, size) => sum + size.minutes, 0);
  expect(minutes('smoke')).toBeLessThanOrEqual(1);
  expect(minutes('all')).toBeLessThanOrEqual(45);
});

describe('peers', () => {
  test('that are not installed are named as left out', () => {
    const { peers, leftOut } = choosePeers([NATIVE, ABSENT], undefined);
    expect([...peers]).toEqual(['native']);
    expect(leftOut).toEqual([{ peer: 'absent', why: 'not installed: no-such-program' }]);
  });

  test('that are not asked for are named as well', () => {
    const none = parse(['one', '--peers', 'none'], SCENARIOS)?.peers;
    expect(choosePeers([NATIVE], none)).toEqual({
      peers: new Set(),
      leftOut: [{ peer: 'native', why: 'not asked for' }],
    });
  });

  test('that need superusers are left out where there are none', () => {
    expect(choosePeers([NATIVE, RARE], ['rare'], false)).toEqual({
      peers: new Set(['rare']),
      leftOut: [{ peer: 'native', why: 'needs superusers on both servers' }],
    });
  });

  test('come along with others, or only when named, each after its kind', () => {
    const chosen = (asked?: string[]) => [...choosePeers([NATIVE, RARE], asked).peers];
    expect(chosen()).toEqual(['native']);
    expect(chosen(['rare'])).toEqual(['native', 'rare']);
  });
});

describe('the contract', () => {
  test.each([
    ['tps', 0.82, 'NO'],
    ['tps', 0.83, 'yes'],
    ['tps', 0.9, 'stretch'],
    ['memory', 257, 'NO'],
    ['memory', 256, 'yes'],
    ['memory', 160, 'stretch'],
  ] as const)('%s of %d: %s', (row, value, met) => {
    expect(verdict(row, value)).toBe(met);
  });

  test('is judged by the worst that was measured', () => {
    const measured = worstOf([
      { row: 'tps', value: 0.9 },
      { row: 'tps', value: 0.8 },
      { row: 'memory', value: 90 },
      { row: 'memory', value: 130.4 },
    ]);
    expect(contractTable(['tps', 'memory', 'verify'], measured)).toEqual([
      ['', 'must', 'stretch', 'measured', 'met'],
      [CONTRACT.tps.what, '>= 0.83', '>= 0.9', '0.8', 'NO'],
      [CONTRACT.memory.what, '<= 256 MB', '<= 160 MB', '130 MB', 'stretch'],
      [CONTRACT.verify.what, '<= 1.5', '<= 1.1', '-', 'not measured'],
    ]);
  });
});

const ORIGIN: Origin = {
  pass: null,
  startedAt: '2030-01-01T00:00:00.000Z',
  machine: { system: 'Linux', cpu: 'CPU', cores: 2, memoryGib: 8, loadBefore: 0 },
  versions: { ibex: '1', node: '20' },
  commit: `${'a'.repeat(40)}+`,
};

const RESULT: Result = {
  scenario: 'one',
  options: {},
  tookSeconds: 3,
  leftOut: [{ peer: 'absent', why: 'not installed: x' }],
  outcome: {
    servers: { postgresql: '18.4', settings: { fsync: 'on' } },
    figures: {},
    content: [
      'a line',
      '',
      [
        ['', 'rows/s'],
        ['a|b', '10'],
      ],
    ],
    plots: [
      { kind: 'bars', name: 'rows', title: 'Rows', subtitle: '', unit: '', bars: [] },
      { kind: 'lines', name: 'lag', title: 'Lag', subtitle: '', x: 's', y: 'ms', series: [] },
    ],
    contract: [{ row: 'tps', value: 0.85 }],
    ok: true,
  },
};

test('the screen has the tables aligned, and says what was left out', () => {
  expect(screenOf(ORIGIN, RESULT).split('\n')).toEqual([
    'ibex bench one (3 s)',
    'a line',
    '',
    '      rows/s',
    'a|b       10',
    '',
    'left out: absent (not installed: x)',
    '2 x CPU, 8 GiB, Linux; load before: 0',
    'ibex 1 (aaaaaaaaaa+), node 20, PostgreSQL 18.4 twice, fsync on',
    '2030-01-01T00:00:00.000Z',
    '',
  ]);
});

test('Markdown opens with the contract, and has tables and plots', () => {
  const text = markdownOf(ORIGIN, [RESULT], new Map([['one-lag.svg', 'Lag']]));
  expect(text).toMatch(
    /^# Benchmark of Ibex\n\n\| {2}\| must \| stretch .*\n.*\n\| .*\| 0.85 \| yes \|\n\n- 2 x CPU/,
  );
  expect(text).toContain(
    '\n\n## ibex bench one (3 s)\n\na line\n\n|  | rows/s |\n| --- | ---: |\n| a\\|b | 10 |',
  );
  expect(text).toContain('left out: absent (not installed: x)\n\n![Lag](one-lag.svg)\n');
});

test('a whole report has all rows of the contract, single scenarios those they measured, smoke none', () => {
  const lines = (pass: Origin['pass']) => contractLines({ ...ORIGIN, pass }, [RESULT]).split('\n');
  expect(lines(null)).toHaveLength(1 + 1 + 1 + 1);
  expect(lines('all')).toHaveLength(1 + 1 + Object.keys(CONTRACT).length + 1);
  expect(lines('smoke')).toEqual(['']);
});

test('JSON has each row of the contract that was measured, and what it came to', () => {
  expect(documentOf(ORIGIN, [RESULT])).toMatchObject({
    ok: true,
    contract: { tps: { value: 0.85, met: 'yes' } },
  });
});

test('no two plots share a file', () => {
  expect(plotsOf([RESULT, RESULT]).map(({ file }) => file)).toEqual([
    'one-rows.svg',
    'one-lag.svg',
    'one-2-rows.svg',
    'one-2-lag.svg',
  ]);
});

describe('plots', () => {
  const bars: Bars = {
    ...{ kind: 'bars', name: 'bars', title: 'a < b', subtitle: 'theirs / ours', unit: 'x' },
    bars: [
      { label: 'ours', value: 4, ours: true },
      { label: 'theirs', value: 0.5, ours: false },
    ],
    reference: { value: 1, label: 'equal' },
  };

  test('of bars are in proportion, with a line where both are equal', () => {
    const svg = draw(bars) ?? '';
    const drawn = Array.from(
      svg.matchAll(/<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"/g),
      ([, x, width]) => ({
        x: Number(x),
        width: Number(width),
      }),
    );
    expect(drawn[0]?.width).toBeCloseTo(8 * (drawn[1]?.width ?? 0), 0);
    const equal = Number(/<line x1="([\d.]+)"/.exec(svg)?.[1]);
    expect(equal - (drawn[0]?.x ?? 0)).toBeCloseTo((drawn[0]?.width ?? 0) / 4, 0);
    expect(svg).toContain('a &lt; b');
    expect(draw({ ...bars, bars: [] })).toBeUndefined();
  });

  test('of lines begin at zero and have their names at their ends, none over another', () => {
    const lines: Lines = {
      ...{ kind: 'lines', name: 'lines', title: 'lag', subtitle: '', x: 'seconds', y: 'lag, ms' },
      series: [
        {
          label: 'ours',
          points: [
            [0, 0],
            [10, 20],
          ],
          ours: true,
        },
        {
          label: 'theirs',
          points: [
            [0, 40],
            [10, 20],
          ],
          ours: false,
        },
      ],
    };
    const svg = draw(lines) ?? '';
    // The heights of all points, line after line: 0, 20, 40, 20.
    const [zero, ...heights] = Array.from(svg.matchAll(/<polyline points="([^"]*)"/g), ([, points = '']) =>
      points.split(' ').map((point) => Number(point.split(',')[1])),
    ).flat() as [number, ...number[]];
    const [first = 0, ...others] = heights.map((y) => zero - y);
    expect(others).toEqual([2 * first, first]);
    const names = ['ours', 'theirs'].map((name) =>
      Number(new RegExp(`y="([\\d.]+)"[^>]*>${name}<`).exec(svg)?.[1]),
    ) as [number, number];
    expect(Math.abs(names[0] - names[1])).toBeGreaterThanOrEqual(13);
    expect(draw({ ...lines, series: [] })).toBeUndefined();
  });
});

describe('the figures of backfill', () => {
  const run = (who: string, seconds: number, change: Partial<Run> = {}): Run => {
    const startUp = who === 'pipe' ? null : 2;
    return { who, round: 1, seconds, startUp, peakMib: null, differences: [], ...change };
  };
  const outcomeOf = (runs: readonly Run[], setUpFirst = false) =>
    report({}, [{ name: 'narrow', title: 'rows', rows: 1000, postgresql: '18', setUpFirst, runs }]);

  test('are medians, and ratios of rows/s with and without the start-up', () => {
    const { ok, content, contract, plots } = outcomeOf([
      ...[run('ibex, 1 job', 10), run('ibex, 1 job', 12), run('ibex, 1 job', 100)],
      ...[run('pipe', 5), run('pipe', 6), run('pipe', 7)],
    ]);
    expect(ok).toBe(true);
    expect(content).toContainEqual([
      ['rows/s', '/ pipe', 'without start-up'],
      ['ibex, 1 job', '0.50x', '0.60x'],
    ]);
    expect(contract).toEqual([{ row: 'backfill', value: 0.5 }]);
    expect(plots).toMatchObject([
      {
        bars: [
          { label: 'ibex, 1 job', value: 12, spread: [10, 100], ours: true },
          { label: 'pipe', value: 6, spread: [5, 7], ours: false },
        ],
      },
    ]);
  });

  test('leave out what is mostly start-up', () => {
    const { content } = outcomeOf([run('ibex', 2.5), run('pipe', 1)]);
    expect(content).toContainEqual([
      ['rows/s', '/ pipe', 'without start-up'],
      ['ibex', '0.40x', '-'],
    ]);
    const afterSetup = outcomeOf([run('ibex', 2.5), run('pipe', 1)], true);
    expect(afterSetup.content).toContainEqual([
      ['rows/s', '/ pipe', 'copying alone'],
      ['ibex', '0.40x', '2.00x'],
    ]);
  });

  test('have nothing of a run that ended with other rows, and say so', () => {
    const { ok, content } = outcomeOf([run('ibex', 10), run('ibex', 1, { differences: ['narrow'] })]);
    expect(ok).toBe(false);
    expect(content.at(-1)).toBe('1 of 2 runs ended DIFFERENT and have no figure');
    expect(JSON.stringify(content)).toContain('10.00 (10.00-10.00)');
  });
});

describe('the figures of catch-up', () => {
  const run = (who: string, seconds: number, differences: string[] = []): CatchUpRun => ({
    who,
    round: 1,
    seconds,
    cpu: 1,
    differences,
  });
  const RUNS = [run('ibex', 1), run('ibex', 3), run('ibex', 2), run('native', 10), run('ibex, redis', 2.5)];

  test('are medians, and how many times as fast as each peer', () => {
    const { ok, content, contract } = reportCatchUp({}, { scale: 10, transactions: 55_000 }, [
      ...RUNS,
      run('bucardo', 30),
      run('ibex, one way, keys', 3),
      run('ibex, two ways, keys', 4),
    ]);
    expect(ok).toBe(true);
    expect(content[2]).toContainEqual([
      'ibex',
      '2.000 (1.000-3.000)',
      '27500',
      '1.00 (1.00-1.00)',
      '5.00x',
      '15.00x',
    ]);
    expect(contract).toEqual([
      { row: 'catch-up-native', value: 5 },
      { row: 'catch-up-bucardo', value: 15 },
      { row: 'redis', value: 0.8 },
      { row: 'two-way', value: 0.75 },
    ]);
  });

  test('have nothing of a run that ended with other rows, of whomever', () => {
    const { ok, content, contract } = reportCatchUp({}, { scale: 10, transactions: 55_000 }, [
      ...RUNS,
      run('bucardo', 1, ['pgbench_history']),
    ]);
    expect(ok).toBe(false);
    expect(content.at(-1)).toBe('1 of 6 runs ended DIFFERENT and have no figure');
    expect(contract?.map(({ row }) => row)).toEqual(['catch-up-native', 'redis']);
  });

  test('say nothing about the contract with another backlog', () => {
    expect(reportCatchUp({}, { scale: 10, transactions: 500 }, RUNS).contract).toEqual([]);
  });
});
