/** The steps of a move, each by the real command line, and what each of them has to come to. */
import { expect } from 'vitest';
import { type IbexResult, ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { waitFor } from '../support/servers.ts';
import type { Stage } from './stage.ts';

interface Finding {
  readonly check: string;
  readonly remedy: string | null;
}

export class Move {
  readonly #stage: Stage;
  #daemon: RunningIbex | undefined;

  constructor(stage: Stage) {
    this.#stage = stage;
  }

  /** Runs a command, which has to answer yes. */
  async do(...args: readonly string[]): Promise<IbexResult> {
    const result = await ibex(args, { env: this.#stage.env });
    expect(result.code, `ibex ${args.join(' ')}: ${result.stdout}${result.stderr}${this.lastWords}`).toBe(0);
    return result;
  }

  /** Runs the statements with which `doctor` answers what it finds of one kind. */
  async cure(check: string): Promise<void> {
    const { findings } = JSON.parse((await this.do('doctor', '--json')).stdout) as { findings: Finding[] };
    for (const finding of findings.filter((one) => one.check === check)) {
      const statements = finding.remedy?.replace(/^On the target: /, '') ?? '';
      await this.#stage.asOwner('target', (owner) => owner.query(statements));
    }
  }

  /** Waits until it says that all is well: constraints may have to be put back yet. */
  async ready(): Promise<void> {
    await waitFor(async () => (await ibex(['status'], { env: this.#stage.env })).code === 0, {
      what: `the sync to be ready: ${this.lastWords}`,
    });
  }

  async startDaemon(): Promise<void> {
    this.#daemon = startIbex(['run', '--log-format', 'json'], { env: this.#stage.env });
    await this.#daemon.waitForLog(/sync main runs/);
  }

  async stopDaemon(): Promise<void> {
    expect(await this.#daemon?.stop()).toMatchObject({ code: 0 });
  }

  /** Ends whatever runs, however far things have come. */
  async end(): Promise<void> {
    await this.#daemon?.kill9();
  }

  get lastWords(): string {
    return this.#daemon?.stderr.slice(-3_000) ?? '';
  }
}
