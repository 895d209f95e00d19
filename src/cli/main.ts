/** The program `ibex`: all commands, and nothing else. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { backfill } from './backfill.ts';
import { addCommand, report } from './command.ts';
import { run } from './run.ts';
import { setup } from './setup.ts';
import { status } from './status.ts';
import { teardown } from './teardown.ts';
import { wait } from './wait.ts';

const { version, description } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string; description: string };

const program = new Command('ibex')
  .description(description)
  .version(version)
  .showHelpAfterError('(ibex --help lists the commands and options)')
  .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
  .exitOverride();

for (const spec of [setup, backfill, run, wait, status, teardown]) addCommand(program, spec);
for (const command of program.commands)
  command.exitOverride().showHelpAfterError(`(ibex ${command.name()} --help)`);

try {
  await program.parseAsync();
} catch (error) {
  // Commander has already said what is wrong; wrong usage is 2 whatever it thinks.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else process.exitCode = report(error, false);
}
