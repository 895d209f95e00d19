/** The daemon that carries for the rounds of a group: one process with the lanes of all, started again whenever it was killed. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { stringify } from 'yaml';
import { type RunningIbex, startIbex } from '../support/ibex.ts';

/** What an ibex.yaml has of a round. */
export interface Part {
  readonly nodes: Readonly<Record<string, string>>;
  readonly syncs: readonly object[];
}

/** What it logs once a lane carries. */
const RUNS = /"msg":"sync \S+ runs"/;

export class Daemon {
  readonly #directory: string;
  readonly #stop = new AbortController();
  readonly #started: RunningIbex[] = [];
  /** What it did that none should. */
  readonly wrong: string[] = [];
  #daemon: RunningIbex;
  readonly #watching: Promise<void>;

  static async run(parts: readonly Part[]): Promise<Daemon> {
    const directory = await mkdtemp(join(tmpdir(), 'ibex-convergence-'));
    const nodes = Object.assign({}, ...parts.map((part) => part.nodes));
    const syncs = parts.flatMap((part) => part.syncs);
    await writeFile(join(directory, 'ibex.yaml'), stringify({ nodes, syncs }), { mode: 0o600 });
    return new Daemon(directory);
  }

  private constructor(directory: string) {
    this.#directory = directory;
    this.#daemon = this.#start();
    this.#watching = this.#watch();
  }

  /** Two rounds that want it killed at one time share that: it is let come up in between. */
  async kill(): Promise<void> {
    if (RUNS.test(this.#daemon.stderr)) await this.#daemon.kill9();
  }

  /** The last that all of its processes had to say. */
  get lastWords(): string {
    return this.#started.map(({ pid, stderr }) => `[${pid}]\n${stderr.slice(-4_000)}`).join('\n');
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await this.#daemon.kill9();
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #watch(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const daemon = this.#daemon;
      if (!daemon.running) {
        await daemon.exited;
        if (!daemon.killed)
          this.wrong.push(
            `the daemon ended by itself: ${daemon.stderr.trimEnd().split('\n').slice(-3).join(' / ')}`,
          );
        this.#daemon = this.#start();
      }
      await sleep(20);
    }
  }

  #start(): RunningIbex {
    const daemon = startIbex(['run', '--log-format', 'json'], { cwd: this.#directory });
    this.#started.push(daemon);
    return daemon;
  }
}
