/**
 * Ibex as the demo sees it: from outside, as the command that anybody would run, and by what it says over HTTP.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { IbexError } from '../core/errors.ts';
import { ROOT } from '../core/root.ts';
import { freePort } from '../embedded/process.ts';
import type { SyncStatus } from '../observe/status.ts';
import { type Belongings, Program } from './belongings.ts';
import { ibexEnvironment } from './environment.ts';
import type { Places } from './servers.ts';

const COMMAND = fileURLToPath(new URL('bin/ibex.js', ROOT));
/** What `ibex run` promises after SIGTERM, and what a person waits for after Ctrl-C. */
const STOP_MS = 30_000;
const HASTY_STOP_MS = 1_000;
const WAIT_SECONDS = 120;
const READY_MS = 90_000;

/** Lines of the daemon's log by level, and the last that matter. */
export interface LogSummary {
  readonly warnings: number;
  readonly errors: number;
  readonly last: readonly string[];
}

export class Ibex {
  readonly url: string;
  readonly log: string;
  readonly #daemon: Program;
  readonly #places: Places;

  /** Starts the daemon. */
  static async start(places: Places, belongings: Belongings): Promise<Ibex> {
    const address = `127.0.0.1:${await freePort()}`;
    const log = join(places.directory, 'daemon.log');
    const daemon = await startIbex(places, log, ['run', '--listen', address]);
    belongings.add((hasty) => daemon.end('SIGTERM', hasty ? HASTY_STOP_MS : STOP_MS));
    return new Ibex(places, daemon, `http://${address}`, log);
  }

  private constructor(places: Places, daemon: Program, url: string, log: string) {
    this.#places = places;
    this.#daemon = daemon;
    this.url = url;
    this.log = log;
  }

  /** Rejects when the daemon ends without having been asked to; never resolves. */
  async mishap(): Promise<never> {
    const code = await this.#daemon.endedByItself();
    throw await this.failure(`the daemon ended by itself, exit code ${code}`);
  }

  /** Undefined as long as there is nothing to say, before everything is set up. */
  async status(): Promise<SyncStatus | undefined> {
    const text = await this.#get('/status');
    return text === undefined ? undefined : (JSON.parse(text) as SyncStatus[])[0];
  }

  /** Sum of a metric over its labels; 0 as long as there is none. */
  async metric(name: string): Promise<number> {
    const text = (await this.#get('/metrics')) ?? '';
    return text
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  async #get(path: string): Promise<string | undefined> {
    try {
      const response = await fetch(this.url + path, { signal: AbortSignal.timeout(10_000) });
      const text = await response.text();
      return response.ok ? text : undefined;
    } catch {
      return undefined; // Not listening yet, or nothing set up to speak of. Its end is noticed by `mishap`.
    }
  }

  /** Runs `ibex wait`: resolves once everything committed before the call is on the target. */
  async waitForTarget(belongings: Belongings): Promise<void> {
    const log = join(this.#places.directory, 'wait.log');
    const wait = await startIbex(this.#places, log, ['wait', '--timeout', `${WAIT_SECONDS}s`]);
    belongings.add(() => wait.end('SIGTERM', HASTY_STOP_MS));
    const code = await wait.ended();
    if (code === 0) return;
    const said = (await readFile(log, 'utf8')).trim();
    throw await this.failure(`\`ibex wait\` ended with exit code ${code}: ${said}`);
  }

  /** The status, once it says READY: foreign keys come back last. What it is if it does not in time. */
  async statusWhenReady(): Promise<SyncStatus> {
    const deadline = Date.now() + READY_MS;
    for (;;) {
      const status = await this.status();
      const late = Date.now() > deadline;
      if (status !== undefined && (status.verdict === 'READY' || late)) return status;
      if (late) throw await this.failure('the daemon does not tell its status');
      await sleep(100);
    }
  }

  /** Stops the daemon; throws when it does not end in time and in order. */
  async stop(): Promise<void> {
    const code = await this.#daemon.end('SIGTERM', STOP_MS);
    if (code !== 0) throw await this.failure(`the daemon did not end in order after SIGTERM (${code})`);
  }

  async readLog(): Promise<LogSummary> {
    const lines = (await readFile(this.log, 'utf8')).split('\n').filter((line) => line !== '');
    const entries = lines.map(readEntry);
    const last = entries.filter(({ level }) => level >= WARNING).slice(-5);
    return {
      warnings: entries.filter(({ level }) => level >= WARNING && level < ERROR).length,
      errors: entries.filter(({ level }) => level >= ERROR).length,
      last: last.map(({ text }) => text),
    };
  }

  /** An error with the daemon's last words, since its log goes with the demo. */
  async failure(message: string): Promise<IbexError> {
    const { last } = await this.readLog();
    return new IbexError('tool', message, {
      hint: last.length === 0 ? 'Its log has no warning.' : `Its log: ${last.join(' | ')}`,
    });
  }
}

const WARNING = 40;
const ERROR = 50;

/** A line that is no JSON is the last gasp of a process that could not log. */
function readEntry(line: string): { level: number; text: string } {
  try {
    const { level, msg, err } = JSON.parse(line);
    return { level, text: err === undefined ? msg : `${msg}: ${err.message}` };
  } catch {
    return { level: ERROR, text: line };
  }
}

function startIbex(places: Places, log: string, args: string[]): Promise<Program> {
  const [name = ''] = args;
  const options = { env: ibexEnvironment(places), cwd: places.directory, log };
  return Program.start(`ibex ${name}`, process.execPath, [COMMAND, ...args], options);
}
