/** The program behind `ibex bench`: argv -> scenarios -> report -> exit code. */
import { accessSync, constants, writeFileSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { IbexError } from '../src/core/errors.ts';
import { chartOf } from './chart.ts';
import { type Call, type Files, parse, UsageError, usage } from './command-line.ts';
import { choosePeers } from './peers.ts';
import { documentOf, markdownOf, type Origin, type Result, readOrigin, screenOf } from './report.ts';
import { type Scenario, say } from './scenario.ts';
import { backfill } from './scenarios/backfill.ts';
import { catchUp } from './scenarios/catch-up.ts';
import { idle } from './scenarios/idle.ts';
import { latency } from './scenarios/latency.ts';
import { memory } from './scenarios/memory.ts';
import { overhead } from './scenarios/overhead.ts';

const SCENARIOS: readonly Scenario[] = [backfill, catchUp, latency, idle, memory, overhead];

/** 0 done, 1 a run ended with different tables, 2 wrong usage, 3 could not do it. */
type ExitCode = 0 | 1 | 2 | 3;

export async function main(argv: readonly string[]): Promise<ExitCode> {
  // Everything that is started goes with this process: servers and programs each see to it when it exits.
  process.on('SIGINT', () => process.exit(130));
  process.on('SIGTERM', () => process.exit(143));
  try {
    const call = parse(argv, SCENARIOS);
    if (call === undefined) {
      process.stdout.write(usage(SCENARIOS));
      return 0;
    }
    return await runScenarios({ ...call, files: writable(call.files) });
  } catch (error) {
    if (!(error instanceof UsageError)) return failed(error);
    process.stderr.write(`error: ${error.message}\n  \`ibex bench --help\` lists what there is.\n`);
    return 2;
  }
}

/** One scenario that cannot run does not take the others with it. */
async function runScenarios({ scenarios, peers: asked, files }: Call): Promise<ExitCode> {
  const origin = readOrigin();
  const results: Result[] = [];
  let code: ExitCode = 0;
  for (const { scenario, options } of scenarios) {
    const { peers, leftOut } = choosePeers(scenario.peers, asked);
    for (const { peer, why } of leftOut) say(`${scenario.name}: ${peer} is left out: ${why}`);
    const startedAt = Date.now();
    try {
      const outcome = await scenario.run(options, peers);
      const tookSeconds = Math.round((Date.now() - startedAt) / 1000);
      results.push({ scenario: scenario.name, options, tookSeconds, leftOut, outcome });
    } catch (error) {
      code = failed(error);
      continue;
    }
    // After each of them: hours of measuring are not to be lost to what comes last.
    write(files, origin, results);
    process.stdout.write(`${screenOf(origin, results.at(-1) as Result)}\n`);
  }
  return code === 0 && results.some(({ outcome }) => !outcome.ok) ? 1 : code;
}

function failed(error: unknown): 3 {
  const hint = error instanceof IbexError ? `\n  ${error.hint}` : '';
  process.stderr.write(`error: ${(error as Error).message}${hint}\n`);
  return 3;
}

function write({ json, markdown, svg }: Files, origin: Origin, results: readonly Result[]): void {
  const charts = results.flatMap(({ outcome }) => (outcome.chart === undefined ? [] : [outcome.chart]));
  const chart = svg === undefined ? undefined : chartOf(charts);
  if (svg !== undefined && chart !== undefined) writeFileSync(svg, chart);
  const image = svg !== undefined && chart !== undefined ? basename(svg) : undefined;
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(documentOf(origin, results), null, 2)}\n`);
  if (markdown !== undefined) writeFileSync(markdown, markdownOf(origin, results, image));
}

/** Minutes of measuring are not to end with a file that cannot be written. */
function writable(files: Files): Files {
  return Object.fromEntries(
    Object.entries(files).map(([kind, path]) => {
      const file = resolve(path);
      try {
        accessSync(dirname(file), constants.W_OK);
        return [kind, file];
      } catch {
        throw new UsageError(`cannot write to the directory of ${path}`);
      }
    }),
  );
}
