/**
 * Ibex as a user has it: the command of this checkout in a process of its own, told nothing but the URLs.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeOnExit } from '../src/embedded/process.ts';
import { type Running, requireSuccess, start } from './children.ts';
import type { Databases } from './pair.ts';

const COMMAND = join(import.meta.dirname, '..', 'bin', 'ibex.js');

/** Without a file of settings, whatever the directory that the benchmark was started in has. */
let emptyDirectory: string | undefined;

export class Ibex {
  readonly #env: NodeJS.ProcessEnv;

  constructor(databases: Pick<Databases, 'source' | 'target'>, redisUrl?: string) {
    const inherited = Object.entries(process.env).filter(([name]) => !/^(IBEX_|PG)/.test(name));
    this.#env = {
      ...Object.fromEntries(inherited),
      IBEX_SOURCE_URL: databases.source.url,
      IBEX_TARGET_URL: databases.target.url,
      ...(redisUrl === undefined ? {} : { IBEX_REDIS_URL: redisUrl }),
    };
  }

  /** Starts a command and does not wait for its end. */
  start(...args: string[]): Promise<Running> {
    if (emptyDirectory === undefined) {
      emptyDirectory = mkdtempSync(join(tmpdir(), 'ibex-bench-'));
      removeOnExit(emptyDirectory);
    }
    return start({
      file: process.execPath,
      args: [COMMAND, ...args],
      env: this.#env,
      cwd: emptyDirectory,
    });
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

async function failureOf(daemon: Running): Promise<never> {
  const ended = await daemon.ended;
  requireSuccess('ibex run', { ...ended, code: ended.code || null });
  throw new Error('ibex run ended');
}
