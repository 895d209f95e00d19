/** Compares one range of a table: the sums of both sides, and where these differ, row by row. */
import { noteKeys } from '../capture/trigger/registry.ts';
import {
  type Finding,
  type FoundColumn,
  type FoundRow,
  NAMED_ROWS,
  type RangeResult,
  SHOWN_LENGTH,
  type Sum,
} from './findings.ts';
import { inSnapshot, keyColumns, type Reading, readSource, together } from './looks.ts';
import { type Outcome, type Patience, settle } from './settle.ts';
import { type Key, listRange, type Range, showRow, sumRange, type TableSide } from './statements.ts';

/** So many rows of either side are held in memory at once. */
const ROWS_AT_ONCE = 250_000;

export interface Wish extends Patience {
  /** Has what differs carried anew. */
  readonly repair: boolean;
}

export async function compareRange(reading: Reading, range: Range, wish: Wish): Promise<RangeResult> {
  const [source, target] = await onBoth(reading, (session, side) => sumOf(session, sumRange(side, range)));
  const equal = source.rows === target.rows && source.sum === target.sum;
  if (equal) return { source, target, looked: 0, counts: {}, rows: [], repaired: 0 };
  const keys = await findSuspects(
    reading,
    range,
    Number(source.rows > target.rows ? source.rows : target.rows),
  );
  const first = await settle(reading, keys, wish);
  const wrong = keys.filter((_, i) => isWrong(first[i] as Outcome));
  const again = wish.repair && wrong.length > 0 ? await repair(reading, wrong, wish) : [];
  const repairs = new Map(wrong.map((key, i) => [key, again[i]]));
  const outcomes = keys.map((key, i) => repairs.get(key) ?? (first[i] as Outcome));
  return {
    source,
    target,
    looked: keys.length,
    counts: countOutcomes(outcomes),
    rows: await nameRows(reading, keys, outcomes),
    repaired: again.filter((outcome) => outcome === 'equal').length,
  };
}

/** The same of both sides at about the same time, each in a snapshot of its own. */
function onBoth<T>(
  reading: Reading,
  read: (session: Reading['source'], side: TableSide) => Promise<T>,
): Promise<[T, T]> {
  const { source, target, here, there } = reading;
  return together(
    inSnapshot(source, here, async () => {
      await readSource(reading);
      return read(source, here);
    }),
    inSnapshot(target, there, () => read(target, there)),
  );
}

async function sumOf(session: Reading['source'], statement: string): Promise<Sum> {
  const { rows, sum } = await session.row<{ rows: string; sum: string }>(statement);
  return { rows: BigInt(rows), sum: BigInt(sum) };
}

/** Keys whose rows were not the same on both sides, which were read at different moments. */
async function findSuspects(reading: Reading, range: Range, rows: number): Promise<Key[]> {
  const parts = Math.max(1, Math.ceil(rows / ROWS_AT_ONCE));
  const suspects: Key[] = [];
  for (let part = 0; part < parts; part++) {
    const [here, there] = await onBoth(reading, async (session, side) => {
      const found = await session.rows<{ key: Key; hash: string }>(listRange(side, range, part, parts));
      return byKey(found);
    });
    const keys = new Set([...here.keys(), ...there.keys()]);
    for (const key of keys) if (here.get(key) !== there.get(key)) suspects.push(JSON.parse(key) as Key);
  }
  return suspects;
}

/** All hashes where a key comes twice, which nothing may keep it from on the target. */
function byKey(found: readonly { readonly key: Key; readonly hash: string }[]): Map<string, string> {
  const hashes = new Map<string, string>();
  for (const { key, hash } of found) {
    const label = JSON.stringify(key);
    const before = hashes.get(label);
    hashes.set(label, before === undefined ? hash : [...before.split(','), hash].sort().join(','));
  }
  return hashes;
}

function isWrong(outcome: Outcome): boolean {
  return outcome === 'different' || outcome === 'missing' || outcome === 'extra';
}

/** Notes the keys as changed, so that the stream carries their rows as they are, and settles them again. */
async function repair(reading: Reading, keys: readonly Key[], wish: Wish): Promise<Outcome[]> {
  await noteKeys(reading.source, reading.plan.relid, keys);
  return settle(reading, keys, wish);
}

function countOutcomes(outcomes: readonly Outcome[]): Partial<Record<Finding, number>> {
  const counts: Partial<Record<Finding, number>> = {};
  for (const outcome of outcomes) if (outcome !== 'equal') counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

async function nameRows(
  reading: Reading,
  keys: readonly Key[],
  outcomes: readonly Outcome[],
): Promise<FoundRow[]> {
  const found = keys.flatMap((key, i) => {
    const finding = outcomes[i] as Outcome;
    return finding === 'equal' ? [] : [{ key, finding }];
  });
  const rows: FoundRow[] = [];
  for (const { key, finding } of found.slice(0, NAMED_ROWS)) {
    const columns = finding === 'different' ? await differingColumns(reading, key) : [];
    rows.push({ finding, key, columns });
  }
  return rows;
}

interface Shown {
  readonly shown: readonly (string | null)[];
  readonly hashes: readonly (string | null)[];
}

/** Columns that differ now: none, if the row has changed since. */
async function differingColumns(reading: Reading, key: Key): Promise<FoundColumn[]> {
  const values = keyColumns(reading.plan, [key]);
  const [[here], [there]] = await onBoth(reading, (session, side) =>
    session.rows<Shown>(showRow(side, SHOWN_LENGTH), values),
  );
  if (here === undefined || there === undefined) return [];
  return reading.plan.columns.flatMap(({ name }, i) =>
    here.hashes[i] === there.hashes[i]
      ? []
      : [{ column: name, source: here.shown[i] ?? null, target: there.shown[i] ?? null }],
  );
}
