/**
 * The processes of a sync, a daemon and perhaps a worker, as a supervisor keeps them: started again at once when they were
 * killed. Arms failpoints in the daemon, notes which have struck, and wakes what they froze.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Failpoint, Failure } from '../../src/core/failpoints.ts';
import { type RunningIbex, startIbex } from '../support/ibex.ts';
import { waitFor } from '../support/servers.ts';

export interface ArmedFailpoint {
  readonly name: Failpoint;
  readonly failure: Failure;
  /** It strikes when it is passed for this time in one process. */
  readonly pass: number;
}

const LOOK_MS = 20;
const PATIENCE = 120_000;

export class Fleet {
  readonly #env: Record<string, string>;
  readonly #random: () => number;
  readonly #stop = new AbortController();
  #due: readonly ArmedFailpoint[];
  /** Every process that ever ran. */
  readonly #started: RunningIbex[] = [];
  /** When each failpoint that struck was over. */
  readonly struck = new Map<Failpoint, number>();
  /** What a process did that none should, in words. */
  readonly wrong: string[] = [];
  #daemon: RunningIbex;
  #worker: RunningIbex | undefined;
  /** Failpoints of the daemon that runs now that were seen to strike. */
  #seen = 0;
  #watching: Promise<void>;

  constructor(options: {
    readonly env: Record<string, string>;
    readonly random: () => number;
    readonly failpoints: readonly ArmedFailpoint[];
    readonly withWorker: boolean;
  }) {
    this.#env = options.env;
    this.#random = options.random;
    this.#due = options.failpoints;
    this.#daemon = this.#startDaemon(this.#due);
    if (options.withWorker) this.#worker = this.#start('worker', {});
    this.#watching = this.#watch();
  }

  get daemon(): RunningIbex {
    return this.#daemon;
  }

  get worker(): RunningIbex | undefined {
    return this.#worker;
  }

  /** The last that all processes had to say. */
  get lastWords(): string {
    return this.#started.map(({ pid, stderr }) => `[${pid}]\n${stderr.slice(-3_000)}`).join('\n');
  }

  async freeze(process: RunningIbex, ms: number): Promise<void> {
    process.signal('SIGSTOP');
    await sleep(ms);
    process.signal('SIGCONT');
  }

  /**
   * Starts a second daemon, which goes on in the place of the first. Resolves once it has the lane, and stands still
   * before it carries anything, to the first one.
   */
  async replaceDaemon(): Promise<RunningIbex> {
    const former = this.#daemon;
    const rival = this.#startDaemon([{ name: 'lane-taken', failure: 'freeze', pass: 1 }]);
    this.#daemon = rival;
    this.#seen = 1;
    await waitFor(() => strikes(rival).length > 0, { timeout: PATIENCE, what: 'a rival to take the lane' });
    return former;
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await Promise.all(this.#started.map((process) => process.kill9()));
  }

  async #watch(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      await this.#lookAtDaemon();
      if (this.#worker?.running === false) {
        if (!this.#worker.killed) this.#blame(this.#worker, 'the worker ended by itself');
        this.#worker = this.#start('worker', {});
      }
      await sleep(LOOK_MS);
    }
  }

  async #lookAtDaemon(): Promise<void> {
    const daemon = this.#daemon;
    const { running } = daemon;
    const all = strikes(daemon);
    for (const name of all.slice(this.#seen)) {
      this.#seen += 1;
      const one = this.#due.find((due) => due.name === name);
      this.#due = this.#due.filter((due) => due !== one);
      if (one?.failure === 'freeze') {
        await sleep(200 + this.#random() * 1_500);
        daemon.signal('SIGCONT');
      }
      this.struck.set(name, Date.now());
    }
    if (running || daemon !== this.#daemon) return;
    if (!daemon.killed) this.#blame(daemon, 'the daemon ended by itself');
    this.#seen = 0;
    this.#daemon = this.#startDaemon(this.#due);
  }

  #blame(process: RunningIbex, what: string): void {
    this.wrong.push(`${what}: ${process.stderr.trimEnd().split('\n').slice(-3).join(' / ')}`);
  }

  #startDaemon(failpoints: readonly ArmedFailpoint[]): RunningIbex {
    const armed = failpoints.map(({ name, failure, pass }) => `${name}:${failure}:${pass}`).join(',');
    return this.#start('run', { TEST_IBEX_FAILPOINTS: armed });
  }

  #start(command: string, env: Record<string, string>): RunningIbex {
    const process = startIbex([command, '--log-format', 'json'], { env: { ...this.#env, ...env } });
    this.#started.push(process);
    return process;
  }
}

function strikes({ said }: RunningIbex): Failpoint[] {
  return said.flatMap((line) => /^failpoint (\S+): /.exec(line)?.[1] ?? []) as Failpoint[];
}
