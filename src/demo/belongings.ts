/**
 * Everything that the demo has started, to be ended in reverse order whatever happens. Servers clean up after
 * themselves should we be killed (embedded/process.ts); for other programs a guard is started here, a shell that
 * waits on a pipe which only this process holds open.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { IbexError } from '../core/errors.ts';

/** What ends, `hasty` after an interruption: somebody waits for their prompt. */
export type CleanUp = (hasty: boolean) => Promise<unknown>;

export class Belongings {
  readonly #cleanUps: CleanUp[] = [];

  /** From now on `cleanUp` is called by `endAll`, before those of earlier calls. */
  add(cleanUp: CleanUp): void {
    this.#cleanUps.push(cleanUp);
  }

  /** Ends everything, also when one of them fails to; the first such error is thrown at the end. */
  async endAll(hasty: boolean): Promise<void> {
    const errors: unknown[] = [];
    for (let cleanUp = this.#cleanUps.pop(); cleanUp !== undefined; cleanUp = this.#cleanUps.pop()) {
      await cleanUp(hasty).catch((error) => errors.push(error));
    }
    if (errors.length > 0) throw errors[0];
  }
}

export interface ProgramOptions {
  readonly env: Record<string, string>;
  readonly cwd: string;
  /** The file that takes what it says, stderr and stdout. */
  readonly log: string;
}

/** Ends the group of process $1 when this process is gone before it said that the group is. */
const GUARD = 'read -r gone || kill -s KILL -- "-$1"';

/** A program that runs beside the demo, in a session of its own, so that Ctrl-C reaches only us. */
export class Program {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<unknown>;
  #asked = false;

  static async start(name: string, file: string, args: string[], options: ProgramOptions): Promise<Program> {
    const output = openSync(options.log, 'a');
    const stdio = ['ignore' as const, output, output];
    const child = spawn(file, args, { cwd: options.cwd, env: options.env, detached: true, stdio });
    closeSync(output);
    await once(child, 'spawn').catch((cause) => {
      throw new IbexError('tool', `cannot start ${file}: ${cause.message}`, { cause });
    });
    return new Program(name, child, options.cwd);
  }

  private constructor(name: string, child: ChildProcess, cwd: string) {
    this.name = name;
    this.#child = child;
    this.#ended = once(child, 'exit');
    const kill = () => this.#kill('SIGKILL');
    process.on('exit', kill);
    const guard = spawn('/bin/sh', ['-c', GUARD, cwd, String(child.pid)], {
      ...{ cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
    });
    guard.on('error', () => undefined);
    guard.stdin?.on('error', () => undefined);
    guard.unref();
    child.once('exit', () => {
      process.off('exit', kill);
      guard.stdin?.end('gone\n');
    });
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves to the exit code, or -1 when a signal ended it. */
  async ended(): Promise<number> {
    await this.#ended;
    return this.#child.exitCode ?? -1;
  }

  /** Resolves like `ended`, but only if nobody asked for its end. */
  async endedByItself(): Promise<number> {
    await this.#ended;
    if (this.#asked) await new Promise(() => undefined);
    return this.ended();
  }

  /** Asks it to end, and ends it with SIGKILL after the given time: -1, as for any signal. */
  async end(signal: NodeJS.Signals, patienceMs: number): Promise<number> {
    this.#asked = true;
    if (this.running) {
      this.#child.kill(signal);
      const timer = new AbortController();
      const patience = sleep(patienceMs, undefined, { signal: timer.signal }).catch(() => undefined);
      await Promise.race([this.#ended, patience]);
      timer.abort();
      if (this.running) this.#kill('SIGKILL');
    }
    return this.ended();
  }

  /** The whole group: what the program started goes with it. */
  #kill(signal: NodeJS.Signals): void {
    try {
      process.kill(-(this.#child.pid as number), signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}
