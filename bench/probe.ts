/**
 * Lag, looked at from outside: one connection commits the numbers 1, 2, 3, .. into one row of the source, another asks
 * the target for that row. Whoever shows number 7 has shown 1 to 6 as well, so a way of replicating that carries only
 * the last state of a row is measured by the same rule as one that carries every change.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { connect, type Databases } from './pair.ts';

/** Replicated like the tables of the load. */
export const PROBE_TABLE = 'probe';

/** What the lags are exact to. */
const LOOK_MS = 4;
const LOST_AFTER_MS = 120_000;

export interface Sample {
  /** Seconds from the beginning of the probe to the commit. */
  readonly at: number;
  /** Milliseconds from the reply to the commit until the target showed it. */
  readonly lag: number;
}

export async function createProbe({ source, target }: Databases): Promise<void> {
  for (const { owner } of [source, target]) {
    await owner.query(`create table ${PROBE_TABLE} (id int primary key, number int not null)`);
  }
  await source.owner.query(`insert into ${PROBE_TABLE} values (1, 0)`);
}

/**
 * Commits until `load` has ended, `pause` milliseconds apart, and then once more. Resolves when the target has shown
 * that one: all of the load was committed before it. Rejects as `load` does.
 */
export async function probe(
  { source, target }: Databases,
  load: Promise<unknown>,
  pause: () => number,
): Promise<Sample[]> {
  const startedAt = performance.now();
  const committed: number[] = [];
  const [writer, reader] = await Promise.all([connect(source.url), connect(target.url)]);
  try {
    const before = await numberShown(reader);
    const writing = write(writer, load, pause, committed);
    const [seen] = await Promise.all([look(reader, before, committed, writing), writing]);
    return committed.map((at, index) => ({
      at: Math.round(at - startedAt) / 1000,
      // The target may show a commit before the source has replied to it. Beyond hundredths there is only noise.
      lag: Math.max(0, Math.round(100 * ((seen[index] as number) - at)) / 100),
    }));
  } finally {
    await Promise.all([writer.end(), reader.end()]);
  }
}

async function write(
  writer: pg.Client,
  load: Promise<unknown>,
  pause: () => number,
  committed: number[],
): Promise<void> {
  const commit = async () => {
    await nextNumber(writer);
    committed.push(performance.now());
  };
  let loading = true;
  const ended = load.finally(() => {
    loading = false;
  });
  // Its failure is for the one who waits below, also when a commit fails first.
  ended.catch(() => undefined);
  while (loading) {
    await commit();
    await Promise.race([sleep(pause()), ended]);
  }
  await ended;
  await commit();
}

/** When the target was seen to show each commit, on the clock of `performance.now()`. */
async function look(
  reader: pg.Client,
  before: number,
  committed: readonly number[],
  writing: Promise<void>,
): Promise<number[]> {
  let end: number | undefined;
  const stop = () => {
    end = performance.now();
  };
  writing.then(stop, stop);
  const seen: number[] = [];
  while (end === undefined || seen.length < committed.length) {
    const shown = (await numberShown(reader)) - before;
    const now = performance.now();
    while (seen.length < shown) seen.push(now);
    if (end !== undefined && now - end > LOST_AFTER_MS) throw lost();
    await sleep(LOOK_MS);
  }
  return seen;
}

/** Writes the next number as a part of the client's transaction, or as one of its own; gives it. */
export async function nextNumber(writer: pg.Client): Promise<number> {
  const { rows } = await writer.query<{ number: number }>({
    name: 'next-number',
    text: `update ${PROBE_TABLE} set number = number + 1 where id = 1 returning number`,
  });
  return rows[0]?.number as number;
}

/** Resolves to when the target was seen to show `number`, on the clock of `performance.now()`. */
export async function whenShown({ target }: Databases, number: number): Promise<number> {
  const deadline = performance.now() + LOST_AFTER_MS;
  for (;;) {
    const shown = await numberShown(target.owner);
    const now = performance.now();
    if (shown >= number) return now;
    if (now > deadline) throw lost();
    await sleep(LOOK_MS);
  }
}

function lost(): Error {
  return new Error(`a change was not on the target after ${LOST_AFTER_MS / 1000} s`);
}

async function numberShown(reader: pg.Client): Promise<number> {
  const { rows } = await reader.query<{ number: number }>({
    name: 'number-shown',
    text: `select number from ${PROBE_TABLE} where id = 1`,
  });
  return rows[0]?.number ?? 0;
}
