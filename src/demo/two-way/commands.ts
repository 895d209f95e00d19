/** Ibex as anybody would run it, on an ibex.yaml of the demo's own. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { IbexError } from '../../core/errors.ts';
import { ROOT } from '../../core/root.ts';
import { freePort } from '../../embedded/process.ts';
import type { SyncStatus } from '../../observe/status.ts';
import { type Belongings, Program } from '../belongings.ts';
import { environment } from '../environment.ts';
import type { Places } from '../servers.ts';

const COMMAND = fileURLToPath(new URL('bin/ibex.js', ROOT));
const STOP_MS = 30_000;
const PATIENCE_MS = 300_000;
const LOOK_MS = 150;

/** Names of the two nodes: what the demo calls source and target. */
export const NODES = { source: 'berlin', target: 'tokyo' } as const;

export class TwoWayIbex {
  readonly #places: Places;
  readonly #belongings: Belongings;
  readonly #url: string;
  readonly #daemon: Program;
  #count = 0;

  /** Writes ibex.yaml, has sequences take turns, starts the daemon, and resolves once both directions stream. */
  static async start(places: Places, belongings: Belongings): Promise<TwoWayIbex> {
    const file = {
      ...(places.redis === undefined ? {} : { redis: places.redis }),
      nodes: { [NODES.source]: places.source, [NODES.target]: places.target },
      syncs: [
        {
          name: 'pair',
          between: [NODES.source, NODES.target],
          tables: ['public.*'],
          conflicts: { default: 'newest', tables: { 'public.stock': 'hold' } },
        },
      ],
    };
    await writeFile(join(places.directory, 'ibex.yaml'), stringify(file), { mode: 0o600 });
    const address = `127.0.0.1:${await freePort()}`;
    const interleaving = await start(places, ['sequences', 'interleave'], 'interleave.log');
    belongings.add(() => interleaving.end('SIGKILL', 0));
    if ((await interleaving.ended()) !== 0)
      throw new IbexError('tool', `ibex sequences interleave: ${await read(places, 'interleave.log')}`);
    const daemon = await start(places, ['run', '--listen', address], 'daemon.log');
    belongings.add((hasty) => daemon.end('SIGTERM', hasty ? 1_000 : STOP_MS));
    const ibex = new TwoWayIbex(places, belongings, daemon, `http://${address}`);
    await ibex.#until((lanes) => lanes.every(isStreaming), 'both directions to stream');
    return ibex;
  }

  private constructor(places: Places, belongings: Belongings, daemon: Program, url: string) {
    this.#places = places;
    this.#belongings = belongings;
    this.#daemon = daemon;
    this.#url = url;
  }

  /** Runs a command to its end; resolves to what it printed. */
  async run(...args: string[]): Promise<string> {
    const log = `command-${++this.#count}.log`;
    const program = await start(this.#places, args, log);
    this.#belongings.add(() => program.end('SIGKILL', 0));
    const code = await program.ended();
    const said = await read(this.#places, log);
    if (code !== 0)
      throw new IbexError('tool', `ibex ${args.join(' ')} ended with exit code ${code}: ${said}`);
    return said;
  }

  /** Resolves once nothing is on its way in either direction, seen twice with nothing carried between. */
  async untilQuiet(): Promise<void> {
    let before = '';
    await this.#until((lanes) => {
      const quiet = lanes.every(
        (lane) => isStreaming(lane) && lane.tables.every(({ pending }) => pending === 0),
      );
      const now = quiet
        ? JSON.stringify(lanes.map(({ tables }) => tables.map(({ captured }) => captured)))
        : '';
      const still = quiet && now === before;
      before = now;
      return still;
    }, 'both directions to come to rest');
  }

  async stop(): Promise<void> {
    await this.#daemon.end('SIGTERM', STOP_MS);
  }

  async #until(isSo: (lanes: readonly SyncStatus[]) => boolean, what: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const lanes = await this.#status();
      if (lanes !== undefined && lanes.length > 1 && isSo(lanes)) return;
      if (!this.#daemon.running || Date.now() > deadline) {
        const log = (await read(this.#places, 'daemon.log')).split('\n').slice(-5).join(' | ');
        throw new IbexError('tool', `waited in vain for ${what}`, { hint: `The daemon's log: ${log}` });
      }
      await sleep(LOOK_MS);
    }
  }

  /** Undefined as long as there is nothing to say, before everything is set up. */
  async #status(): Promise<SyncStatus[] | undefined> {
    try {
      const response = await fetch(`${this.#url}/status`, { signal: AbortSignal.timeout(10_000) });
      return response.ok ? ((await response.json()) as SyncStatus[]) : undefined;
    } catch {
      return undefined;
    }
  }
}

function isStreaming({ tables }: SyncStatus): boolean {
  return tables !== undefined && tables.length > 0 && tables.every(({ state }) => state === 'streaming');
}

function start(places: Places, args: string[], log: string): Promise<Program> {
  const { directory } = places;
  const options = { env: environment(places, {}), cwd: directory, log: join(directory, log) };
  return Program.start(`ibex ${args[0]}`, process.execPath, [COMMAND, ...args], options);
}

async function read({ directory }: Places, log: string): Promise<string> {
  return (await readFile(join(directory, log), 'utf8')).trim();
}
