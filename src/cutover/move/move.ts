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

/** The daemon is in a hurry for as long as the longest phase may take, and no longer if we die. */
export const HURRY_MS = 600_000;

export interface MoveOptions {
  /** As it is configured. */
  readonly sync: SyncConfig;
  /** The side that is to be live. */
  readonly to: Side;
  /** Everything short of the fence. No hook is run. */
  readonly dryRun: boolean;
  /** The URL of an empty database on which the fence is tried out before a dry run ends; null: it is not. */
  readonly scratch: string | null;
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
  | 'scratch'
  | 'writers'
  | 'fence'
  | 'drain'
  | 'sequences'
  | 'check'
  | 'switch'
  | 'reverse'
  | 'lift';

/** What it takes to bring a move to an end, one way or the other. */
export interface Ending extends Pick<MoveOptions, 'sync' | 'to' | 'hooks' | 'timeoutMs' | 'signal' | 'say'> {
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

export interface Move extends MoveOptions, Ending {}

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
  /** What was tried out on a scratch database, and how long the application would wait. */
  readonly rehearsal?: Rehearsal;
}

export interface Rehearsal {
  /** Writes that the fence kept off, of those tried: every kind on every relation in every way. */
  readonly held: number;
  /** The ways in which they were tried: roles, and settings of theirs. */
  readonly ways: readonly string[];
  /** Roles that may write on the live side, and that could not be taken on on the scratch database. */
  readonly untried: readonly string[];
  /** From the fence to the comparison, as long as the same took now: that and the switch come on top. */
  readonly pauseSeconds: number;
  /** The comparison, beside the application: it looks again at rows that change meanwhile, of which a fence leaves none. */
  readonly checkSeconds: number;
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
