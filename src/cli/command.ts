/**
 * The frame around every command: options from the one schema, settings, log, signals, and errors turned into two
 * lines and an exit code. A command itself is argv -> call -> exit code.
 */
import { type Command, type CommanderError, Option } from 'commander';
import { readLive } from '../apply/live.ts';
import { type Config, loadConfig } from '../config/load.ts';
import { envOf, flagOf, listOptions, type OptionName } from '../config/options.ts';
import { laneOf, type SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import { matches, type TablePattern } from '../core/patterns.ts';
import type { TableName } from '../core/plan.ts';
import { createLog, type Logger } from '../observe/log.ts';
import { nameSources } from '../observe/stacks.ts';
import { Session } from '../postgres/session.ts';
import { readKnown } from '../setup/setup.ts';
import { requireMatches } from '../setup/tables.ts';

/** 0 yes or done, 1 the answer is no, 2 wrong usage or configuration, 3 could not do it. */
export type ExitCode = 0 | 1 | 2 | 3;

export interface Context {
  readonly config: Config;
  readonly log: Logger;
  /** Ends with SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** The command's own flags. */
  readonly flags: Record<string, unknown>;
  /** What was given beside the flags. */
  readonly args: readonly string[];
}

export interface CommandSpec {
  readonly name: string;
  readonly summary: string;
  /** What --help says beyond the summary. */
  readonly description: string;
  /** What the command is about, at least one of them. */
  readonly argument?: { readonly name: string; readonly summary: string };
  readonly options: readonly OptionName[];
  readonly own?: readonly Option[];
  /** Works with one of the two URLs. */
  readonly oneSided?: boolean;
  /** What a stop by signal exits with when it had to be cut short. Default: 3. */
  readonly stopCode?: ExitCode;
  readonly run: (context: Context) => Promise<ExitCode>;
}

const EVERYWHERE: readonly OptionName[] = ['source', 'target', 'config', 'sync', 'log_level', 'log_format'];

/** Adds a command to the program. */
export function addCommand(program: Command, spec: CommandSpec): void {
  const command = program.command(spec.name).summary(spec.summary).description(spec.description);
  const path = program.parent === null ? spec.name : `${program.name()} ${spec.name}`;
  command.exitOverride((error) => {
    throw Object.assign(error, { command: path });
  });
  if (spec.argument !== undefined) command.argument(`<${spec.argument.name}...>`, spec.argument.summary);
  const wanted = new Set<OptionName>([...EVERYWHERE, ...spec.options]);
  for (const { name, info } of listOptions().filter((option) => wanted.has(option.name))) {
    const argument = info.argument === undefined ? '' : ` <${info.argument}>`;
    const option = new Option(`${flagOf(name)}${argument}`, `${info.description} [${envOf(name)}]`);
    if (info.repeatable)
      option.argParser((value: string, before: string[] | undefined) => [...(before ?? []), value]);
    command.addOption(option);
  }
  for (const option of spec.own ?? []) command.addOption(option);
  command.action(async (...given: readonly unknown[]) => {
    const [args, flags] = spec.argument === undefined ? [[], given[0]] : given;
    process.exitCode = await runCommand(spec, flags as Context['flags'], args as Context['args']);
    // A connection that cannot be had or closed does not keep a command that is done.
    setTimeout(() => process.exit(), 1_000).unref();
  });
}

/** Adds commands that share their first word. */
export function addGroup(
  program: Command,
  group: { readonly name: string; readonly summary: string; readonly commands: readonly CommandSpec[] },
): void {
  const parent = program.command(group.name).summary(group.summary).description(group.summary);
  parent.exitOverride((error) => {
    throw Object.assign(error, { command: group.name });
  });
  for (const spec of group.commands) addCommand(parent, spec);
}

async function runCommand(
  spec: CommandSpec,
  flags: Context['flags'],
  args: Context['args'],
): Promise<ExitCode> {
  nameSources();
  let debug = false;
  try {
    const oneSided = spec.oneSided ?? false;
    const config = loadConfig({ flags, env: process.env, cwd: process.cwd(), oneSided });
    debug = config.logLevel === 'debug';
    const log = createLog({ level: config.logLevel, format: config.logFormat });
    for (const warning of config.warnings) log.warn(warning);
    return await spec.run({ config, log, signal: stopSignal(spec.stopCode ?? 3), flags, args });
  } catch (error) {
    return report(error, debug);
  }
}

/** After this long a stop does not wait any more for a server that does not answer. Nothing is lost by it. */
const STOP_AFTER_MS = 7_000;

/** Aborted by the first SIGINT or SIGTERM. A second one ends the process at once. */
export function stopSignal(exitCode: ExitCode): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(3);
      setTimeout(() => process.exit(exitCode), STOP_AFTER_MS).unref();
      controller.abort(new Error(name));
    });
  }
  return controller.signal;
}

/** What commander finds wrong with the arguments. A value that stands in a wrong place may hold a password. */
export function usageError(error: CommanderError & { command?: string }): IbexError {
  const [first = '', suggestion] = error.message.split('\n');
  const what = first.replace(/^error: /, '').replace(/(--[\w-]+)=.*'/, "$1'");
  const safe = /:\/\/|@|=/.test(what) ? what.replace(/'.*'/, '(not shown: it may hold a password)') : what;
  const help = `\`ibex ${error.command === undefined ? '' : `${error.command} `}--help\` lists what there is.`;
  const meant = suggestion === undefined ? '' : `${suggestion.replace(/^\((.*)\)$/, '$1')} `;
  return new IbexError('config', safe, { hint: `${meant}${help}` });
}

/** Prints an error as two lines, what and what to do; the stack only at log level debug. */
export function report(error: unknown, debug: boolean): ExitCode {
  const known =
    error instanceof IbexError
      ? error
      : new IbexError('internal', String((error as Error)?.message ?? error));
  writeError(known);
  if (debug) process.stderr.write(`${(error as Error)?.stack}\n`);
  return known.exitCode;
}

/** The two lines of an error. What servers say may have lines of its own. */
export function writeError({ message, hint }: IbexError): void {
  const line = (text: string) => text.trim().replace(/\s*\n\s*/g, ' ');
  process.stderr.write(`error: ${line(message)}\n  ${line(hint)}\n`);
}

/** The one sync that a one-shot command works on; of one between two nodes the lane from the first to the second. */
export function onlySync(config: Config): SyncConfig {
  const [sync, second, third] = config.syncs;
  const isPair = third === undefined && second?.name === sync?.rivalry?.counterpart;
  if (sync !== undefined && (second === undefined || isPair)) return sync;
  const names = config.syncs.map(({ name }) => name).join(', ');
  throw new IbexError('config', `the file has several syncs (${names}); pick one with --sync`);
}

/** Opens a session for a one-shot command. */
export async function openSession(
  sync: SyncConfig,
  side: 'source' | 'target',
  command: string,
): Promise<Session> {
  return Session.open({ url: await sync[side].resolveUrl(), name: `ibex:${sync.name}:${command}` });
}

/**
 * Opens both sides, runs the body, closes both. The body is given the lane that runs: the sync as it is configured, with its
 * source and target, or turned round since a cutover.
 */
export async function withBothSides<T>(
  sync: SyncConfig,
  command: string,
  body: (source: Session, target: Session, lane: SyncConfig) => Promise<T>,
): Promise<T> {
  const [source, target] = await openBothSides(sync, command);
  try {
    const { side } = await readLive(target, sync.name);
    const lane = laneOf(sync, side);
    return await (side === 'source' ? body(source, target, lane) : body(target, source, lane));
  } finally {
    await Promise.all([source.close(), target.close()]);
  }
}

/** Both at once. When neither can be had it is said of the source. */
async function openBothSides(sync: SyncConfig, command: string): Promise<[source: Session, target: Session]> {
  const opening = openSession(sync, 'target', command);
  // Nobody may be waiting for it yet when it fails.
  opening.catch(() => undefined);
  const source = await openSession(sync, 'source', command).catch((error) => {
    opening.then((target) => target.close()).catch(() => undefined);
    throw error;
  });
  try {
    return [source, await opening];
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The lane that runs, as the target has it noted; the source is not asked. */
export async function liveLane(sync: SyncConfig): Promise<SyncConfig> {
  await using target = await openSession(sync, 'target', 'live');
  return laneOf(sync, (await readLive(target, sync.name)).side);
}

/** Whether a table of the set that was set up is meant; without patterns in the call all of them are. */
export function tableFilter({ asked }: SyncConfig): (table: TableName) => boolean {
  const named = (table: TableName) => (pattern: TablePattern) => matches(pattern, table.schema, table.name);
  return (table) =>
    (asked.tables.length === 0 || asked.tables.some(named(table))) && !asked.exclude.some(named(table));
}

/** Errors: `unknown_table` when the call names a table that the sync does not have. Nothing if it is not set up. */
export async function requireKnown(target: Session, { name, asked }: SyncConfig): Promise<void> {
  if (asked.tables.length + asked.exclude.length === 0) return;
  const known = await readKnown(target, name);
  if (known.length > 0) requireMatches(asked, known, name);
}

/** Prints a result: one JSON document, or text. */
export function print(json: boolean, document: unknown, text: string): void {
  process.stdout.write(json ? `${JSON.stringify(document, null, 2)}\n` : `${text}\n`);
}
