/**
 * The demo: a shop moves house while it is open. Servers, role, rows and load are made here; the moving is done
 * by `ibex run`, started as a command like anybody would; whether it is all there is asked of the databases.
 */
import type { IbexError } from '../core/errors.ts';
import { Belongings } from './belongings.ts';
import { compareAll } from './compare.ts';
import { forgetPgVariables } from './environment.ts';
import type { Ibex } from './ibex.ts';
import { Moving } from './moving.ts';
import { Progress } from './progress.ts';
import { addUp, type DemoResult } from './result.ts';
import { connect, type Places, startServers } from './servers.ts';
import { openShop, Pgbench } from './shop.ts';
import { playTwoWay, type TwoWayOptions, type TwoWayResult } from './two-way/two-way.ts';

export interface DemoOptions {
  /** How long the load goes on once everything is copied. */
  readonly seconds: number;
  /** Leave it running after the result, until the signal. */
  readonly keep: boolean;
  readonly wantsRedis: boolean;
  /** Takes the result as soon as it is there. */
  readonly show: (result: DemoResult) => void;
}

/**
 * Runs the demo and ends everything it started. Resolves to the result, or undefined when the signal came first.
 * Errors: `tool` and whatever else kept it from coming to a result.
 */
export async function runDemo(options: DemoOptions, signal: AbortSignal): Promise<DemoResult | undefined> {
  return withBelongings(signal, async (belongings, progress, interrupted) => {
    const result = await Promise.race([interrupted, play(options, belongings, progress)]);
    progress.end();
    if (result === undefined) return undefined;
    options.show(result);
    if (options.keep) await interrupted;
    return result;
  });
}

/** The same with both sides written. */
export async function runTwoWayDemo(
  options: TwoWayOptions,
  signal: AbortSignal,
): Promise<TwoWayResult | undefined> {
  return withBelongings(signal, (belongings, progress, interrupted) =>
    Promise.race([interrupted, playTwoWay(options, belongings, progress)]),
  );
}

/** Ends everything that was started, whatever happens. `interrupted` resolves when the signal comes. */
async function withBelongings<T>(
  signal: AbortSignal,
  body: (belongings: Belongings, progress: Progress, interrupted: Promise<undefined>) => Promise<T>,
): Promise<T> {
  const belongings = new Belongings();
  const interrupted = new Promise<undefined>((resolve) => {
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
    if (signal.aborted) resolve(undefined);
  });
  const progress = new Progress();
  try {
    return await body(belongings, progress, interrupted);
  } finally {
    progress.end();
    await belongings.endAll(signal.aborted);
  }
}

async function play(options: DemoOptions, belongings: Belongings, progress: Progress): Promise<DemoResult> {
  const began = performance.now();
  forgetPgVariables();
  progress.step('Ibex demo: a shop moves to another server while it is open.');
  progress.show('starting two PostgreSQL servers');
  const places = await startServers(belongings, options.wantsRedis);
  introduce(places, progress);
  progress.show('filling the source');
  const [pgbench] = await Promise.all([preparePgbench(places, belongings, progress), openShop(places)]);

  const moving = new Moving({ places, belongings, progress, pgbench });
  const moved = await moving.run(options.seconds);

  progress.show('comparing every row');
  const tables = await compare(places);
  const { ibex, status, ...numbers } = moved;
  const log = await ibex.readLog();
  if (!options.keep) await ibex.stop();
  return {
    postgresql: places.version,
    queue: places.queue.kind,
    differences: tables.reduce((sum, table) => sum + table.differences, 0),
    tables,
    verdict: status.verdict,
    why: status.why,
    changes: addUp(status),
    ...numbers,
    log,
    seconds: (performance.now() - began) / 1000,
    ...(options.keep ? { urls: urlsOf(places, ibex) } : {}),
  };
}

function introduce(places: Places, progress: Progress): void {
  const at = (url: string) => `PostgreSQL ${places.version}, port ${new URL(url).port}`;
  progress.step(`  source   ${at(places.source)}`);
  progress.step(`  target   ${at(places.target)}`);
  progress.step(`  queue    ${places.queue.text}`);
  progress.step('  role     owns its database on both; no superuser, no replication, nothing else');
}

async function preparePgbench(
  places: Places,
  belongings: Belongings,
  progress: Progress,
): Promise<Pgbench | undefined> {
  const pgbench = Pgbench.find(places);
  if (pgbench === undefined) {
    progress.step('  load     the shop (with pgbench on the PATH: its tables and transactions as well)');
    return undefined;
  }
  try {
    await pgbench.initialise(belongings);
  } catch (error) {
    // Such as one too old to know the server's way with passwords. The shop is there without it.
    progress.step(`  load     the shop only: ${(error as IbexError).message}`);
    return undefined;
  }
  progress.step('  load     the shop, and pgbench beside it');
  return pgbench;
}

async function compare(places: Places) {
  const source = await connect(places.source, 'demo:compare');
  const target = await connect(places.target, 'demo:compare');
  try {
    return await compareAll(source, target);
  } finally {
    await Promise.all([source.end(), target.end()]);
  }
}

function urlsOf(places: Places, ibex: Ibex): NonNullable<DemoResult['urls']> {
  return { source: places.source, target: places.target, status: `${ibex.url}/status`, log: ibex.log };
}
