/**
 * The one error class and the closed list of what can go wrong.
 *
 * Each kind says whether trying again helps, which exit code a command ends with, and what the person in
 * front of it can do. `postgres/errors.ts` is the only place that reads SQLSTATEs, `cli/` the only one that
 * turns an error into text. The idea of one kind -> policy table is taken from supabase/etl.
 */

/** How a failed action may be tried again: by itself after a pause, after a person acted, or never. */
export type Retry = 'timed' | 'manual' | 'never';

interface Policy {
  readonly retry: Retry;
  /** Exit code of a one-shot command: 1 the answer is no, 2 wrong usage, 3 could not do it. */
  readonly exit: 1 | 2 | 3;
  /** It may pass where all was well before (credentials that are being changed): who has run keeps trying. */
  readonly passes?: true;
  /** What to do, when the place that raised the error has nothing more precise to say. */
  readonly hint: string;
}

/** Every kind of error, with its policy. */
export const ERROR_KINDS = {
  /** An option, a setting or a combination of them is wrong. */
  config: {
    retry: 'never',
    exit: 2,
    passes: true,
    hint: 'Correct the setting; `ibex --help` lists them all.',
  },
  /** A table named by the user does not exist, or no table is left to work on. */
  unknown_table: { retry: 'never', exit: 2, hint: 'Check the name; patterns are case-sensitive.' },
  /** The server cannot be reached, or the connection broke. */
  connection: { retry: 'timed', exit: 3, hint: 'Check host, port, network and that the server is running.' },
  /** The server refuses the credentials. */
  authentication: {
    retry: 'never',
    exit: 3,
    passes: true,
    hint: 'Check user and password of the connection URL, and its sslmode.',
  },
  /** The database named in the URL does not exist. */
  unknown_database: {
    retry: 'never',
    exit: 3,
    passes: true,
    hint: 'Check the database name at the end of the URL.',
  },
  /** The role lacks a right. */
  privilege: {
    retry: 'never',
    exit: 3,
    passes: true,
    hint: 'Grant the right, or connect as the owner of the tables.',
  },
  /** The server is in recovery: a standby, on which nothing can be written and whose snapshots lie. */
  standby: { retry: 'never', exit: 3, passes: true, hint: 'Give the URL of the primary server.' },
  /** The server is of a kind that cannot be used: too old, behind a transaction pooler. */
  unsupported: { retry: 'never', exit: 3, hint: 'Connect to a primary server of PostgreSQL 12 or later.' },
  /** Source and target tables do not fit together. */
  schema_mismatch: {
    retry: 'manual',
    exit: 3,
    hint: 'Bring the target table in line with the source, then run again.',
  },
  /** A row breaks a constraint of the target that the source does not have, or has otherwise. */
  constraint: {
    retry: 'manual',
    exit: 3,
    hint: 'Compare the named row on both sides and remove what is in the way.',
  },
  /** Both sides changed a row, and the rule for it is to stop until a person decides. */
  conflict: {
    retry: 'timed',
    exit: 3,
    hint: 'Decide it: `ibex conflicts list --state aborted`, then `ibex conflicts resolve`; or set another strategy.',
  },
  /** The target took fewer rows than it was given and raised no error: a trigger or rule swallowed them. */
  swallowed: { retry: 'manual', exit: 3, hint: 'Look for triggers and rules on the target table.' },
  /** A lock could not be had in time. */
  lock: { retry: 'timed', exit: 3, hint: 'End or wait for the blocking session, then run again.' },
  /** Serialisation failure, deadlock, cancelled statement, server restarting: the next try may pass. */
  transient: { retry: 'timed', exit: 3, hint: 'Try again.' },
  /** The server failed at its own work and calls it an internal error. */
  server_fault: {
    retry: 'timed',
    exit: 3,
    hint: "Look into the server's log; it may be a fault in PostgreSQL.",
  },
  /** The server is out of disk, memory or connections. */
  resources: { retry: 'timed', exit: 3, hint: 'Free disk space, memory or connections on the named server.' },
  /** The lane is held by another live daemon, or was taken over by one. */
  taken: { retry: 'never', exit: 3, hint: 'Stop the other daemon, or run this one for another sync.' },
  /** A command or URL of the user's, run at a certain point of a cutover, failed. */
  hook: { retry: 'manual', exit: 1, hint: 'Run the hook by itself to see why, then try again.' },
  /** A cutover or rollback cannot be made as things are, or was given up; the reason says what stands against it. */
  refused: { retry: 'manual', exit: 1, hint: 'Mend what is named, then run the command again.' },
  /** The other side of the sync is live now: the lane of the other direction runs. */
  turned: {
    retry: 'never',
    exit: 3,
    hint: 'Nothing to do: the daemon goes on with the lane of the other direction.',
  },
  /** The batch does not start where the checkpoint stands; the reader must rewind to the checkpoint. */
  gap: { retry: 'timed', exit: 3, hint: 'Nothing to do: reading starts again at the checkpoint.' },
  /** The source moved under a batch that was being read (TRUNCATE, rewrite, DDL); the batch is thrown away. */
  source_moved: { retry: 'timed', exit: 3, hint: 'Nothing to do: the batch is read again.' },
  /** A change of a table cannot be carried exactly row by row; copying it anew can. */
  recopy: { retry: 'timed', exit: 3, hint: 'Nothing to do: the table is copied again.' },
  /** The queue lost what it was given (restart without persistence, FLUSHALL, eviction). */
  queue_lost: { retry: 'timed', exit: 3, hint: 'Nothing to do: reading starts again at the checkpoint.' },
  /** The queue's server refuses more data, or is set up so that it may drop it. */
  queue: { retry: 'timed', exit: 3, hint: 'Check that Redis is up and set to maxmemory-policy noeviction.' },
  /** The source is not the database, or not the history, that the checkpoint belongs to. */
  identity: {
    retry: 'never',
    exit: 3,
    hint: 'Point the sync at its own source, or start anew: `ibex teardown --yes`, then `ibex run --existing replace`.',
  },
  /** Not set up yet, or only half. */
  not_set_up: { retry: 'manual', exit: 3, hint: 'Run `ibex setup` first.' },
  /** A program that Ibex starts itself (demo, tests, benchmarks) is missing or failed. */
  tool: { retry: 'never', exit: 3, hint: 'Install the named program and put it on the PATH.' },
  /** A state that the code holds impossible. */
  internal: { retry: 'never', exit: 3, hint: 'This is a fault in Ibex; please report it with the log.' },
} as const satisfies Record<string, Policy>;

export type ErrorKind = keyof typeof ERROR_KINDS;

export interface ErrorDetails {
  /** What to do about it, if more precise than the kind's own hint. */
  readonly hint?: string;
  readonly cause?: unknown;
  /** The table concerned, as `schema.name`: such an error holds that table and lets the others go on. */
  readonly table?: string;
}

/** Every error that Ibex raises itself. Messages never contain passwords; of rows, what names the one that is meant. */
export class IbexError extends Error {
  readonly kind: ErrorKind;
  readonly hint: string;
  readonly table: string | undefined;

  constructor(kind: ErrorKind, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'IbexError';
    this.kind = kind;
    this.hint = details.hint ?? ERROR_KINDS[kind].hint;
    this.table = details.table;
  }

  get retry(): Retry {
    return ERROR_KINDS[this.kind].retry;
  }

  /** Whether whoever ran before tries again, although it would have ended at its start. */
  get passes(): boolean {
    const policy: Policy = ERROR_KINDS[this.kind];
    return policy.passes === true;
  }

  get exitCode(): 1 | 2 | 3 {
    return ERROR_KINDS[this.kind].exit;
  }
}

/** Kinds that say something about a table's rows or shape when a statement on that table raises them. */
const OF_A_TABLE: readonly ErrorKind[] = [
  'constraint',
  'schema_mismatch',
  'privilege',
  'swallowed',
  'server_fault',
];

/** The error with the table's name, if it is of a kind that concerns the table the statement was about. */
export function concerningTable(error: unknown, label: string): unknown {
  if (!(error instanceof IbexError) || error.table !== undefined || !OF_A_TABLE.includes(error.kind))
    return error;
  const message = error.message.includes(label) ? error.message : `${label}: ${error.message}`;
  return new IbexError(error.kind, message, { hint: error.hint, cause: error.cause, table: label });
}

/** Names the table in whatever concerns its rows or its shape, so that it alone is held. */
export async function concerning<T>(label: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw concerningTable(error, label);
  }
}

/** The target has no table of that name. */
export function missingOnTarget(label: string): IbexError {
  return new IbexError('schema_mismatch', `table ${label} does not exist on the target`, {
    table: label,
    hint: `Create it there (\`ibex schema copy --tables '${label}'\`), or leave it out with --exclude '${label}'.`,
  });
}

/** True for an error of the given kind. */
export function isKind(error: unknown, kind: ErrorKind): error is IbexError {
  return error instanceof IbexError && error.kind === kind;
}

/**
 * Whether one table has to wait for it to pass, while all others go on: what concerns that table, and what a server lacks
 * for the moment.
 */
export function isOfOneTable(error: IbexError): boolean {
  return error.table !== undefined || error.kind === 'lock' || error.kind === 'resources';
}
