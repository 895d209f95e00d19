/**
 * Runs the real daemon inside the test process, between a pair of fresh databases, and waits for it the way
 * `ibex wait` does.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { Daemon } from '../../src/engine/daemon.ts';
import type { Pauses, RunOutcome, Until } from '../../src/engine/options.ts';
import { createLog } from '../../src/observe/log.ts';
import { readStatus, type SyncStatus } from '../../src/observe/status.ts';
import { waitForTarget } from '../../src/observe/wait.ts';
import { Session } from '../../src/postgres/session.ts';
import { OutOfPatience } from './patience.ts';
import { compareTables, type Databases } from './servers.ts';

export interface RunningSync {
  /** Ends the daemon cleanly; resolves to what it came to. */
  stop(): Promise<RunOutcome>;
  /** Settles when the daemon ends by itself; rejects with why. */
  readonly stopped: Promise<RunOutcome>;
  /** Waits until the target has everything committed so far; throws with what is missing. */
  caughtUp(timeoutMs?: number): Promise<void>;
  status(): Promise<SyncStatus>;
}

/**
 * A test waits for no pause longer than these. Each try of a held table throws a batch away, which a slow machine can
 * afford no more often than people's daemons do; but the pauses must not grow beyond what `waitFor` waits. What
 * becomes of a cutover that dies is said by the tests that have one.
 */
export const TEST_PAUSES: Pauses = {
  longest: 3_000,
  heldFirst: 15_000,
  heldLongest: 45_000,
  copy: 3_000,
  abandonedMove: 600_000,
};

export interface SyncOptions {
  readonly redis?: string;
  readonly tables?: string[];
  readonly until?: Until;
  readonly keyless?: 'carry' | 'refuse';
  /** More settings, by name as commander has them. */
  readonly flags?: Readonly<Record<string, string>>;
  /** Others than `TEST_PAUSES`. */
  readonly pauses?: Partial<Pauses>;
  /** The section `carry` of the sync in ibex.yaml. */
  readonly carry?: Record<string, CarryEntry>;
  /** The target is guarded, with this section `conflicts`. */
  readonly guard?: object;
  /** Takes the lines of the log, from `info` on. */
  readonly logTo?: (line: string) => void;
}

export interface CarryEntry {
  readonly columns?: readonly string[];
  readonly select?: Readonly<Record<string, string>>;
  readonly where?: string;
}

function configOf(databases: Databases, options: SyncOptions) {
  const { sourceUrl, targetUrl } = databases;
  const { carry, guard } = options;
  const more = carry ? { carry } : guard ? { guard: true, conflicts: guard } : undefined;
  const cwd = more === undefined ? tmpdir() : directoryWith(databases, more);
  const flags = {
    ...(more === undefined ? { source: sourceUrl, target: targetUrl } : {}),
    ...(options.redis === undefined ? {} : { redis: options.redis }),
    ...(options.tables === undefined ? {} : { tables: options.tables }),
    ...(options.keyless === undefined ? {} : { keyless: options.keyless }),
    ...options.flags,
    logLevel: process.env.TEST_LOG_LEVEL ?? 'error',
    logFormat: 'json',
  };
  try {
    return loadConfig({ flags, env: {}, cwd });
  } finally {
    if (cwd !== tmpdir()) rmSync(cwd, { recursive: true });
  }
}

/** With an ibex.yaml, of which JSON is a kind. */
export function directoryWith({ sourceUrl, targetUrl }: Databases, more: object): string {
  const directory = mkdtempSync(join(tmpdir(), 'ibex-carry-'));
  const file = {
    nodes: { source: sourceUrl, target: targetUrl },
    syncs: [{ name: 'main', from: 'source', to: 'target', ...more }],
  };
  writeFileSync(join(directory, 'ibex.yaml'), JSON.stringify(file, null, 2));
  return directory;
}

export function startSync(databases: Databases, options: SyncOptions = {}): RunningSync {
  const config = configOf(databases, options);
  const log =
    options.logTo === undefined
      ? createLog({ level: config.logLevel, format: config.logFormat })
      : pino({ level: 'info' }, { write: options.logTo });
  const stop = new AbortController();
  const until = options.until ?? { kind: 'forever' };
  const daemon = new Daemon({ config, log, until, pauses: { ...TEST_PAUSES, ...options.pauses } });
  const running = daemon.run(stop.signal);
  running.catch(() => undefined);
  return {
    stopped: running,
    async stop() {
      stop.abort();
      return running;
    },
    async caughtUp(timeoutMs = 120_000) {
      const waiting = waitUntilCaughtUp(databases, timeoutMs);
      waiting.catch(() => undefined);
      const ended = running.then(() => Promise.reject(new Error('the daemon ended')));
      await Promise.race([ended, waiting]);
    },
    status: () => readSyncStatus(databases),
  };
}

async function withSessions<T>(
  databases: Databases,
  work: (source: Session, target: Session) => Promise<T>,
): Promise<T> {
  await using source = await Session.open({ url: databases.sourceUrl, name: 'test' });
  await using target = await Session.open({ url: databases.targetUrl, name: 'test' });
  // Awaited here: the sessions are closed when this block is left.
  return await work(source, target);
}

export async function waitUntilCaughtUp(databases: Databases, timeoutMs: number): Promise<void> {
  const { signal } = new AbortController();
  const options = { sync: 'main', filter: () => true, timeoutMs, signal };
  const deadline = Date.now() + timeoutMs;
  const { missing } = await withSessions(databases, (source, target) =>
    waitForTarget(source, target, options),
  );
  if (missing.length === 0) return;
  const what = missing.map(({ table, reason }) => `${table} (${reason})`).join(', ');
  // It does not wait to the end where all that is missing is held.
  if (Date.now() >= deadline) throw new OutOfPatience(timeoutMs, `the target to catch up: ${what}`);
  throw new Error(`not caught up: ${what}`);
}

export function readSyncStatus(databases: Databases): Promise<SyncStatus> {
  return withSessions(databases, (source, target) => readStatus(source, target, 'main', () => true));
}

/** Waits until caught up, then expects both sides to be equal in every row, and the account of every table to add up. */
export async function expectEqual(
  databases: Databases,
  sync: RunningSync,
  timeoutMs?: number,
): Promise<void> {
  await sync.caughtUp(timeoutMs);
  expect(await compareTables(databases.source, databases.target)).toEqual([]);
  for (const table of (await sync.status()).tables) {
    expect(table.applied + table.coalesced + table.resolved + table.held, table.table).toBe(table.captured);
  }
}

/** Runs the same statements on both sides. */
export async function onBoth(databases: Databases, sql: string): Promise<void> {
  await databases.source.query(sql);
  await databases.target.query(sql);
}
