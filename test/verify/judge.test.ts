/** The rule by which a row counts as equal or different while it is written to, and how tables are divided. */
import { describe, expect, test } from 'vitest';
import { parseSnapshot } from '../../src/core/position.ts';
import { NOTHING } from '../../src/verify/findings.ts';
import { judge } from '../../src/verify/judge.ts';
import { chooseSample, rangesBetween } from '../../src/verify/ranges.ts';
import { Accounts } from '../../src/verify/report.ts';
import { randomFrom } from '../support/random.ts';

function look(snapshot: string, hash?: string) {
  return { at: parseSnapshot(snapshot), hashes: new Map(hash === undefined ? [] : [[0, hash]]) };
}

describe('a key', () => {
  test('is compared where no change lies between two looks', () => {
    const looks = (target: ReturnType<typeof look>) => ({ source: [look('20:20:', 'a')], target: [target] });
    expect(judge(0, [], looks(look('10:10:', 'a')))).toBe('equal');
    expect(judge(0, [], looks(look('10:10:', 'b')))).toBe('different');
    expect(judge(0, [], looks(look('10:10:')))).toBe('missing');
    expect(judge(0, [], { source: [look('20:20:')], target: [look('10:10:', 'a')] })).toBe('extra');
    expect(judge(0, [15n], looks(look('10:10:', 'b')))).toBe('open');
    expect(judge(0, [15n], looks(look('10:10:', 'a')))).toBe('open');
    expect(judge(0, [9n, 20n], looks(look('10:10:', 'b')))).toBe('different');
  });

  test('that was changed by a transaction which was running is not compared with a look after it', () => {
    const changes = [12n];
    const source = [look('12:20:12', 'old')];
    expect(judge(0, changes, { source, target: [look('20:20:', 'new')] })).toBe('open');
    expect(judge(0, changes, { source, target: [look('12:14:12', 'old')] })).toBe('equal');
    expect(judge(0, changes, { source, target: [look('12:14:12', 'new')] })).toBe('different');
  });

  test('is judged by the last looks that are comparable', () => {
    const source = [look('10:10:', 'a'), look('30:30:', 'b')];
    expect(judge(0, [20n], { source, target: [look('11:11:', 'x'), look('40:40:', 'b')] })).toBe('equal');
    expect(judge(0, [20n], { source, target: [look('11:11:', 'a'), look('40:40:', 'x')] })).toBe('different');
  });

  test('that changes all the time is settled, and a fault in it is found', () => {
    const random = randomFrom(7);
    const changes = Array.from({ length: 300 }, (_, i) => BigInt(10 + i * 3));
    const valueAt = (xid: number) => String(changes.filter((change) => change < BigInt(xid)).length);
    const some = (count: number, value: (xid: number) => string) =>
      Array.from({ length: count }, () => 10 + Math.floor(random() * 900))
        .sort((a, b) => a - b)
        .map((xid) => look(`${xid}:${xid}:`, value(xid)));
    const source = some(48, valueAt);
    expect(judge(0, changes, { source, target: some(48, valueAt) })).toBe('equal');
    expect(judge(0, changes, { source, target: some(48, (xid) => `${valueAt(xid)}!`) })).toBe('different');
  });
});

describe('ranges', () => {
  test('cover every key once, whatever the sample', () => {
    for (const keys of [[], ['1'], ['1', '1', '1', '1'], ['1', '2', '3', '4', '5', '6', '7']]) {
      const ranges = rangesBetween(
        keys.map((key) => [key]),
        3,
      );
      expect(ranges[0]?.from).toBeNull();
      expect(ranges.at(-1)?.to).toBeNull();
      for (const [i, range] of ranges.entries()) expect(range.from).toEqual(ranges[i - 1]?.to ?? null);
    }
  });

  test('of a sample are some, and one at least', () => {
    const ranges = rangesBetween(
      Array.from({ length: 100 }, (_, i) => [String(i).padStart(3, '0')]),
      40,
    );
    expect(ranges).toHaveLength(40);
    expect(chooseSample(ranges, 0.05, randomFrom(1))).toHaveLength(2);
    expect(chooseSample(ranges.slice(0, 1), 0.05)).toHaveLength(1);
    expect(new Set(chooseSample(ranges, 1, randomFrom(2))).size).toBe(40);
  });
});

test('a table of which a range has no result is not equal, whatever the others say', () => {
  const table = { schema: 'public', name: 't' };
  const server = { server: '', version: 0, system: '', database: '', timeline: 0 };
  const result = { source: NOTHING, target: NOTHING, looked: 0, counts: {}, rows: [], repaired: 0 };
  const accounts = new Accounts();
  accounts.begin(table, 'key', { all: 3, wanted: 2 });
  const report = () =>
    accounts.report({
      ...{
        sync: 'main',
        started: new Date(),
        continued: null,
        sample: 1,
        position: '',
        source: server,
        target: server,
      },
      sequences: { compared: 0, faults: [] },
    }).verdict;
  const verdicts = [report()];
  for (let n = 0; n < 2; n++) {
    accounts.add(table, result);
    verdicts.push(report());
  }
  expect(verdicts).toEqual(['undecided', 'undecided', 'equal']);
});
