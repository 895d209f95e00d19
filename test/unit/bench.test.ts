/** The frame of `ibex bench`: the command, arguments, peers, chart and report. What scenarios measure is theirs. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { chartOf } from '../../bench/chart.ts';
import { parse, UsageError } from '../../bench/command-line.ts';
import { choosePeers, NATIVE, type Peer } from '../../bench/peers.ts';
import { markdownOf, type Origin, type Result, screenOf } from '../../bench/report.ts';
import { REPEAT, type Scenario } from '../../bench/scenario.ts';
import { type Run, report } from '../../bench/scenarios/backfill-report.ts';
import { ibex } from '../support/ibex.ts';

const ABSENT: Peer = { name: 'absent', programs: ['no-such-program'] };

function scenario(name: string, options: Scenario['options'], peers: readonly Peer[] = []): Scenario {
  const run = () => Promise.reject(new Error('not run'));
  return { name, summary: name, options, peers, run };
}

const SCENARIOS = [
  scenario('one', { repeat: REPEAT, rows: { kind: 'number', default: 10, help: '' } }, [NATIVE, ABSENT]),
  scenario('two', { redis: { kind: 'flag', help: '' }, cases: { kind: 'list', of: ['a', 'b'], help: '' } }),
];

describe('the command', () => {
  test('lists scenarios and options', async () => {
    const { code, stdout, stderr } = await ibex(['bench', '--help']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Usage: ibex bench \[options\] \[scenario\.\.\]\n/);
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
    expect(call?.scenarios.map(({ scenario: { name }, options }) => [name, options])).toEqual([
      ['one', { repeat: 5, rows: 10 }],
      ['two', { redis: false, cases: ['b'] }],
    ]);
    expect(call?.files).toEqual({ json: 'x.json' });
    expect(call?.peers).toBeUndefined();
  });

  test('without a name mean all scenarios', () => {
    expect(parse([], SCENARIOS)?.scenarios).toHaveLength(2);
  });

  test.each([
    [['three'], 'unknown scenario: three'],
    [['one', '--redis'], '--redis is no option of one'],
    [['one', '--rows', '0'], '--rows must be a whole number above 0'],
    [['two', '--cases', 'a,c'], '--cases takes a, b'],
    [['one', '--peers', 'bucardo'], '--peers takes native, absent, none'],
    [['one', '--nothing'], "Unknown option '--nothing'"],
  ])('%j are wrong: %s', (argv, message) => {
    expect(() => parse(argv, SCENARIOS)).toThrow(new UsageError(message));
  });
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
});

const ORIGIN: Origin = {
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
    servers: { postgresql: '18.4' },
    figures: {},
    content: [
      'a line',
      '',
      [
        ['', 'rows/s'],
        ['a|b', '10'],
      ],
    ],
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

test('Markdown has them as tables, with the chart', () => {
  const text = markdownOf(ORIGIN, [RESULT], 'chart.svg');
  expect(text).toContain(
    '# Benchmark of Ibex\n\n![ratios](chart.svg)\n\n## ibex bench one (3 s)\n\na line\n\n',
  );
  expect(text).toContain('|  | rows/s |\n| --- | ---: |\n| a\\|b | 10 |\n\nleft out: absent');
});

test('the chart draws bars in proportion, and a line where both are equal', () => {
  const ratios = [
    { label: 'a < b', value: 4 },
    { label: 'c', value: 0.5 },
  ];
  const svg = chartOf([{ heading: 'theirs / ours', ratios }]) ?? '';
  const widths = Array.from(svg.matchAll(/height="14"/g), (match) =>
    Number(/width="([\d.]+)" $/.exec(svg.slice(0, match.index))?.[1]),
  );
  expect(widths[0]).toBeCloseTo(8 * (widths[1] as number));
  expect(svg).toContain(`<line x1="${300 + (widths[0] as number) / 4}"`);
  expect(svg).toContain('a &lt; b');
  expect(chartOf([{ heading: 'nothing', ratios: [] }])).toBeUndefined();
});

describe('the figures of backfill', () => {
  const run = (who: string, seconds: number, change: Partial<Run> = {}): Run => {
    const startUp = who === 'pipe' ? null : 2;
    return { who, round: 1, seconds, startUp, peakMib: null, differences: [], ...change };
  };
  const outcomeOf = (runs: readonly Run[]) =>
    report({}, [{ name: 'narrow', title: 'rows', rows: 1000, postgresql: '18', runs }]);

  test('are medians, and ratios of rows/s with and without the start-up', () => {
    const { ok, content, chart } = outcomeOf([
      ...[run('ibex', 10), run('ibex', 12), run('ibex', 100)],
      ...[run('pipe', 5), run('pipe', 6), run('pipe', 7)],
    ]);
    expect(ok).toBe(true);
    expect(content).toContainEqual([
      ['rows/s', '/ pipe', 'without start-up'],
      ['ibex', '0.50x', '0.60x'],
    ]);
    expect(chart?.ratios).toEqual([{ label: 'narrow: ibex / pipe', value: 0.5 }]);
  });

  test('leave out what is mostly start-up', () => {
    const { content } = outcomeOf([run('ibex', 2.5), run('pipe', 1)]);
    expect(content).toContainEqual([
      ['rows/s', '/ pipe', 'without start-up'],
      ['ibex', '0.40x', '-'],
    ]);
  });

  test('have nothing of a run that ended with other rows, and say so', () => {
    const { ok, content } = outcomeOf([run('ibex', 10), run('ibex', 1, { differences: ['narrow'] })]);
    expect(ok).toBe(false);
    expect(content.at(-1)).toBe('1 of 2 runs ended DIFFERENT and have no figure');
    expect(JSON.stringify(content)).toContain('10.00 (10.00-10.00)');
  });
});
