/**
 * Turns "where a URL comes from" into a node that can be asked for it again and again.
 *
 * Files and commands are read anew for every connection, since providers rotate credentials. What they gave
 * is never shown, and neither is the command: both may hold a password.
 */

import { exec } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { IbexError } from '../core/errors.ts';
import type { NodeSource } from './values.ts';

/** A database server as a party of syncs. */
export interface NodeConfig {
  name: string;
  /** False when the user named the other side only, for a command that can do with one. */
  given: boolean;
  /**
   * Reads the URL anew on each call. Rejects with IbexError `config` when file or command do not give one,
   * or `connection` when the command ran and failed, which may pass. A command has 30 seconds.
   */
  resolveUrl(): Promise<string>;
}

/** Where to look: the directory that relative paths start from, and a command's environment. */
export interface Surroundings {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
}

const COMMAND_TIMEOUT_MS = 30_000;

/** @param setting how messages name the place of the source, such as `IBEX_SOURCE_URL_FILE` */
export function nodeConfig(
  name: string,
  source: NodeSource,
  setting: string,
  around: Surroundings,
): NodeConfig {
  return {
    name,
    given: true,
    async resolveUrl() {
      if ('url' in source) return source.url;
      const output =
        'url_file' in source
          ? await readUrlFile(resolve(around.cwd, source.url_file), setting)
          : await runUrlCommand(source.url_command, setting, around);
      const url = output.trim();
      if (url === '' || /\s/.test(url)) {
        throw new IbexError('config', `${setting}: it gave ${url === '' ? 'nothing' : 'more than one URL'}`, {
          hint: 'It must give one line with a connection URL.',
        });
      }
      return url;
    },
  };
}

async function readUrlFile(path: string, setting: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    // Neither the path nor the error that quotes it: a URL may stand there by mistake.
    const { code } = error as NodeJS.ErrnoException;
    throw new IbexError('config', `${setting}: the file it names cannot be read (${code})`);
  }
}

async function runUrlCommand(command: string, setting: string, { cwd, env }: Surroundings): Promise<string> {
  try {
    return (await promisify(exec)(command, { cwd, env, timeout: COMMAND_TIMEOUT_MS })).stdout;
  } catch (error) {
    // Not kept as the cause: it carries the command and what it printed.
    const code = (error as { code?: unknown }).code;
    const missing = code === 126 || code === 127;
    const ending = typeof code === 'number' ? `ended with exit code ${code}` : 'was cut off';
    throw new IbexError(missing ? 'config' : 'connection', `${setting}: the command ${ending}`, {
      hint: 'Run the command by itself to see what it says.',
    });
  }
}
