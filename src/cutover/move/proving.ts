/** Shows that the side that becomes live has everything: drained to a proven zero, sequences ahead, rows compared. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readRecord } from '../../apply/state.ts';
import { readDrift, readSnapshot } from '../../capture/trigger/registry.ts';
import type { SyncConfig } from '../../config/syncs.ts';
import { IbexError } from '../../core/errors.ts';
import { tableLabel } from '../../core/plan.ts';
import { covers } from '../../core/position.ts';
import { faultText, SequenceCarrier } from '../../engine/sequences.ts';
import { readDaemon, readStatus } from '../../observe/status.ts';
import { waitForTarget } from '../../observe/wait.ts';
import { Session } from '../../postgres/session.ts';
import { recordVerdict } from '../../verify/record.ts';
import { reportText, type VerifyReport } from '../../verify/report.ts';
import { verify } from '../../verify/verify.ts';
import { requireFence } from './fencing.ts';
import type { Move } from './move.ts';
import { tablesOf } from './preparing.ts';

const LOOK_MS = 20;
const LOCKED_MS = 10_000;
/** So much of the tables is compared while the application waits; of larger ones a sample as large. */
const COMPARED_BYTES = 256 * 1024 * 1024;

/** Waits until the checkpoint covers everything that was committed before the last writer ended. */
export async function drain(move: Move) {
  const { fence, applied } = await awaitEverything(move);
  await requireNothingMissing(move);
  return {
    found: { fence, applied },
    text: `the checkpoint ${applied} covers ${fence}, as of which nobody writes any more`,
  };
}

/** Waits until the checkpoint covers everything that is committed by now. */
export async function awaitEverything({ lane, old, fresh, timeoutMs, signal }: Move) {
  const fence = await readSnapshot(old);
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const started = (await readRecord(fresh, lane.name))?.started ?? null;
    if (started !== null && covers(started, fence)) return { fence, applied: started };
    const daemon = await readDaemon(fresh, lane.name);
    if (daemon === null) throw new IbexError('refused', 'the daemon is gone: nobody carries what is left');
    if (Date.now() > deadline)
      throw new IbexError('refused', `after ${timeoutMs / 1000} s the target does not have everything yet`);
    await sleep(LOOK_MS, undefined, { signal });
  }
}

/** The same asked of the deltas themselves. */
async function requireNothingMissing({ lane, old, fresh, signal }: Move): Promise<void> {
  const wish = { sync: lane.name, filter: () => true, timeoutMs: 0, signal };
  const { done, missing } = await waitForTarget(old, fresh, wish);
  if (done) return;
  const names = missing.map(({ table, reason }) => `${table}: ${reason}`).join(', ');
  throw new IbexError('refused', `the target does not have everything: ${names}`);
}

export async function carrySequences(move: Move) {
  const { old, fresh, signal } = move;
  const tables = (await tablesOf(move)).map((table) => ({ source: table, target: table }));
  const limits = { deadline: Date.now() + LOCKED_MS, signal };
  const { carried, faults, locked } = await new SequenceCarrier().carry(old, fresh, tables, limits);
  const behind = [...faults.map(faultText), ...locked.map((one) => `sequence ${one} is locked by others`)];
  if (behind.length > 0) throw new IbexError('refused', behind.join('; '));
  return { found: { sequences: carried.length }, text: `${carried.length} sequences are ahead` };
}

/** Compares all rows, or a sample where that would take long, and looks once more at all that was proven. */
export async function check(move: Move, mark: string) {
  const { found, text } = await compareShare(move);
  const account = await requireAccount(move, mark);
  return { found: { ...found, pending: 0, account }, text };
}

/**
 * Compares as much beside the application. Changes that are in flight, and numbers drawn meanwhile, are not waited for:
 * behind a fence there are none. Errors: `refused` if a row differs.
 */
export async function compareBeside(move: Move) {
  const report = await compare(move, await shareToCompare(move), 0);
  const wrong = report.tables.filter(({ verdict }) => verdict === 'different').map(({ table }) => table);
  if (wrong.length > 0) {
    throw new IbexError('refused', `rows of ${wrong.join(', ')} differ`, {
      hint: 'See `ibex verify`, and `ibex verify --repair`.',
    });
  }
  const rows = rowsOf(report);
  return { found: { rows }, text: `${report.tables.length} tables, ${rows} rows: none differs` };
}

const rowsOf = ({ tables }: VerifyReport) => tables.reduce((sum, { source }) => sum + source.rows, 0);

async function compareShare(move: Move) {
  const sample = await shareToCompare(move);
  const report = await compare(move, sample);
  await recordVerdict(move.fresh, report);
  requireEqual(report);
  const rows = rowsOf(report);
  const verify = { verdict: report.verdict, tables: report.tables.length, rows, sample };
  return { found: { verify }, text: lastLine(reportText(report)) };
}

/** Errors: `refused` unless both fences stand, nothing waits, and what was captured is accounted for. */
export async function requireAccount(move: Move, mark: string) {
  const { lane, next, old, fresh } = move;
  await requireFence(old, lane.name, mark);
  await requireFence(fresh, next.name, null);
  const { tables } = await readStatus(old, fresh, lane.name, () => true);
  const waiting = tables.filter(({ pending, held }) => pending + held > 0).map(({ table }) => table);
  if (waiting.length > 0) throw new IbexError('refused', `changes of ${waiting.join(', ')} are not applied`);
  // What a TRUNCATE or VACUUM FULL of a moment before left is another file, of which the daemon has not heard yet.
  const drift = (await readDrift(old, lane.name)).find(
    ({ dropped, shape, armour, partitions, missed }) =>
      dropped || shape || armour || partitions || missed !== null,
  );
  if (drift !== undefined)
    throw new IbexError('refused', `${tableLabel(drift)} was altered while the application was kept out`);
  const captured = tables.reduce((sum, one) => sum + one.captured, 0);
  const accounted = tables.reduce((sum, one) => sum + one.applied + one.coalesced + one.resolved, 0);
  if (captured !== accounted)
    throw new IbexError('refused', `${captured} changes were captured and ${accounted} are accounted for`);
  return { captured, accounted };
}

async function shareToCompare({ lane, old }: Move): Promise<number> {
  const { bytes } = await old.row<{ bytes: number }>(
    `select coalesce(sum(pg_table_size(m)), 0)::float8 as bytes
       from ibex.source_table t cross join lateral ibex.members(t.relid) m where t.sync = $1`,
    [lane.name],
  );
  return bytes <= COMPARED_BYTES ? 1 : COMPARED_BYTES / bytes;
}

/** A full comparison before the fence, when there is none of late. */
export async function compareAll(move: Move) {
  const report = await compare(move, 1);
  await recordVerdict(move.fresh, report);
  requireEqual(report);
  return { found: { verdict: report.verdict }, text: lastLine(reportText(report)) };
}

async function compare(move: Move, sample: number, settleMs = move.timeoutMs): Promise<VerifyReport> {
  const { lane, old, fresh, jobs, signal } = move;
  return verify(old, fresh, {
    wishes: lane,
    filter: () => true,
    some: false,
    sample,
    repair: false,
    jobs,
    bytesPerSecond: null,
    settleMs,
    signal,
    isRunning: async () => (await readDaemon(fresh, lane.name)) !== null,
    open: (side) => openSession(lane, side, 'verify'),
    onProgress: () => undefined,
    // What somebody had found equal before says nothing of now.
    keeping: null,
  });
}

export async function openSession(
  lane: SyncConfig,
  side: 'source' | 'target',
  part: string,
): Promise<Session> {
  return Session.open({ url: await lane[side].resolveUrl(), name: `ibex:${lane.name}:${part}` });
}

function requireEqual(report: VerifyReport): void {
  if (report.verdict === 'equal') return;
  throw new IbexError(
    'refused',
    `the comparison came to ${report.verdict}: ${reportText(report).replaceAll('\n', '; ')}`,
    {
      hint: 'See `ibex verify`, and `ibex verify --repair`.',
    },
  );
}

function lastLine(text: string): string {
  return text.split('\n').at(-1) ?? '';
}
