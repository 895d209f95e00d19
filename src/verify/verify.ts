/**
 * Compares source and target of a sync, table by table, while both are written to. Nothing is locked but what any reader
 * locks, and no snapshot lives longer than one range takes to be read; rows that differ are settled one by one
 * (`settle.ts`). Whatever could not be settled counts against equality.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readRecord } from '../apply/state.ts';
import { RateLimit } from '../backfill/rate-limit.ts';
import { concerning, IbexError, isKind } from '../core/errors.ts';
import { type TableName, type TablePlan, tableLabel } from '../core/plan.ts';
import { type RosterTable, readRoster, type Wishes } from '../engine/roster.ts';
import { readIdentity } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';
import type { RangeResult } from './findings.ts';
import { compareRange, type Wish } from './keyed.ts';
import { compareKeyless } from './keyless.ts';
import { type Reading, readStanding } from './looks.ts';
import { chooseSample, planRanges, type Size } from './ranges.ts';
import { Accounts, type VerifyReport } from './report.ts';
import { compareSequences } from './sequences.ts';
import type { Patience } from './settle.ts';
import { EVERYTHING, type Range, READ_SIZE } from './statements.ts';
import {
  basisOf,
  type Division,
  divisionInto,
  type Keeping,
  keepEqual,
  readSince,
  Unfinished,
} from './unfinished.ts';

export interface VerifyOptions extends Wish {
  readonly wishes: Wishes;
  readonly filter: (table: TableName) => boolean;
  /** Some tables only: sequences that belong to none are left out then. */
  readonly some: boolean;
  /** The share of the ranges of each table that is compared; 1: all of them. */
  readonly sample: number;
  readonly jobs: number;
  /** Bytes that may be read of the source a second; null: as many as go. */
  readonly bytesPerSecond: number | null;
  /** Opens a session of one side, for one of the jobs. */
  readonly open: (side: 'source' | 'target') => Promise<Session>;
  readonly onProgress: (done: Progress) => void;
  /** Keep what is found equal, and go on with what an earlier call has kept; null: all is compared by this call. */
  readonly keeping: Keeping | null;
}

export interface Progress {
  readonly ranges: { readonly done: number; readonly all: number };
  readonly bytes: { readonly done: number; readonly all: number };
}

interface Task {
  readonly table: TableName;
  readonly plan: TablePlan;
  readonly range: Range;
  /** Its number in the division of the table, as of which its copy has been in step since. */
  readonly n: number;
  readonly division: Division;
  readonly since: string;
  readonly bytes: number;
}

/** Compares what the filter lets through. Errors: `not_set_up`; those of the servers; the signal's reason. */
export async function verify(
  source: Session,
  target: Session,
  options: VerifyOptions,
): Promise<VerifyReport> {
  const { wishes, filter, sample, keeping } = options;
  const resumed = new Date();
  await setUp(source);
  const unfinished =
    keeping === null ? null : await Unfinished.open(source, target, wishes.name, keeping, resumed);
  // Before the tables are read: what is copied again from here on is found to be another copy.
  const since = await readSince(target, wishes.name);
  const roster = (await readRoster(source, target, wishes)).filter(filter);
  const accounts = new Accounts();
  const recoded = (await encodingOf(source)) !== (await encodingOf(target));
  const work = { ...options, recoded, accounts, unfinished, since };
  const tasks = await planTasks(source, roster, work);
  const continued = accounts.continued(resumed);
  if (continued !== null) keeping?.onContinued(continued);
  await workOff(tasks, work);
  const tables = roster.filter(({ state }) => state !== 'dropped');
  const sequences = await compareSequences(source, target, { tables, all: !options.some, patience: options });
  const record = await readRecord(target, wishes.name);
  const report = accounts.report({
    sync: wishes.name,
    started: continued === null ? resumed : (unfinished?.started ?? resumed),
    continued,
    sample,
    position: record?.position ?? '',
    source: await describe(source),
    target: await describe(target),
    sequences,
  });
  await unfinished?.end();
  return report;
}

/** A lock that is not to be had soon is asked for again, lest whoever waits behind us waits long. */
async function setUp(session: Session): Promise<void> {
  await session.run(`set lock_timeout = '100ms'`);
}

async function encodingOf(session: Session): Promise<string> {
  return (await session.row<{ encoding: string }>(`select current_setting('server_encoding') as encoding`))
    .encoding;
}

async function describe(session: Session) {
  return { server: session.server, version: session.version, ...(await readIdentity(session)) };
}

/** What is to be compared by this call. A table that cannot be is booked as that, and so is what was compared before. */
async function planTasks(source: Session, roster: readonly RosterTable[], work: Work): Promise<Task[]> {
  const { accounts, unfinished, recoded } = work;
  const tasks: Task[] = [];
  const anew: Division[] = [];
  for (const table of roster.filter(({ state }) => state !== 'dropped')) {
    const { plan, state, reason, obstacle, relid } = table;
    if (plan === null || state !== 'streaming') {
      accounts.refuse(table, reason ?? obstacle?.message ?? `it is ${state}`);
      continue;
    }
    await undecided(table, accounts, async () => {
      const since = work.since.get(relid) ?? '';
      const basis = basisOf(table, since, recoded);
      const size = await again(() => source.row<Size>(READ_SIZE, [relid]), work);
      const known = unfinished?.find(relid, basis);
      const division = known ?? (await divide(source, plan, { size, basis }, work));
      if (known === undefined) anew.push(division);
      const { all, ranges } = division;
      accounts.begin(table, plan.mode, { all, wanted: ranges.length });
      for (const { n, range, equal } of ranges) {
        if (equal !== null) accounts.addKnown(table, equal.result, equal.at);
        else tasks.push({ table, plan, range, n, division, since, bytes: size.bytes / all });
      }
    });
  }
  await unfinished?.add(anew);
  return tasks;
}

async function divide(
  source: Session,
  plan: TablePlan,
  { size, basis }: { readonly size: Size; readonly basis: string },
  work: Work,
): Promise<Division> {
  const { sample } = work;
  const ranges = plan.mode === 'row' ? [EVERYTHING] : await again(() => planRanges(source, plan, size), work);
  const chosen = sample < 1 ? chooseSample(ranges, sample) : ranges;
  return divisionInto(chosen, { relid: plan.relid, basis, all: ranges.length });
}

/** What concerns the table alone leaves that table undecided. */
async function undecided(table: TableName, accounts: Accounts, body: () => Promise<void>): Promise<void> {
  try {
    await concerning(tableLabel(table), body);
  } catch (error) {
    if (!(error instanceof IbexError) || (error.table === undefined && !isKind(error, 'lock'))) throw error;
    accounts.refuse(table, error.message);
  }
}

interface Sessions {
  readonly source: Session;
  readonly target: Session;
}

interface Work extends VerifyOptions {
  readonly recoded: boolean;
  readonly accounts: Accounts;
  readonly unfinished: Unfinished | null;
  /** By table: since when it is in step, as of before it was planned. */
  readonly since: ReadonlyMap<number, string>;
}

/** Several jobs, each with a session of its own on either side. The first error ends them all. */
async function workOff(tasks: readonly Task[], work: Work): Promise<void> {
  const { jobs, bytesPerSecond, onProgress } = work;
  const limit = bytesPerSecond === null ? null : new RateLimit(bytesPerSecond);
  const all = tasks.reduce((sum, { bytes }) => sum + bytes, 0);
  const progress = { next: 0, done: 0, bytes: 0 };
  const stop = new AbortController();
  const signal = AbortSignal.any([work.signal, stop.signal]);
  const job = async () => {
    await using source = await work.open('source');
    await using target = await work.open('target');
    await setUp(source);
    await setUp(target);
    for (let task = tasks[progress.next++]; task !== undefined; task = tasks[progress.next++]) {
      signal.throwIfAborted();
      await sleep(limit?.reserve(task.bytes) ?? 0, undefined, { signal });
      await compareTask(task, { source, target }, { ...work, signal });
      progress.done++;
      progress.bytes += task.bytes;
      onProgress({
        ranges: { done: progress.done, all: tasks.length },
        bytes: { done: progress.bytes, all },
      });
    }
  };
  const running = Array.from({ length: Math.min(jobs, tasks.length) }, () =>
    job().catch((error) => {
      stop.abort(error);
      throw error;
    }),
  );
  const ended = await Promise.allSettled(running);
  work.signal.throwIfAborted();
  const failed = ended.find((one) => one.status === 'rejected');
  if (failed !== undefined) throw stop.signal.aborted ? stop.signal.reason : failed.reason;
}

function compareTask(task: Task, sessions: Sessions, work: Work): Promise<void> {
  const { table, plan, range, division, n } = task;
  const { recoded, accounts, wishes } = work;
  const reading: Reading = {
    ...sessions,
    sync: wishes.name,
    plan,
    here: { side: 'source', plan, recoded },
    there: { side: 'target', plan, recoded },
  };
  const compare = () =>
    plan.mode === 'row' ? compareKeyless(reading, work) : compareRange(reading, range, work);
  return undecided(table, accounts, async () => {
    const result = await again(compare, work);
    accounts.add(table, result);
    const { since } = await readStanding(reading);
    if (work.unfinished !== null && isEqual(result) && since === task.since)
      await keepEqual(sessions.target, division.id, n, result);
  });
}

function isEqual({ counts }: RangeResult): boolean {
  return Object.keys(counts).length === 0;
}

const RETRY_MS = 200;

/** What others have locked for the moment, and what a server ended in favour of others, is tried again for a while. */
async function again<T>(work: () => Promise<T>, { settleMs, signal }: Patience): Promise<T> {
  const deadline = Date.now() + settleMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const passes = isKind(error, 'lock') || isKind(error, 'transient');
      if (!passes || Date.now() >= deadline) throw error;
      await sleep(RETRY_MS * (0.5 + Math.random()), undefined, { signal });
    }
  }
}
