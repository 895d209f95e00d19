/** The program `ibex`: all commands, and nothing else. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { ROOT } from '../core/root.ts';
import { backfill } from './backfill.ts';
import { addBench } from './bench.ts';
import { addCommand, addGroup, report, usageError } from './command.ts';
import { conflicts } from './conflicts.ts';
import { cutover, rollback } from './cutover.ts';
import { addDemo } from './demo.ts';
import { doctor } from './doctor.ts';
import { pause, resume } from './pause.ts';
import { run } from './run.ts';
import { schema } from './schema.ts';
import { sequences } from './sequences.ts';
import { setup } from './setup.ts';
import { status } from './status.ts';
import { tables } from './tables.ts';
import { teardown } from './teardown.ts';
import { verify } from './verify.ts';
import { wait } from './wait.ts';
import { worker } from './worker.ts';

const { version, description } = JSON.parse(readFileSync(new URL('package.json', ROOT), 'utf8')) as {
  version: string;
  description: string;
};

const program = new Command('ibex')
  .description(description)
  .version(version)
  // Usage errors are reported below, as two lines like all others.
  .configureOutput({ outputError: () => undefined })
  .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
  .exitOverride();

addCommand(program, doctor);
addGroup(program, schema);
for (const spec of [setup, backfill, run, worker, pause, resume, wait, status, verify])
  addCommand(program, spec);
addGroup(program, tables);
addGroup(program, conflicts);
addGroup(program, sequences);
addCommand(program, cutover);
addCommand(program, rollback);
addCommand(program, teardown);
addBench(program);
addDemo(program);

try {
  await program.parseAsync();
} catch (error) {
  // Help and version, asked for or not, were written where they belong.
  if (!(error instanceof CommanderError)) process.exitCode = report(error, false);
  else if (error.exitCode === 0) process.exitCode = 0;
  else process.exitCode = error.code === 'commander.help' ? 2 : report(usageError(error), false);
}
