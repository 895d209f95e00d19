/** The program behind `npm run bench`: argv -> scenario -> report -> exit code. */
import { accessSync, constants, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { IbexError } from '../src/core/errors.ts';
import { type Call, parse, UsageError, usage } from './command-line.ts';
import { makeReport, readMachine, screenOf } from './report.ts';
import type { Scenario } from './scenario.ts';
import { catchUp } from './scenarios/catch-up.ts';
import { idle } from './scenarios/idle.ts';
import { latency } from './scenarios/latency.ts';
import { memory } from './scenarios/memory.ts';
import { overhead } from './scenarios/overhead.ts';

const SCENARIOS: readonly Scenario[] = [catchUp, latency, idle, memory, overhead];

// Everything that is started goes with this process: servers and programs each see to it when it exits.
process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));

/** 0 done, 1 a run ended with different tables, 2 wrong usage, 3 could not do it. */
async function main(argv: readonly string[]): Promise<0 | 1 | 2 | 3> {
  try {
    const call = parse(argv, SCENARIOS);
    if (call === undefined) {
      process.stdout.write(usage(SCENARIOS));
      return 0;
    }
    return await runScenario(call);
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`error: ${error.message}\n\n${usage(SCENARIOS)}`);
      return 2;
    }
    const hint = error instanceof IbexError ? `\n  ${error.hint}` : '';
    process.stderr.write(`error: ${(error as Error).message}${hint}\n`);
    return 3;
  }
}

async function runScenario({ scenario, options, json }: Call): Promise<0 | 1> {
  const file = json === undefined ? undefined : writable(json);
  const machine = readMachine();
  const startedAt = new Date();
  const outcome = await scenario.run(options);
  const report = await makeReport(scenario, options, machine, startedAt, outcome);
  if (file !== undefined) writeFileSync(file, `${JSON.stringify(report, null, 2)}\n`);
  process.stdout.write(screenOf(report, outcome.screen));
  return outcome.ok ? 0 : 1;
}

/** Minutes of measuring are not to end with a file that cannot be written. */
function writable(path: string): string {
  const file = resolve(path);
  try {
    accessSync(dirname(file), constants.W_OK);
    return file;
  } catch {
    throw new UsageError(`cannot write to the directory of ${path}`);
  }
}

process.exitCode = await main(process.argv.slice(2));
