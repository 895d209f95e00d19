/**
 * Compares a table without key, whose rows count as often as they are there. Its delta tables hold every row that came
 * or went, so that what the target lacks can be told exactly: the target is read at its checkpoint, the source in a
 * later snapshot, and the difference has to be what was noted between the two.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  addSums,
  type FoundRow,
  NAMED_ROWS,
  NOTHING,
  type RangeResult,
  SHOWN_LENGTH,
  type Sum,
} from './findings.ts';
import {
  inSnapshot,
  notedOf,
  type Reading,
  readSource,
  readStanding,
  type Standing,
  wereForgotten,
} from './looks.ts';
import { hasMoved, type Patience } from './settle.ts';
import {
  countHashes,
  countNoted,
  findUntold,
  PARTS,
  showRows,
  sumNoted,
  sumParts,
  type TableSide,
} from './statements.ts';

/** Up to so many rows of the parts that differ are counted one by one. */
const ROWS_AT_ONCE = 250_000;
const AGAIN_MS = 500;

export async function compareKeyless(reading: Reading, patience: Patience): Promise<RangeResult> {
  const deadline = Date.now() + patience.settleMs;
  for (;;) {
    const sums = await readBoth(reading, (side) => sumParts(side), sumNoted, [], toSums);
    const differing = differences(sums.source, sums.target, sums.noted);
    const totals = { source: total(sums.source), target: total(sums.target) };
    if (differing.length === 0) return { ...totals, looked: 0, counts: {}, rows: [], repaired: 0 };
    if (!(await isDoubtful(reading, sums))) {
      return { ...totals, ...(await nameRows(reading, differing, totals)), repaired: 0 };
    }
    if (Date.now() >= deadline || !(await patience.isRunning()))
      return { ...totals, looked: 0, counts: { moving: differing.length }, rows: [], repaired: 0 };
    await sleep(AGAIN_MS, undefined, { signal: patience.signal });
  }
}

interface Both<T> {
  readonly source: T;
  readonly target: T;
  /** What came to the source since the target's position, less what went. */
  readonly noted: T;
  readonly standing: Standing;
  readonly untold: boolean;
}

type Answer = Readonly<Record<string, unknown>>;

/** The target first: its position is a snapshot that the source's one contains. */
async function readBoth<T>(
  reading: Reading,
  own: (side: TableSide) => string,
  noted: typeof sumNoted,
  values: readonly unknown[],
  digest: (rows: readonly Answer[]) => T,
): Promise<Both<T>> {
  const { source, target, here, there, plan } = reading;
  const before = await inSnapshot(target, there, async () => ({
    standing: await readStanding(reading),
    target: digest(await target.rows<Answer>(own(there), values)),
  }));
  const { position } = before.standing;
  return inSnapshot(source, here, async () => {
    await readSource(reading);
    const generations = await notedOf(reading);
    const between = generations.numbers.length > 0;
    return {
      ...before,
      source: digest(await source.rows<Answer>(own(here), values)),
      noted: digest(between ? await source.rows<Answer>(noted(here, generations, position), values) : []),
      untold:
        between && (await source.row<{ untold: boolean }>(findUntold(plan, generations, position))).untold,
    };
  });
}

async function isDoubtful(reading: Reading, { standing, untold }: Both<unknown>): Promise<boolean> {
  return untold || (await wereForgotten(reading, standing.position)) || hasMoved(reading, standing);
}

type Sums = ReadonlyMap<number, Sum>;

function toSums(rows: readonly Answer[]): Sums {
  return new Map(
    rows.map(({ part, rows, sum }) => [
      part as number,
      { rows: BigInt(rows as string), sum: BigInt(sum as string) },
    ]),
  );
}

function total(sums: Sums): Sum {
  return [...sums.values()].reduce(addSums, NOTHING);
}

/** The parts that hold something else than they should. */
function differences(source: Sums, target: Sums, noted: Sums): number[] {
  return Array.from({ length: PARTS }, (_, part) => part).filter((part) => {
    const [here, there, between] = [source, target, noted].map((sums) => sums.get(part) ?? NOTHING) as [
      Sum,
      Sum,
      Sum,
    ];
    return here.rows - there.rows !== between.rows || here.sum - there.sum !== between.sum;
  });
}

type Counts = ReadonlyMap<string, bigint>;

function toCounts(rows: readonly Answer[]): Counts {
  return new Map(rows.map(({ hash, rows }) => [hash as string, BigInt(rows as string)]));
}

/** What differs within some of the parts that differ, row by row; each other one counts as one row at the least. */
async function nameRows(
  reading: Reading,
  differing: readonly number[],
  totals: { readonly source: Sum; readonly target: Sum },
): Promise<Pick<RangeResult, 'looked' | 'counts' | 'rows'>> {
  const rows = Number(totals.source.rows > totals.target.rows ? totals.source.rows : totals.target.rows);
  const some = differing.slice(0, Math.max(1, Math.floor((ROWS_AT_ONCE * PARTS) / Math.max(1, rows))));
  const found = await readBoth(reading, countHashes, countNoted, [some], toCounts);
  const hashes = [...new Set([...found.source.keys(), ...found.target.keys()])];
  const lacking = hashes
    .map((hash) => {
      const [here, there, between] = [found.source, found.target, found.noted].map(
        (one) => one.get(hash) ?? 0n,
      ) as [bigint, bigint, bigint];
      return { hash, lacks: here - there - between };
    })
    .filter(({ lacks }) => lacks !== 0n);
  const count = (wanted: boolean) =>
    lacking
      .filter(({ lacks }) => lacks > 0n === wanted)
      .reduce((sum, { lacks }) => sum + Math.abs(Number(lacks)), 0);
  const [missing, extra, others] = [count(true), count(false), differing.length - some.length];
  return {
    looked: hashes.length,
    counts: {
      ...(missing > 0 ? { missing } : {}),
      ...(extra > 0 ? { extra } : {}),
      // Both looks found differences, and not the same ones: nothing is known but that.
      ...(others > 0 || lacking.length === 0 ? { moving: Math.max(1, others) } : {}),
    },
    rows: await show(reading, lacking.slice(0, NAMED_ROWS)),
  };
}

async function show(
  reading: Reading,
  lacking: readonly { readonly hash: string; readonly lacks: bigint }[],
): Promise<FoundRow[]> {
  if (lacking.length === 0) return [];
  const { source, target, here, there } = reading;
  const hashes = lacking.map(({ hash }) => hash);
  const read = async (session: Reading['source'], side: TableSide) =>
    session.rows<{ hash: string; shown: string }>(showRows(side, SHOWN_LENGTH), [hashes]);
  const shown = new Map(
    [...(await read(source, here)), ...(await read(target, there))].map((row) => [row.hash, row.shown]),
  );
  return lacking.map(({ hash, lacks }) => {
    const text = shown.get(hash) ?? null;
    return {
      finding: lacks > 0n ? ('missing' as const) : ('extra' as const),
      key: null,
      columns: [{ column: 'row', source: lacks > 0n ? text : null, target: lacks > 0n ? null : text }],
    };
  });
}
