/**
 * Runs a property for a range of seeds. A seed that fails is shrunk for a while, and printed with the command that
 * replays it.
 *
 * `npm run property -- --seeds 500 --seed 1` sets the range by way of PROPERTY_SEEDS and PROPERTY_SEED; the test suite
 * runs a few, the same ones every time. PROPERTY_SHRINK is how many seconds a failure may be shrunk.
 */
import fc from 'fast-check';

const FIRST = Number(process.env.PROPERTY_SEED ?? 1);
const SHRINK_MS = Number(process.env.PROPERTY_SHRINK ?? 60) * 1000;

/** How many seeds a run has, of which the test suite has `short`. */
function countOf(short: number): number {
  return Number(process.env.PROPERTY_SEEDS ?? short);
}

/** Long enough for the seeds of a run, and for the shrinking of a few. */
export function patience(short: number): number {
  return countOf(short) * 60_000 + 10 * SHRINK_MS;
}

export interface Property<T> {
  readonly name: string;
  readonly short: number;
  readonly values: fc.Arbitrary<T>;
  /** Resolves to what went wrong, null when nothing did. */
  readonly check: (value: T, seed: number) => Promise<string | null>;
}

/** Resolves to the seeds that failed, one report each. */
export async function runSeeds<T>({ name, short, values, check }: Property<T>): Promise<string[]> {
  const failures: string[] = [];
  const last = FIRST + countOf(short) - 1;
  for (let seed = FIRST; seed <= last; seed++) {
    const failure = await runSeed(values, (value) => check(value, seed), seed);
    if (failure === null) continue;
    const replay = `npm run property -- ${name} --seeds 1 --seed ${seed}`;
    console.error(`${name}: seed ${seed} failed; replay it with: ${replay}\n${failure}`);
    failures.push(`seed ${seed} (${replay}): ${failure.split('\n')[0]}`);
  }
  console.log(`${name}: seeds ${FIRST} to ${last}, ${failures.length} failed`);
  return failures;
}

async function runSeed<T>(
  values: fc.Arbitrary<T>,
  check: (value: T) => Promise<string | null>,
  seed: number,
): Promise<string | null> {
  let failure: string | null = null;
  let deadline = Number.POSITIVE_INFINITY;
  const property = fc.asyncProperty(values, async (value) => {
    // Time is up: everything passes, and what was found last stands.
    if (Date.now() > deadline) return;
    const found = await check(value);
    if (found === null) return;
    failure = found;
    deadline = Math.min(deadline, Date.now() + SHRINK_MS);
    throw new Error('found');
  });
  await fc.check(property, { seed, numRuns: 1, endOnFailure: SHRINK_MS === 0 });
  return failure;
}
