/**
 * Settles which of some keys differ, while both sides are written to: looks at their rows again and again, until of every
 * key two looks are comparable (see `judge.ts`), or the time is over.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readDrift } from '../capture/trigger/registry.ts';
import { covers, type Snapshot } from '../core/position.ts';
import { judge, type Verdict } from './judge.ts';
import {
  type Changes,
  lookAtSource,
  lookAtTarget,
  type Reading,
  readChanges,
  readStanding,
  type SourceSample,
  type Standing,
  type TargetSample,
  together,
} from './looks.ts';
import type { Key } from './statements.ts';

export interface Patience {
  readonly signal: AbortSignal;
  /** Milliseconds that rows are looked at again. */
  readonly settleMs: number;
  /** Whether a daemon moves the target on; without one it is no use to wait for that. */
  readonly isRunning: () => Promise<boolean>;
}

/** `pending`: the target has not come to what was read; `moving`: no two looks were comparable in all the time. */
export type Outcome = Exclude<Verdict, 'open'> | 'pending' | 'moving';

/** So many keys are looked at together. */
const KEYS_AT_ONCE = 2_000;
/** Up to so many keys, several looks in quick succession: one of them meets the checkpoint between two changes. */
const FEW_KEYS = 200;
const LOOKS = 48;
const PAUSE_MS = 5;
/** How often the target is looked at while it comes up to the source. */
const FOLLOW_MS = 20;

/** The outcome of each key, in their order. */
export async function settle(reading: Reading, keys: readonly Key[], patience: Patience): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (let first = 0; first < keys.length; first += KEYS_AT_ONCE)
    outcomes.push(...(await settleSome(reading, keys.slice(first, first + KEYS_AT_ONCE), patience)));
  return outcomes;
}

async function settleSome(reading: Reading, keys: readonly Key[], patience: Patience): Promise<Outcome[]> {
  const deadline = Date.now() + patience.settleMs;
  const outcomes = keys.map((): Outcome => 'pending');
  let open = keys.map((_, i) => i);
  for (let round = 0; open.length > 0; round++) {
    const running = await patience.isRunning();
    const some = open.map((i) => keys[i] as Key);
    const found = await settleOnce(reading, some, { ...patience, running, deadline });
    for (const [n, i] of open.entries()) outcomes[i] = found[n] as Outcome;
    open = open.filter((i) => outcomes[i] === 'pending' || outcomes[i] === 'moving');
    if (!running || Date.now() >= deadline) break;
    await sleep(Math.min(1_000, 50 * round), undefined, { signal: patience.signal });
  }
  return outcomes;
}

interface Round extends Patience {
  readonly running: boolean;
  readonly deadline: number;
}

/** One round: some looks at the source, and looks at the target until it has come to the last of them. */
async function settleOnce(reading: Reading, keys: readonly Key[], round: Round): Promise<Outcome[]> {
  const base = await lookAtTarget(reading, keys);
  const target: TargetSample[] = [base];
  const looking = { done: false };
  const dense = keys.length <= FEW_KEYS && round.running;
  const [source] = await together(
    lookOften(reading, keys, dense ? LOOKS : 1, round.signal).finally(() => {
      looking.done = true;
    }),
    dense ? follow(reading, keys, target, () => looking.done, round) : Promise.resolve(),
  );
  for (;;) {
    const goal = source.at(-1)?.snapshot as Snapshot;
    if (!dense) await follow(reading, keys, target, () => true, round);
    const reached = covers((target.at(-1) as TargetSample).position, goal);
    const changes = await readChanges(reading, keys, base.position);
    const verdicts = keys.map((_, i) => judge(i, changes.byKey.get(i) ?? [], { source, target }));
    const over = reached || !round.running || Date.now() >= round.deadline;
    if (over || !verdicts.includes('open')) return believe(reading, { verdicts, changes, base, reached });
    await followUntil(reading, keys, target, goal, round);
  }
}

/** The looks at the source, each with its snapshot. */
async function lookOften(reading: Reading, keys: readonly Key[], times: number, signal: AbortSignal) {
  const looks: SourceSample[] = [];
  for (let n = 0; n < times; n++) {
    if (n > 0) await sleep(PAUSE_MS, undefined, { signal });
    looks.push(await lookAtSource(reading, keys));
  }
  return looks;
}

/** Looks at the target whenever its checkpoint has moved, once at least, until there is enough. */
async function follow(
  reading: Reading,
  keys: readonly Key[],
  looks: TargetSample[],
  enough: () => boolean,
  { signal }: Round,
): Promise<void> {
  for (;;) {
    const last = enough();
    const { position } = await readStanding(reading);
    if (position !== looks.at(-1)?.position) looks.push(await lookAtTarget(reading, keys));
    if (last) return;
    await sleep(PAUSE_MS, undefined, { signal });
  }
}

/** Waits, for a second at most, until the target has come to a snapshot of the source. */
async function followUntil(
  reading: Reading,
  keys: readonly Key[],
  looks: TargetSample[],
  goal: Snapshot,
  round: Round,
): Promise<void> {
  const until = Math.min(round.deadline, Date.now() + 1_000);
  while (!covers((looks.at(-1) as TargetSample).position, goal) && Date.now() < until) {
    await sleep(FOLLOW_MS, undefined, { signal: round.signal });
    await follow(reading, keys, looks, () => true, round);
  }
}

interface Found {
  readonly verdicts: readonly Verdict[];
  readonly changes: Changes;
  readonly base: Standing;
  readonly reached: boolean;
}

/**
 * A difference counts only if nothing else can explain it: what changes rows without a delta of their key, or that the
 * table was copied meanwhile.
 */
async function believe(reading: Reading, { verdicts, changes, base, reached }: Found): Promise<Outcome[]> {
  const differs = verdicts.some((verdict) => verdict !== 'equal' && verdict !== 'open');
  const doubtful = differs && (changes.untold || (await hasMoved(reading, base)));
  const unsettled = reached ? 'moving' : 'pending';
  return verdicts.map((verdict) => {
    if (verdict === 'equal') return 'equal';
    return verdict === 'open' || doubtful ? unsettled : verdict;
  });
}

/** Drift is asked for first: once the daemon has answered it, the table was out of step. */
export async function hasMoved(reading: Reading, { since }: Pick<Standing, 'since'>): Promise<boolean> {
  const drift = await readDrift(reading.source, reading.sync);
  if (drift.some(({ relid }) => relid === reading.plan.relid)) return true;
  return (await readStanding(reading)).since !== since;
}
