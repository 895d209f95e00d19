/**
 * `ibex cutover` and `ibex rollback`: the phases in their order, what is done when one of them fails, and how a move goes
 * on whose process died. Until the switch every failure leads back to where it began; after it only forward.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { hurry, readLive, type Side } from '../../apply/live.ts';
import { liftFence, raiseFence, readFence } from '../../capture/trigger/fence.ts';
import { laneOf } from '../../config/syncs.ts';
import { IbexError } from '../../core/errors.ts';
import { tryLock } from '../../engine/silent-holder.ts';
import { migrate } from '../../postgres/migrate.ts';
import type { Session } from '../../postgres/session.ts';
import { readLastEqual } from '../../verify/record.ts';
import { fenceOff } from './fencing.ts';
import { findUnrunnable, runHook } from './hooks.ts';
import { beginRun, endRun, phase, readLastRun, readProof } from './journal.ts';
import { type Ending, HURRY_MS, type Move, type MoveOptions, type MoveResult, nodesOf } from './move.ts';
import { findReasons } from './preflight.ts';
import { prepare } from './preparing.ts';
import { carrySequences, check, compareAll, drain, openSession } from './proving.ts';
import { rehearse, requireScratch } from './rehearsing.ts';
import { awaitWayBack, open, turn } from './turning.ts';

/** A full comparison counts for so long. */
const VERIFIED_HOURS = 24;

/** How long it is tried to undo a move whose connections are lost, and the pause between two tries. */
const UNDO_MS = 60_000;
const UNDO_PAUSE_MS = 500;

/** Makes a side live, or says why not. Errors: those of the servers; `taken` when another move is under way. */
export async function move(options: MoveOptions): Promise<MoveResult> {
  return withSides(options, async (sides) => {
    const { sync, to } = options;
    const finished = await settleLast(options, sides);
    const live = await readLive(sides.record, sync.name);
    if (live.side === to) return finished ?? refused(live.side, [`the ${to} is live already`]);
    const run = await beginRun(sides.record, sync.name, to);
    return makeMove({ ...options, ...rolesOf(options, sides, to), run });
  });
}

/** Undoes what a move left behind that was stopped before the switch: lifts the fence and lets the daemon go on as before. */
export async function abandon(options: MoveOptions): Promise<MoveResult> {
  return withSides(options, async (sides) => {
    const { sync, say } = options;
    const { side } = await readLive(sides.record, sync.name);
    const last = await readLastRun(sides.record, sync.name);
    if (last !== undefined && !last.ended && last.live === side) {
      return refused(side, [
        `the ${side} is live already: \`ibex ${nameOf(side)}\` goes on with what is left`,
      ]);
    }
    const to: Side = side === 'source' ? 'target' : 'source';
    const given = { ...options, ...rolesOf(options, sides, to), run: last?.run ?? 0 };
    await undo(given);
    await runHook(given, 'on_abort');
    say({ phase: 'undo', seconds: null, text: `the application can write to ${given.old.server}` });
    return { outcome: 'undone', live: side, reasons: [], error: null, proof: {} };
  });
}

export type Settling = Omit<Ending, 'to' | 'run' | 'lane' | 'next' | 'old' | 'fresh' | 'record'>;

/**
 * Ends a move whose process is gone, for the daemon, since nobody else may be there: undone when nothing was switched, else
 * finished. Null when there is none. Errors: those of the servers; `taken` when somebody is at it.
 */
export async function settle(options: Settling): Promise<MoveResult | null> {
  return withSides(options, async (sides) => {
    const left = await findUnended(options, sides);
    if (left === null) return null;
    const { given, turned } = left;
    const note = { by: 'daemon' };
    if (turned) return finish(given, null, note);
    await undo(given, note);
    const late = await runHook(given, 'on_abort').then(() => null, known);
    const reasons = late === null ? [] : [late.message];
    return { outcome: 'undone', live: leftBy(given), reasons, error: late, proof: {} };
  });
}

function nameOf(to: Side): string {
  return to === 'target' ? 'cutover' : 'rollback';
}

function refused(live: Side, reasons: readonly string[]): MoveResult {
  return { outcome: 'refused', live, reasons, error: null, proof: {} };
}

interface Sides {
  readonly source: Session;
  readonly target: Session;
  readonly record: Session;
}

async function withSides<T>(
  { sync }: Pick<MoveOptions, 'sync'>,
  body: (sides: Sides) => Promise<T>,
): Promise<T> {
  await using source = await openSession(sync, 'source', 'cutover');
  await using target = await openSession(sync, 'target', 'cutover');
  await using record = await openSession(sync, 'target', 'cutover');
  await migrate(record, 'target');
  if (!(await tryLock(record, 'move', sync.name))) {
    throw new IbexError('taken', `another cutover or rollback of sync ${sync.name} is under way`, {
      hint: 'Wait for it, or end that process, then run this again.',
    });
  }
  return await body({ source, target, record });
}

/** Which session and lane plays which part when this side is to become live. */
function rolesOf({ sync }: Pick<MoveOptions, 'sync'>, { source, target, record }: Sides, to: Side) {
  const [left, lane, next] =
    to === 'target' ? (['source', 'source', 'target'] as const) : (['target', 'target', 'source'] as const);
  return {
    to,
    lane: laneOf(sync, lane),
    next: laneOf(sync, next),
    old: left === 'source' ? source : target,
    fresh: left === 'source' ? target : source,
    record,
  };
}

interface Unended {
  readonly given: Ending;
  /** It had come past the switch. */
  readonly turned: boolean;
}

/** The last move, if it did not come to its end. Whoever has the lock knows that its process is gone. */
async function findUnended(options: Settling, sides: Sides): Promise<Unended | null> {
  const { sync } = options;
  const last = await readLastRun(sides.record, sync.name);
  if (last === undefined || last.ended) return null;
  const given = { ...options, ...rolesOf(options, sides, last.live), run: last.run };
  return { given, turned: (await readLive(sides.record, sync.name)).side === last.live };
}

/** A move whose process died is ended first: undone when nothing was switched, else finished. Resolves to one that is done. */
async function settleLast(options: MoveOptions, sides: Sides): Promise<MoveResult | null> {
  const { say } = options;
  const left = await findUnended(options, sides);
  if (left === null) return null;
  if (!left.turned) {
    say({ phase: 'undo', seconds: null, text: 'an earlier attempt did not come to its end: it is undone' });
    await undo(left.given);
    return null;
  }
  say({
    phase: 'reverse',
    seconds: null,
    text: 'an earlier attempt had come past the switch: it is finished',
  });
  return finish(left.given, null);
}

async function makeMove(given: Move): Promise<MoveResult> {
  try {
    const { reasons } = await phase(given, 'preflight', async () => {
      if (given.scratch !== null) await requireScratch(given, given.scratch);
      const reasons = [...(await findUnrunnable(given.hooks)), ...(await findReasons(given))];
      return { found: { reasons }, text: reasons.length === 0 ? 'nothing stands against it' : 'refused' };
    });
    if (reasons.length > 0) return await giveUp(given, 'refused', reasons);
    await verifyFirst(given);
    await phase(given, 'prepare', () => prepare(given));
    if (given.dryRun) return await endRehearsal(given);
    await runHook(given, 'before_fence');
    await fenceAndSwitch(given);
  } catch (error) {
    // The answer to the switch may have been lost on its way.
    const turned = await readLive(given.record, given.sync.name).catch(() => null);
    if (turned?.side !== given.to) return failed(given.dryRun ? { ...given, hooks: {} } : given, error);
  }
  const { placed } = await readProof(given.record, given.sync.name, given.run);
  return finish(given, placed ?? null);
}

/** The live side stays the live one. */
async function giveUp(given: Move, outcome: 'refused' | 'rehearsed', reasons: readonly string[]) {
  await undo(given);
  return { outcome, live: leftBy(given), reasons, error: null, proof: {} };
}

async function endRehearsal(given: Move): Promise<MoveResult> {
  if (given.scratch === null) return giveUp(given, 'rehearsed', []);
  const rehearsal = await rehearse(given, given.scratch);
  return { ...(await giveUp(given, 'rehearsed', [])), rehearsal };
}

function leftBy({ to }: Ending): Side {
  return to === 'target' ? 'source' : 'target';
}

async function verifyFirst(given: Move): Promise<void> {
  if (given.unverified) return;
  const since = await readLastEqual(given.fresh, given.lane.name, VERIFIED_HOURS);
  if (since === null) await phase(given, 'verify', () => compareAll(given));
}

async function fenceAndSwitch(given: Move): Promise<void> {
  const { lane, old, record, sync, say } = given;
  const { lifts } = await readFence(old, lane.name);
  say({ phase: 'fence', seconds: null, text: `to lift the fence by hand, on ${old.server}: ${lifts};` });
  await hurry(record, sync.name, HURRY_MS);
  const { mark } = await phase(given, 'fence', async () => ({
    found: { mark: await fenceOff(given) },
    text: `nobody writes to ${old.server} any more`,
  }));
  await runHook(given, 'after_fence');
  await phase(given, 'drain', () => drain(given));
  await runHook(given, 'after_drain');
  await phase(given, 'sequences', () => carrySequences(given));
  await phase(given, 'check', () => check(given, mark));
  given.signal.throwIfAborted();
  await phase(given, 'switch', () => turn(given, mark));
}

/** From the switch on: can be repeated, until it is done. */
async function finish(given: Ending, placed: string | null, note: object = {}): Promise<MoveResult> {
  const { record, sync, run, to } = given;
  const ended = { live: to, reasons: [], error: null };
  try {
    await hurry(record, sync.name, HURRY_MS);
    await phase(given, 'reverse', () => awaitWayBack(given, placed));
    await phase(given, 'lift', () => open(given));
  } catch (error) {
    return {
      ...ended,
      outcome: 'unfinished',
      reasons: [known(error).message],
      error: known(error),
      proof: {},
    };
  }
  const proof = await readProof(record, sync.name, run);
  await hurry(record, sync.name, 0);
  await endRun(record, sync.name, run, { outcome: 'done', pauseSeconds: proof.pauseSeconds, ...note });
  // With the new side open: who is let in by the hook meets no fence, and a slow one keeps nobody waiting.
  const late = await runHook(given, 'after_switch').then(
    () => null,
    (error) => leftByHook(given, error),
  );
  if (late === null) return { ...ended, outcome: 'done', proof };
  return { ...ended, outcome: 'unfinished', reasons: [late.message], error: late, proof };
}

/** The same command would not run the hook again: everything else is done. */
function leftByHook({ to, fresh }: Ending, error: unknown): IbexError {
  const { kind, message } = known(error);
  const hint = `${fresh.server} is open. Do by hand what the hook does: it is told IBEX_PHASE=after_switch and IBEX_NEW_SIDE=${to}.`;
  return new IbexError(kind, message, { hint, cause: error });
}

/** A failure before the switch: the application goes on as if nothing had been. */
async function failed(given: Move, error: unknown): Promise<MoveResult> {
  await undoSurely(given, known(error));
  const late = await runHook(given, 'on_abort').then(() => null, known);
  const reasons = [known(error).message, ...(late === null ? [] : [late.message])];
  return { outcome: 'undone', live: leftBy(given), reasons, error: known(error), proof: {} };
}

/** As `undo`; where a connection was lost, over new ones, for as long as the application may well wait for it. */
async function undoSurely(given: Move, why: IbexError): Promise<void> {
  const { sync } = given;
  try {
    return await undo(given);
  } catch (error) {
    const deadline = Date.now() + UNDO_MS;
    for (let last = known(error); ; await sleep(UNDO_PAUSE_MS)) {
      if (Date.now() > deadline) {
        throw new IbexError(last.kind, `${why.message}; and the fence could not be lifted: ${last.message}`, {
          hint: 'As soon as the servers answer: `ibex cutover --abort`, or the statement that was shown before the fence.',
        });
      }
      try {
        await using source = await openSession(sync, 'source', 'cutover');
        await using target = await openSession(sync, 'target', 'cutover');
        await using record = await openSession(sync, 'target', 'cutover');
        return await undo({ ...given, ...rolesOf(given, { source, target, record }, given.to) });
      } catch (again) {
        last = known(again);
      }
    }
  }
}

/**
 * Lifts the fence of the live side. That of the other one stays up where it was live before: nobody who still has its
 * address is to write there. Capture and fences stay in place, for the next attempt.
 */
async function undo(given: Ending, note: object = {}): Promise<void> {
  const { sync, lane, next, old, fresh, record, run } = given;
  await liftFence(old, lane.name);
  if (await wasLive(record, sync.name)) {
    if (!(await readFence(fresh, next.name)).up) await raiseFence(fresh, next.name, nodesOf(given));
  } else await liftFence(fresh, next.name);
  await hurry(record, sync.name, 0);
  if (run > 0) await endRun(record, sync.name, run, { outcome: 'undone', ...note });
}

/** Whether the side that is not live has ever been left. */
async function wasLive(record: Session, sync: string): Promise<boolean> {
  const rows = await record.rows('select from ibex.live where sync = $1 and turned_at is not null', [sync]);
  return rows.length > 0;
}

function known(error: unknown): IbexError {
  return error instanceof IbexError
    ? error
    : new IbexError('refused', `stopped: ${(error as Error).message}`, { cause: error });
}
