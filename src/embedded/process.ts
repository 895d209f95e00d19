/**
 * What the private servers of demo, tests and benchmarks share: the account they run as, their directory,
 * their port, their process.
 *
 * Invariant: no server outlives the process that started it. An orderly end is cleaned up by one 'exit'
 * handler; a sudden one (SIGKILL, or a signal that nobody handles) by a guard, a shell that waits on a pipe
 * which only this process holds open. So no signal handlers are installed here. Directories are made at once: of one that is
 * still on its way when this process exits nobody would know.
 */
import { type ChildProcess, execFile, type StdioOptions, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, realpathSync, rmSync, statSync } from 'node:fs';
import { chown, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { IbexError } from '../core/errors.ts';

/**
 * The account of the servers, as options of spawn: our own, except that root steps down to `nobody`.
 * PostgreSQL refuses to run as root, and a Redis of root's lets every local user write files as root.
 */
const account = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};

/** All that servers see of the environment, so that PGDATA, LANG and the like of the caller change nothing. */
const env = { TZ: 'UTC', LC_ALL: 'C' };

/** The directory for temporary files; /tmp where root has one of its own that `nobody` cannot enter. */
export function temporaryRoot(): string {
  const preferred = realpathSync(tmpdir());
  return process.getuid?.() !== 0 || isOpenToAll(preferred) ? preferred : '/tmp';
}

function isOpenToAll(directory: string): boolean {
  const enterable = (statSync(directory).mode & 0o001) !== 0;
  return enterable && (directory === dirname(directory) || isOpenToAll(dirname(directory)));
}

/**
 * A port nobody listens on. It lies below the range that systems hand to outgoing connections (from 32768
 * on Linux, 49152 on macOS), which `listen(0)` would take it from: there, a client that keeps knocking while
 * its server is down can be given the server's own port, and the server cannot come back.
 */
export async function freePort(): Promise<number> {
  const port = 15_000 + Math.floor(Math.random() * 17_000);
  const probe = createServer().listen(port, '127.0.0.1');
  try {
    await once(probe, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return freePort();
    throw error;
  }
  probe.close();
  await once(probe, 'close');
  return port;
}

const cleanUps = new Set<() => void>();

/** Runs `cleanUp` when this process exits. Returns what takes it back. */
function onExit(cleanUp: () => void): () => void {
  if (cleanUps.size === 0) process.on('exit', cleanUpAll);
  cleanUps.add(cleanUp);
  return () => {
    cleanUps.delete(cleanUp);
    if (cleanUps.size === 0) process.off('exit', cleanUpAll);
  };
}

function cleanUpAll(): void {
  for (const cleanUp of cleanUps) {
    try {
      cleanUp();
    } catch (error) {
      console.error(`ibex: could not clean up: ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** Makes a directory that is deleted when this process exits. Returns it, and what takes that promise back. */
export function makeUntilExit(prefix: string): [directory: string, forget: () => void] {
  const directory = mkdtempSync(prefix);
  return [directory, onExit(() => rmSync(directory, { recursive: true, force: true }))];
}

export interface HomeOptions {
  /** What ends the server at once, yet leaves no shared memory behind. */
  readonly quit: 'SIGQUIT' | 'SIGKILL';
  /** A file, relative to the directory, that starts with the server's pid until it is done quitting. */
  readonly pidFile?: string;
  /** Where to make the directory. As root, `nobody` must be able to enter it. */
  readonly parent?: string | undefined;
}

/**
 * Cleans up once its input ends without a last line `done`. The line before says which process to end, if
 * any. $1 is the signal, $2 the directory, $3 the pid file.
 */
const GUARD = `
pid=
while read -r line; do
  [ "$line" = done ] && exit 0
  pid=$line
done
if [ -n "$pid" ]; then
  kill -s "$1" "$pid"
  tries=0
  while read -r owner < "$3" && [ "$owner" = "$pid" ] && [ "$tries" -lt 250 ]; do
    sleep 0.02
    tries=$((tries + 1))
  done
  kill -s KILL "$pid"
fi
rm -rf "$2" || { sleep 1; rm -rf "$2"; }`;

/** The directory of one server, which is deleted, after what runs in it was ended, when this process ends. */
export class ServerHome {
  readonly directory: string;
  readonly #quit: NodeJS.Signals;
  readonly #guard: ChildProcess;
  readonly #forget: () => void;
  #occupant = '';

  /** Makes a directory that only the servers' account can read. */
  static async make(prefix: string, options: HomeOptions): Promise<ServerHome> {
    const home = new ServerHome(mkdtempSync(join(options.parent ?? temporaryRoot(), prefix)), options);
    await handOver(home.directory);
    return home;
  }

  private constructor(directory: string, { quit, pidFile }: HomeOptions) {
    this.directory = directory;
    this.#quit = quit;
    const signal = quit.slice('SIG'.length);
    const args = ['-c', GUARD, 'sh', signal, directory, pidFile ? join(directory, pidFile) : ''];
    this.#forget = onExit(() => spawnSync('/bin/sh', args, { input: `${this.#occupant}\n` }));
    this.#guard = spawn('/bin/sh', args, { cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'] });
    // Should somebody end the guard, the 'exit' handler is still there: no reason to fail.
    this.#guard.on('error', () => {});
    this.#guard.stdin?.on('error', () => {});
    this.#guard.unref();
  }

  /** Writes a file that only the servers' account can read. */
  async write(name: string, text: string): Promise<string> {
    const file = join(this.directory, name);
    await writeFile(file, text, { mode: 0o600 });
    await handOver(file);
    return file;
  }

  /** Runs a program to its end. The error has what the program said on `stderr`. */
  async run(file: string, args: string[]): Promise<void> {
    try {
      const running = promisify(execFile)(file, args, { cwd: this.directory, env, ...account });
      this.#watch(running.child);
      await running;
    } catch (cause) {
      const { message, stderr } = cause as Error & { stderr?: string };
      throw new IbexError('tool', `${basename(file)} failed: ${stderr?.trim() || message}`, { cause });
    }
  }

  /** Starts a server, in a session of its own so that Ctrl-C reaches only us; its output is `server.log`. */
  async launch(
    file: string,
    args: string[],
    environment: Record<string, string> = {},
  ): Promise<ServerProcess> {
    const log = join(this.directory, 'server.log');
    const output = openSync(log, 'a');
    const stdio: StdioOptions = ['ignore', output, output];
    const options = {
      cwd: this.directory,
      env: { ...env, ...environment },
      detached: true,
      stdio,
      ...account,
    };
    const child = spawn(file, args, options);
    closeSync(output);
    await once(child, 'spawn').catch((cause) => {
      throw new IbexError('tool', `cannot start ${file}: ${cause.message}`, { cause });
    });
    this.#watch(child);
    return new ServerProcess(child, this.#quit, log);
  }

  /** Deletes the directory. What ran in it must have ended. */
  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true, maxRetries: 5 });
    this.#forget();
    this.#guard.stdin?.end('done\n');
  }

  #watch(child: ChildProcess): void {
    const tell = (occupant: string) => {
      this.#occupant = occupant;
      this.#guard.stdin?.write(`${occupant}\n`);
    };
    if (child.pid !== undefined) tell(String(child.pid));
    child.once('exit', () => tell(''));
  }
}

async function handOver(path: string): Promise<void> {
  if (account.uid !== undefined) await chown(path, account.uid, account.gid);
}

/** A running server, child of this process. It does not keep our event loop alive. */
export class ServerProcess {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #quit: NodeJS.Signals;
  readonly #log: string;
  readonly #ended: Promise<unknown>;

  constructor(child: ChildProcess, quit: NodeJS.Signals, log: string) {
    child.unref();
    this.pid = child.pid as number;
    this.#child = child;
    this.#quit = quit;
    this.#log = log;
    this.#ended = once(child, 'exit');
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Sends the signals in turn, each given ten seconds, until the process is gone, whoever ended it. */
  async end(...signals: NodeJS.Signals[]): Promise<void> {
    for (const signal of signals) {
      if (!this.running) return;
      this.#child.kill(signal);
      const timer = new AbortController();
      const tenSeconds = sleep(10_000, undefined, { signal: timer.signal }).catch(() => {});
      await Promise.race([this.#ended, tenSeconds]);
      timer.abort();
    }
  }

  /** Resolves once `isReady` says so; ends the server and throws, with its last words, if it never does. */
  async whenReady(isReady: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + 60_000;
    while (!(await isReady())) {
      if (!this.running || Date.now() > deadline) throw await this.#failure();
      await sleep(10);
    }
  }

  async #failure(): Promise<IbexError> {
    await this.end(this.#quit, 'SIGKILL');
    const log = await readFile(this.#log, 'utf8');
    const lastWords = log.trimEnd().split('\n').slice(-5).join('\n');
    return new IbexError('tool', `${basename(this.#child.spawnfile)} did not start; it said:\n${lastWords}`);
  }
}
