/**
 * Places in the path of a row at which a test can make this process die, freeze or lose a connection. For tests only:
 * nothing but the environment variable TEST_IBEX_FAILPOINTS switches them on, and without it passing one is a look at
 * an empty map.
 *
 * `TEST_IBEX_FAILPOINTS=before-commit:kill:3,after-read:lose:1`: each strikes once, when it is passed for the third or
 * the first time, and says so on stderr first, since a process that was killed tells nothing.
 */
import { IbexError } from './errors.ts';

/** Every seam, in the order in which a row comes by. */
export const FAILPOINTS = [
  /** The lane is taken, and nothing is carried under the new epoch yet. */
  'lane-taken',
  /** The rows of a chunk are written and booked; nothing is committed. */
  'chunk-written',
  /** Tables whose chunks are all in are told to join; not committed. */
  'during-hand-over',
  /** The same, committed, and the lane has not heard of it. */
  'after-hand-over',
  /** The rows of a batch are read, its snapshot is still open. */
  'after-read',
  /** The queue has the rows; that they are all of the batch it has not been told. */
  'before-publish',
  /** The batch may be committed from here on. */
  'after-publish',
  /** A piece of a large backlog is written and booked; not committed. */
  'piece-written',
  /** It is committed, and nobody has been told. */
  'piece-kept',
  /** The pieces of a large backlog are added to what its batch has brought; nothing is merged. */
  'backlog-gathered',
  /** All rows are in staging tables. */
  'staging-loaded',
  /** Rows, accounts and checkpoint are written. */
  'before-commit',
  /** They are committed, and nobody has been told. */
  'after-commit',
  /** What the target has is known, and the source has not been told that it may forget. */
  'before-acknowledge',
  /** A delta table that nobody needs was looked at, and emptied if nobody was in the way. */
  'during-forgetting',
  /** The triggers of one table are moved on to a fresh delta table, those of others are not. */
  'during-rotation',
] as const;

export type Failpoint = (typeof FAILPOINTS)[number];

/** The seams of a cutover: each phase as it has begun, and the two that lie inside of the switch. */
export const MOVE_FAILPOINTS = [
  'move-preflight',
  'move-prepare',
  'move-fence',
  'move-drain',
  'move-sequences',
  'move-check',
  'move-switch',
  /** The lane of the other direction has its place, and the old side is still the live one. */
  'move-placed',
  /** The new side is live, and nobody has been told. */
  'move-turned',
  'move-reverse',
  'move-lift',
] as const;

export type MoveFailpoint = (typeof MOVE_FAILPOINTS)[number];

/** - `kill`: as kill -9 does. - `freeze`: until somebody sends SIGCONT. - `lose`: as if a connection had broken. */
export const FAILURES = ['kill', 'freeze', 'lose'] as const;

export type Failure = (typeof FAILURES)[number];

const armed = new Map<string, { readonly failure: string; passesLeft: number }>(
  (process.env.TEST_IBEX_FAILPOINTS ?? '')
    .split(',')
    .map((one) => one.split(':'))
    .map(([name = '', failure = '', pass = '1']) => [name, { failure, passesLeft: Number(pass) }]),
);

/** Passes a seam. */
export function failpoint(name: Failpoint | MoveFailpoint): void {
  const one = armed.get(name);
  if (one === undefined || --one.passesLeft > 0) return;
  armed.delete(name);
  console.error(`failpoint ${name}: ${one.failure}`);
  if (one.failure === 'lose') throw new IbexError('connection', `failpoint ${name}: the connection is lost`);
  process.kill(process.pid, one.failure === 'kill' ? 'SIGKILL' : 'SIGSTOP');
}
