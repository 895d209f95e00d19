/** `ibex demo`: servers, rows and load of its own; needs no setting and leaves nothing behind. */
import { type Command, InvalidArgumentError } from 'commander';
import { IbexError } from '../core/errors.ts';
import type { DemoResult } from '../demo/result.ts';
import { type ExitCode, print, report, stopSignal } from './command.ts';

interface Flags {
  readonly seconds: number;
  readonly keep?: boolean;
  readonly twoWay?: boolean;
  readonly redis: boolean;
  readonly json?: boolean;
}

const MAX_SECONDS = 7 * 24 * 3600;

/** Adds the command. It has no URLs, so it goes without the settings that the other commands share. */
export function addDemo(program: Command): void {
  program
    .command('demo')
    .summary('see it work: two servers, a shop, live load, and proof at the end')
    .description(
      'Starts two PostgreSQL servers of its own, fills one, writes to it without pause, and moves everything to the other with `ibex run` and a role without any special right. At the end it compares every row, prints the numbers, and removes all it made. Exit 0 when nothing differs, 1 when something does.',
    )
    .option('--seconds <N>', 'how long the load goes on once everything is copied', parseSeconds, 20)
    .option('--two-way', 'write to both servers at once instead, and see conflicts appear and be resolved')
    .option('--keep', 'leave everything running at the end, until Ctrl-C; not with --two-way')
    .option('--no-redis', 'have the queue inside the process, also where there is a Redis')
    .option('--json', 'print the result as one JSON document on stdout')
    .exitOverride((error) => {
      throw Object.assign(error, { command: 'demo' });
    })
    .action(async (flags: Flags) => {
      process.exitCode = await demo(flags);
    });
}

async function demo({
  seconds,
  keep = false,
  twoWay = false,
  redis,
  json = false,
}: Flags): Promise<ExitCode> {
  if (twoWay && keep)
    return report(
      new IbexError('config', '--keep does not go with --two-way', { hint: 'Leave one of them out.' }),
      false,
    );
  const signal = endSignal();
  const { runDemo, runTwoWayDemo } = await import('../demo/demo.ts');
  const { isGood, screen } = await import('../demo/result.ts');
  const { isTwoWayGood, twoWayScreen } = await import('../demo/two-way/two-way.ts');
  const show = (result: DemoResult) => print(json, result, screen(result));
  try {
    if (twoWay) {
      const result = await runTwoWayDemo({ seconds, wantsRedis: redis }, signal);
      if (result !== undefined) {
        print(json, result, twoWayScreen(result));
        return isTwoWayGood(result) ? 0 : 1;
      }
    } else {
      const result = await runDemo({ seconds, keep, wantsRedis: redis, show }, signal);
      if (result !== undefined) return isGood(result) ? 0 : 1;
    }
    process.stderr.write('interrupted; everything is gone again\n');
  } catch (error) {
    report(error, false);
  }
  // What was under way is in no state to be waited for; what it started goes with this process.
  process.exit(3);
}

/**
 * SIGINT and SIGTERM; and under `npm run` also the end of the shell between npm and us, for npm hands a SIGTERM
 * to that shell, which dies of it without a word.
 */
function endSignal(): AbortSignal {
  const signal = stopSignal(3);
  if (process.env.npm_lifecycle_event === undefined) return signal;
  const parent = process.ppid;
  const orphaned = new AbortController();
  setInterval(() => {
    if (process.ppid !== parent) orphaned.abort();
  }, 500).unref();
  return AbortSignal.any([signal, orphaned.signal]);
}

function parseSeconds(given: string): number {
  const seconds = /^\d+(\.\d+)?$/.test(given) ? Number(given) : 0;
  if (seconds > 0 && seconds <= MAX_SECONDS) return seconds;
  throw new InvalidArgumentError(`It must be a positive number of seconds, at most ${MAX_SECONDS}.`);
}
