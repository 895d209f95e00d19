/** What a running sync is given, and what it comes to. */
import type { Logger } from 'pino';
import type { RateLimit } from '../backfill/rate-limit.ts';
import type { Existing } from '../backfill/starting.ts';
import type { SyncConfig } from '../config/syncs.ts';
import type { TableName } from '../core/plan.ts';
import type { BatchQueue, ChunkQueue } from '../core/ports.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { DiskWatch } from './disk-watch.ts';
import { PAUSE_MAX_MS } from './retrying.ts';
import type { Direction } from './turn.ts';

/**
 * When a run ends by itself:
 * - `forever`: never;
 * - `caught-up`: everything committed on the source before the start is on the target;
 * - `copied`: every table that it covers is copied and in step.
 */
export type Until =
  | { readonly kind: 'forever' }
  | { readonly kind: 'caught-up' }
  | { readonly kind: 'copied'; readonly covers: (table: TableName) => boolean };

export interface RunOutcome {
  /** Tables that were left behind because they are held. */
  readonly held: readonly { readonly table: string; readonly reason: string }[];
  /** Syncs that are paused, each with since when, if that is why it ended before it was done. */
  readonly paused: readonly { readonly sync: string; readonly since: Date }[];
}

/** Of a run that was stopped, or had nothing to leave behind. */
export const NOTHING_LEFT: RunOutcome = { held: [], paused: [] };

export interface CopyingOptions {
  /** How many chunks this process copies at once. */
  readonly jobs: number;
  /** How many sessions the sync may have on the source, over all processes. */
  readonly maxSourceConnections: number;
  readonly existing: Existing;
}

/** For how long what failed rests before it is tried again, in milliseconds. */
export interface Pauses {
  /** A sync that failed as a whole, at the most. */
  readonly longest: number;
  /** A held table: the first time, and at the most, as each further try waits twice as long as the one before. */
  readonly heldFirst: number;
  readonly heldLongest: number;
  /** A table that could not be copied. */
  readonly copy: number;
  /** A cutover whose process is gone: a person, or whoever started it, may go on with it as long. */
  readonly abandonedMove: number;
}

export const PAUSES: Pauses = {
  longest: PAUSE_MAX_MS,
  heldFirst: 15_000,
  heldLongest: 600_000,
  copy: 15_000,
  abandonedMove: 10_000,
};

export interface SyncEngineOptions {
  readonly sync: SyncConfig;
  readonly direction: Direction;
  readonly createQueue: () => Promise<BatchQueue>;
  readonly createChunkQueue: () => Promise<ChunkQueue>;
  readonly copying: CopyingOptions;
  readonly spoolDirectory: string;
  readonly lockTimeoutMs: number;
  /** A table with more unread deltas than that is staged on the target piece by piece. */
  readonly stageAbove: number;
  /** Shared by everything that copies in this process; null: no limit. */
  readonly rateLimit: RateLimit | null;
  /** So many sessions of others may be active on the source before copying holds back; 0: it never does. */
  readonly busySessions: number;
  readonly pauses: Pauses;
  readonly until: Until;
  /**
   * Take in tables that the sync does not have yet. At most a daemon's first incarnation does: a table that appears
   * while it runs (a partition that was detached, a scratch table) is nobody's wish yet.
   */
  readonly adopt: boolean;
  /** Brings a cutover to its end whose process is gone. */
  readonly settleMove: (signal: AbortSignal) => Promise<void>;
  /** Keep trying from the start. Otherwise the first failure before anything ran ends it. */
  readonly patient: boolean;
  readonly log: Logger;
  readonly metrics: Metrics;
}

export interface IncarnationOptions extends SyncEngineOptions {
  readonly disk: DiskWatch;
  /** Whether a held table is to be tried again. */
  readonly isDue: (table: TableName) => boolean;
  /** Something about a table changed, by its label: if it is held, it is tried again at once. */
  readonly tryAgain: (table: string) => void;
}
