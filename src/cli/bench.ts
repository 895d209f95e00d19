/** `ibex bench`: the benchmark of the checkout. It is loaded from there when asked for: packages come without it. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { IbexError } from '../core/errors.ts';
import { ROOT } from '../core/root.ts';
import { type ExitCode, report } from './command.ts';

const PROGRAM = new URL('bench/main.ts', ROOT);

interface Program {
  /** Takes all that stands after `bench`; help and wrong usage included. */
  main(argv: readonly string[]): Promise<ExitCode>;
}

/** Adds the command. Its options are those of the benchmark's scenarios, which it reads by itself. */
export function addBench(program: Command): void {
  program
    .command('bench')
    .summary('how fast it is on this machine, beside its peers')
    .description(
      'Runs pgbench workloads on servers of its own, measures Ibex beside its peers, and reports on the screen, as JSON, as Markdown and as plots. `ibex bench --help` lists scenarios and options.',
    )
    .usage('[options] [scenario..]')
    .argument('[arguments...]')
    .allowUnknownOption()
    .helpOption(false)
    .action(async (argv: readonly string[]) => {
      try {
        process.exitCode = await (await load()).main(argv);
      } catch (error) {
        process.exitCode = report(error, false);
      }
    });
}

async function load(): Promise<Program> {
  const hint = 'Run it in a checkout of Ibex, after `npm ci`: `npm run bench`.';
  if (!existsSync(PROGRAM)) {
    const path = fileURLToPath(PROGRAM);
    throw new IbexError('tool', `the benchmark is not part of this installation: there is no ${path}`, {
      hint,
    });
  }
  try {
    const { tsImport } = await import('tsx/esm/api');
    return await tsImport(PROGRAM.href, import.meta.url);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw cause;
    throw new IbexError('tool', 'the benchmark needs the development packages', { hint, cause });
  }
}
