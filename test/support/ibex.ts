/**
 * The command `ibex` as its users have it: a process of its own with a clean environment, an empty working
 * directory and a home without a password file. No process outlives the test that started it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OutOfPatience } from './patience.ts';
import { waitFor } from './servers.ts';

const PROGRAM = join(import.meta.dirname, '..', '..', 'bin', 'ibex.js');

export interface IbexOptions {
  /** All that the process sees of the environment, beside PATH and HOME. */
  readonly env?: Record<string, string>;
  /** Default: an empty directory, so that there is no ibex.yaml. */
  readonly cwd?: string;
  /** Milliseconds after which a command that has not ended is killed and its test fails. */
  readonly timeout?: number;
}

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly sync?: string;
  readonly table?: string;
  readonly kind?: string;
}

/**
 * A daemon that is asked to end is to have ended within ten seconds, and gives up on servers that do not answer after
 * seven. One that hangs takes for ever, which tests can tell from a machine that is busy.
 */
export const STOPS_WITHIN_MS = 60_000;

/** What a process has written; as it stands, while the process runs. */
export interface Output {
  readonly stdout: string;
  readonly stderr: string;
  /** The lines of `stderr` that are not of the log: what it tells a person. */
  readonly said: readonly string[];
  readonly logs: readonly LogLine[];
}

export interface IbexResult extends Output {
  /** Null when a signal ended it. */
  readonly code: number | null;
}

/** Runs a command to its end. */
export async function ibex(args: readonly string[], options: IbexOptions = {}): Promise<IbexResult> {
  const { timeout = 180_000 } = options;
  const command = startIbex(args, options);
  const timer = setTimeout(() => command.signal('SIGKILL'), timeout);
  const code = await command.exited;
  clearTimeout(timer);
  if (command.killed) {
    throw new OutOfPatience(timeout, `the end of ibex ${args[0]}`, {
      cause: new Error(command.stdout + command.stderr),
    });
  }
  return { code, stdout: command.stdout, stderr: command.stderr, said: command.said, logs: command.logs };
}

/** A command that goes on running, such as `ibex run`. */
export class RunningIbex implements Output {
  readonly pid: number;
  /** Its exit code once it has ended; null when a signal ended it. */
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  #stdout = '';
  #stderr = '';

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid as number;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.exited = once(child, 'close').then(([code]) => code as number | null);
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get said(): string[] {
    return lines(this.#stderr).filter((line) => !isLog(line));
  }

  get logs(): LogLine[] {
    return lines(this.#stderr)
      .filter(isLog)
      .map((line) => JSON.parse(line) as LogLine);
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get killed(): boolean {
    return this.#child.signalCode === 'SIGKILL';
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Resolves to the first log line whose message matches. */
  async waitForLog(message: RegExp, timeout = 90_000): Promise<LogLine> {
    const find = () => this.logs.find(({ msg }) => message.test(msg));
    await waitFor(() => find() !== undefined || !this.running, { timeout, what: `log line ${message}` });
    const line = find();
    if (line === undefined) throw new Error(`ibex ended without the log line ${message}:\n${this.#stderr}`);
    return line;
  }

  /** Asks it to end, as an operator or a supervisor does, and waits until it has. */
  async stop(): Promise<{ readonly code: number | null; readonly tookMs: number }> {
    const asked = Date.now();
    this.signal('SIGTERM');
    return { code: await this.exited, tookMs: Date.now() - asked };
  }

  async kill9(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill9();
  }
}

/** Starts a command and does not wait for its end. */
export function startIbex(args: readonly string[], options: IbexOptions = {}): RunningIbex {
  const { PATH = '' } = process.env;
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    cwd: options.cwd ?? emptyDirectory(),
    env: { PATH, HOME: emptyDirectory(), ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  guard(child);
  return new RunningIbex(child);
}

/** Kills its process once its input ends without a line, which is when this process is gone, however it went. */
const GUARD = 'read -r done || kill -s KILL "$1"';

function guard(child: ChildProcess): void {
  const watcher = watch(GUARD, String(child.pid));
  child.once('exit', () => watcher.stdin?.end('done\n'));
}

/** A shell that outlives this process, and learns of its end by the end of its input. */
function watch(script: string, argument: string): ChildProcess {
  const watcher = spawn('/bin/sh', ['-c', script, 'sh', argument], {
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  watcher.stdin?.on('error', () => undefined);
  watcher.unref();
  return watcher;
}

let empty: string | undefined;

function emptyDirectory(): string {
  if (empty === undefined) {
    empty = mkdtempSync(join(tmpdir(), 'ibex-empty-'));
    watch('read -r done; rm -rf "$1"', empty);
  }
  return empty;
}

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

function isLog(line: string): boolean {
  return line.startsWith('{"level":') && line.endsWith('}');
}
