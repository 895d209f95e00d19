/**
 * Ibex as a user has it: the command of this checkout in a process of its own, told nothing but the URLs, or by a file
 * that both sides are written.
 */
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeUntilExit } from '../src/embedded/process.ts';
import { type Running, requireSuccess, start } from './children.ts';
import type { Databases } from './pair.ts';

const COMMAND = join(import.meta.dirname, '..', 'bin', 'ibex.js');

type Sides = Pick<Databases, 'source' | 'target'>;

/** Where a file of settings in the directory that the benchmark was started in does not count. */
let emptyDirectory: string | undefined;

export class Ibex {
  readonly #env: NodeJS.ProcessEnv;
  readonly #directory: string;

  private constructor(directory: string, env: NodeJS.ProcessEnv) {
    const inherited = Object.entries(process.env).filter(([name]) => !/^(IBEX_|PG)/.test(name));
    this.#env = { ...Object.fromEntries(inherited), ...env };
    this.#directory = directory;
  }

  static oneWay({ source, target }: Sides, redisUrl?: string): Ibex {
    emptyDirectory ??= makeDirectory();
    return new Ibex(emptyDirectory, {
      IBEX_SOURCE_URL: source.url,
      IBEX_TARGET_URL: target.url,
      ...(redisUrl === undefined ? {} : { IBEX_REDIS_URL: redisUrl }),
    });
  }

  /** Both lanes in one daemon. */
  static twoWay({ source, target }: Sides): Ibex {
    const directory = makeDirectory();
    const settings = {
      nodes: { a: source.url, b: target.url },
      syncs: [{ name: 'pair', between: ['a', 'b'] }],
    };
    // JSON is YAML.
    writeFileSync(join(directory, 'ibex.yaml'), JSON.stringify(settings));
    return new Ibex(directory, {});
  }

  /** Starts a command and does not wait for its end. */
  start(...args: string[]): Promise<Running> {
    return start({ file: process.execPath, args: [COMMAND, ...args], env: this.#env, cwd: this.#directory });
  }

  /** Runs a command to its end; throws what it said when its exit code is not 0. */
  async run(...args: string[]): Promise<void> {
    requireSuccess(`ibex ${args[0]}`, await (await this.start(...args)).ended);
  }

  /** A running daemon that is in step: what is on the source now has arrived. */
  async daemon(): Promise<Running> {
    await this.run('setup');
    const daemon = await this.start('run');
    try {
      await Promise.race([this.run('wait', '--timeout', '120s'), failureOf(daemon)]);
      return daemon;
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }
}

function makeDirectory(): string {
  return makeUntilExit(join(tmpdir(), 'ibex-bench-'))[0];
}

async function failureOf(daemon: Running): Promise<never> {
  const ended = await daemon.ended;
  requireSuccess('ibex run', { ...ended, code: ended.code || null });
  throw new Error('ibex run ended');
}
