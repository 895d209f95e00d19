/**
 * What `ibex doctor` finds: the closed list of what it looks at, each with why it matters, and the verdict.
 * Pure. Neighbours: the probes beside this file, which find; text.ts, which prints.
 */
import { IbexError } from '../../core/errors.ts';

/** `error`: something will fail. `warning`: something may, or is otherwise than people expect. `info`: good to know. */
export type Severity = 'error' | 'warning' | 'info';

/** Where a finding lies; `app` is the application's own connection. */
export type Place = 'source' | 'target' | 'both' | 'app';

/** Everything that is looked at, with why it matters. docs/doctor.md has an example of each. */
export const CHECKS = {
  requirement: 'Setup refuses to begin as long as it is so.',
  table: 'Setup refuses the table, or `ibex run` holds it and goes on with the others.',
  'no-key':
    'Its rows are told apart by all of their columns, and found on the target by reading all of the table.',
  rehearsal: 'A sync does just that; here it was tried on a table made for it, and rolled back.',
  capture: 'It decides how changes are noted, and what that costs the source.',
  replica:
    'It decides whether triggers, rules and foreign keys of the target have to be set aside one by one.',
  'row-security': 'Ibex never reads past rows that a policy hides: it stops with an error.',
  truncate: 'A TRUNCATE on the source, or a table that is copied again, holds the table.',
  'foreign-key':
    'The other table is not carried: rows may lack their parents, or a DELETE may reach further than here.',
  'set-aside': 'What it does was done on the source already; teardown puts it back.',
  guard: 'What others write on the target would not be noticed.',
  sequence: 'After the move the application would draw values that were handed out before.',
  grant: 'After the move the application is refused there what it may do here.',
  'shared-sequence': 'Rows that both sides insert meet under one key, and one of them goes.',
  extension: 'Types, functions and indexes that need it cannot be created there.',
  collation: 'Text sorts otherwise there: ORDER BY, ranges and what counts as upper and lower case change.',
  encoding: 'Text is converted on the way; a row with a character that the target lacks is held.',
  setting:
    'Ibex sets its own; the application finds other meanings or another look of values after the move.',
  'left-behind': 'It is in no table that a sync carries.',
  version: 'What the application uses may be missing or different there.',
  tls: 'Who listens in on an unverified way can read all rows, and change them.',
  pooler: 'Ibex needs a session of its own to the server, with its settings, temporary tables and locks.',
  time: 'Each batch costs a few round trips; how old changes are is told by clocks, and nothing else is.',
  'time-outs': 'Ibex switches them off for its own sessions, which was tried.',
  connections: 'A sync that gets no connection waits, and so may the application.',
  size: 'It tells how long the copy of existing rows takes at least.',
  changes: 'Changes are noted on the source and stay there while the target does not take them.',
  disk: 'A target that runs out of disk takes nothing more.',
  provider: 'What it allows and what it does not is known from its documentation; what is above was tried.',
  'app-database': 'Changes are captured in the source database, and nowhere else.',
  'app-role': 'What its role or its settings switch off does not happen on either side.',
  'app-pooler': 'What is switched at the cutover is where the pooler leads, or the URL of the application.',
  'not-examined': 'Nothing is known about it; it may be as it should be or not.',
} as const satisfies Record<string, string>;

export type Check = keyof typeof CHECKS;

export interface Finding {
  readonly severity: Severity;
  readonly check: Check;
  readonly side: Place;
  /** One sentence: what was found. */
  readonly what: string;
  /** What to do, with the statement or command where there is one; null when there is nothing to do. */
  readonly remedy: string | null;
}

/** An error that somebody would meet later, as a finding. */
export function errorFinding(check: Check, side: Place, { message, hint }: IbexError): Finding {
  return { severity: 'error', check, side, what: message, remedy: hint };
}

export function info(check: Check, side: Place, what: string): Finding {
  return { severity: 'info', check, side, what, remedy: null };
}

export function warning(check: Check, side: Place, what: string, remedy: string): Finding {
  return { severity: 'warning', check, side, what, remedy };
}

/** What ends the whole examination: a side that cannot be reached. Everything else is a finding. */
export function endsAll(error: unknown): boolean {
  const ending: readonly string[] = [
    'connection',
    'authentication',
    'unknown_database',
    'config',
    'internal',
  ];
  return !(error instanceof IbexError) || ending.includes(error.kind);
}

/** Of what is wrong alike with more than this many, one finding tells. */
export const FEW = 5;

/** The first few names, and how many more there are. */
export function someOf(names: readonly string[]): string {
  const shown = names.slice(0, FEW).join(', ');
  return names.length > FEW ? `${shown} and ${names.length - FEW} more` : shown;
}

/** A probe that could not be made. */
export function notExamined(side: Place, subject: string, { message, hint }: IbexError): Finding {
  return warning('not-examined', side, `${subject} could not be looked at: ${message}`, hint);
}

const ORDER: readonly Severity[] = ['error', 'warning', 'info'];

/** The worst first, otherwise in the order in which they were found. */
export function bySeverity(findings: readonly Finding[]): Finding[] {
  return [...findings].sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
}
