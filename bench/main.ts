/** The program behind `ibex bench`: argv -> scenarios -> report -> exit code. */
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { IbexError } from '../src/core/errors.ts';
import { draw } from './charts/draw.ts';
import { type Call, type Planned, parse, UsageError, usage } from './command-line.ts';
import { choosePeers } from './peers.ts';
import {
  contractLines,
  documentOf,
  markdownOf,
  type Origin,
  plotsOf,
  type Result,
  readOrigin,
  screenOf,
} from './report.ts';
import { type Bench, type Scenario, say } from './scenario.ts';
import { backfill } from './scenarios/backfill.ts';
import { bulk } from './scenarios/bulk.ts';
import { catchUp } from './scenarios/catch-up.ts';
import { growth } from './scenarios/growth.ts';
import { idle } from './scenarios/idle.ts';
import { lag } from './scenarios/lag.ts';
import { memory } from './scenarios/memory.ts';
import { overhead } from './scenarios/overhead.ts';
import { shapes } from './scenarios/shapes.ts';
import { sustained } from './scenarios/sustained.ts';
import { verify } from './scenarios/verify.ts';
import { Servers } from './servers.ts';

/** In the order of a report. */
export const SCENARIOS: readonly Scenario[] = [
  overhead,
  bulk,
  catchUp,
  sustained,
  lag,
  ...shapes,
  growth,
  backfill,
  memory,
  idle,
  verify,
];

/** 0 done, 1 a run ended with different tables, 2 wrong usage, 3 could not do it. */
type ExitCode = 0 | 1 | 2 | 3;

export async function main(argv: readonly string[]): Promise<ExitCode> {
  try {
    const call = parse(argv, SCENARIOS);
    if (call === undefined) {
      process.stdout.write(usage(SCENARIOS));
      return 0;
    }
    return await runScenarios({ ...call, ...writable(call) });
  } catch (error) {
    if (!(error instanceof UsageError)) return failed(error);
    process.stderr.write(`error: ${error.message}\n  \`ibex bench --help\` lists what there is.\n`);
    return 2;
  }
}

/** One scenario that cannot run does not take the others with it. */
async function runScenarios(call: Call): Promise<ExitCode> {
  await using servers = await Servers.of(call.against);
  // What is started goes with this process: servers and programs each see to it when it exits. What was made on the
  // servers of others does not.
  const leave = (code: number) => () => servers.cleanUp().finally(() => process.exit(code));
  process.on('SIGINT', leave(130));
  process.on('SIGTERM', leave(143));
  const origin = readOrigin(call.pass);
  const results: Result[] = [];
  let code: ExitCode = 0;
  announce(call.planned);
  for (const { scenario, options } of call.planned) {
    const { peers, leftOut } = choosePeers(scenario.peers, call.peers, servers.hasSuperusers);
    for (const { peer, why } of leftOut) say(`${scenario.name}: ${peer} is left out: ${why}`);
    const startedAt = Date.now();
    try {
      const outcome = await scenario.run(options, benchOf(call, servers, peers));
      const tookSeconds = Math.round((Date.now() - startedAt) / 1000);
      results.push({ scenario: scenario.name, options, tookSeconds, leftOut, outcome });
    } catch (error) {
      code = failed(error);
      await servers.discard();
      continue;
    }
    // After each of them: hours of measuring are not to be lost to what comes last.
    write(call, origin, results);
    process.stdout.write(`${screenOf(origin, results.at(-1) as Result)}\n`);
  }
  process.stdout.write(contractLines(origin, results));
  return code === 0 && results.some(({ outcome }) => !outcome.ok) ? 1 : code;
}

/** How long it is going to take, where that is known. */
function announce(planned: readonly Planned[]): void {
  if (planned.some(({ minutes }) => minutes === undefined)) return;
  const total = planned.reduce((sum, { minutes = 0 }) => sum + minutes, 0);
  const each = planned.map(({ scenario, minutes }) => `${scenario.name} ${minutes}`).join(', ');
  say(`about ${Math.ceil(total)} min on two cores (${each})`);
}

/** Who compares with programs of the distribution measures all on the distribution's servers. */
function benchOf({ peers: asked }: Call, servers: Servers, peers: ReadonlySet<string>): Bench {
  const distribution = asked?.some((name) => name === 'bucardo' || name === 'pgcopydb') === true;
  return {
    peers,
    servers: (which = 'usual') =>
      servers.lend(distribution || which === 'distribution' ? 'distribution' : 'embedded'),
  };
}

function failed(thrown: unknown): 3 {
  // Where cleaning up failed as well, what came first says more.
  const error = (thrown as { suppressed?: unknown }).suppressed ?? thrown;
  const hint = error instanceof IbexError ? `\n  ${error.hint}` : '';
  process.stderr.write(`error: ${(error as Error).message}${hint}\n`);
  return 3;
}

function write({ json, out }: Call, origin: Origin, results: readonly Result[]): void {
  const document = `${JSON.stringify(documentOf(origin, results), null, 2)}\n`;
  if (json !== undefined) writeFileSync(json, document);
  if (out === undefined) return;
  writeFileSync(join(out, 'report.json'), document);
  const drawn = new Map<string, string>();
  for (const { file, plot } of plotsOf(results)) {
    const image = draw(plot);
    if (image === undefined) continue;
    writeFileSync(join(out, file), image);
    drawn.set(file, plot.title);
  }
  writeFileSync(join(out, 'report.md'), markdownOf(origin, results, drawn));
}

/** Minutes of measuring are not to end with a file that cannot be written. Makes the directory of `--out`. */
function writable({ json, out }: Call): Pick<Call, 'json' | 'out'> {
  const usable = (directory: string, path: string) => {
    try {
      if (directory === out) mkdirSync(directory, { recursive: true });
      accessSync(directory, constants.W_OK);
      return resolve(path);
    } catch {
      throw new UsageError(`cannot write to the directory of ${path}`);
    }
  };
  return {
    json: json === undefined ? undefined : usable(dirname(resolve(json)), json),
    out: out === undefined ? undefined : usable(out, out),
  };
}
