/**
 * Divides a table into ranges of its key of about equal size, by a sample of its blocks: no full scan, no statistics.
 * Where the sample is wrong ranges differ in size, and where the servers sort differently a row lies in another range of
 * the other side and is looked up by its key; but every row of either side lies in exactly one range.
 */
import type { TablePlan } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { EVERYTHING, type Key, type Range, rangeColumns, sampleKeys } from './statements.ts';

export interface Size {
  readonly bytes: number;
  readonly blocks: number;
}

/** Large enough that the servers do little else than to sum up, small enough that a range is read in a second. */
const RANGE_BYTES = 16 * 1024 * 1024;
/** So many blocks of the sample fall into each range. */
const BLOCKS_EACH = 8;

/** The ranges of a table, in the order of the key; a single one where nothing tells rows apart. */
export async function planRanges(source: Session, plan: TablePlan, size: Size): Promise<Range[]> {
  const count = Math.ceil(size.bytes / RANGE_BYTES);
  if (count <= 1 || rangeColumns(plan).length === 0) return [EVERYTHING];
  const percent = Math.min(100, (100 * BLOCKS_EACH * count) / Math.max(1, size.blocks));
  const rows = await source.rows<{ key: Key }>(sampleKeys(plan, percent));
  return rangesBetween(
    rows.map(({ key }) => key),
    count,
  );
}

/** So many ranges at the most, given some keys in their order. */
export function rangesBetween(keys: readonly Key[], count: number): Range[] {
  const wanted = Array.from(
    { length: count - 1 },
    (_, i) => keys[Math.floor(((i + 1) * keys.length) / count)],
  );
  const bounds = wanted.filter(
    (key, i): key is Key => key !== undefined && JSON.stringify(key) !== JSON.stringify(wanted[i - 1]),
  );
  return [null, ...bounds].map((from, i) => ({ from, to: bounds[i] ?? null }));
}

/** A part of the ranges, at random, one at least. */
export function chooseSample(
  ranges: readonly Range[],
  share: number,
  random: () => number = Math.random,
): Range[] {
  const wanted = Math.max(1, Math.ceil(ranges.length * share));
  const shuffled = ranges.map((range) => ({ range, at: random() })).sort((a, b) => a.at - b.at);
  return shuffled.slice(0, wanted).map(({ range }) => range);
}
