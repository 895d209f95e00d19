/**
 * What the phases of a move work on. A cutover and a rollback are one procedure: the live side is left, the other one
 * becomes live, and the two lanes of the sync change places.
 */
import type { Side } from '../../apply/live.ts';
import type { Config } from '../../config/load.ts';
import type { SyncConfig } from '../../config/syncs.ts';
import type { IbexError } from '../../core/errors.ts';
import type { Session } from '../../postgres/session.ts';

/** By name: a URL, if it begins with http:// or https://, else a command. */
export type Hooks = Config['hooks'];

export type HookName = keyof Hooks;

export interface MoveOptions {
  /** As it is configured. */
  readonly sync: SyncConfig;
  /** The side that is to be live. */
  readonly to: Side;
  /** Everything short of the fence. */
  readonly dryRun: boolean;
  /** How long open transactions of the application are waited for once nobody can begin to write any more. */
  readonly graceMs: number;
  /** End the sessions that are still in one after that; otherwise the move is given up. */
  readonly terminate: boolean;
  /** Do without a full comparison before the fence. */
  readonly unverified: boolean;
  readonly hooks: Hooks;
  readonly jobs: number;
  readonly lockTimeoutMs: number;
  /** How long tables that others have locked are tried again. */
  readonly armTimeoutMs: number;
  /** How long the daemon, a hook and rows that keep changing are waited for. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  /** Told of each thing that a person should see as it happens. */
  readonly say: (event: MoveEvent) => void;
}

export interface MoveEvent {
  readonly phase: Phase | 'undo';
  /** Null: it began. Otherwise how long it took. */
  readonly seconds: number | null;
  /** What came of it, or what is to be known before it. */
  readonly text: string;
}

export type Phase =
  | 'preflight'
  | 'verify'
  | 'prepare'
  | 'fence'
  | 'drain'
  | 'sequences'
  | 'check'
  | 'switch'
  | 'reverse'
  | 'lift';

export interface Move extends MoveOptions {
  readonly run: number;
  /** The lane that runs before the switch: from the side that is left to the one that becomes live. */
  readonly lane: SyncConfig;
  /** The one that runs after it, the other way. */
  readonly next: SyncConfig;
  /** The side that is left. */
  readonly old: Session;
  /** The side that becomes live. */
  readonly fresh: Session;
  /** On the configured target, whichever side is live: the journal, and the lock that keeps a second move away. */
  readonly record: Session;
}

/** The nodes whose changes pass a fence: those that our own lanes carry. */
export function nodesOf({ sync }: Pick<Move, 'sync'>): string[] {
  return [sync.source.name, sync.target.name];
}

export interface MoveResult {
  /** - `done`: the side is live. - `rehearsed`: it could be. - `refused`, `undone`: nothing has changed. - `unfinished`: it is
   * live, and something is left to do, which the same call goes on with. */
  readonly outcome: 'done' | 'rehearsed' | 'refused' | 'undone' | 'unfinished';
  readonly live: Side;
  /** Why it was refused, given up, or is not finished. */
  readonly reasons: readonly string[];
  readonly error: IbexError | null;
  readonly proof: Partial<Proof>;
}

/** What the phases found, each its part. */
export interface Proof {
  /** The snapshot of the old side when the last writer had ended: nothing was committed there since. */
  readonly fence: string;
  /** The checkpoint that covers it. */
  readonly applied: string;
  readonly pending: number;
  /** Verdict, how many tables and rows, and of which share of them. */
  readonly verify: {
    readonly verdict: string;
    readonly tables: number;
    readonly rows: number;
    readonly sample: number;
  };
  readonly sequences: number;
  /** How many captured changes the applied and coalesced ones account for, and the held ones. */
  readonly account: { readonly captured: number; readonly accounted: number };
  /** When the checkpoint of the way back was placed; it has moved since. */
  readonly placed: string;
  /** From the raising of the one fence to the lifting of the other. */
  readonly pauseSeconds: number;
}
