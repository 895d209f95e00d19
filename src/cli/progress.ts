/** Shows how a copy goes while a command waits for it: bars on a terminal, otherwise lines of the log. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { CopyWatch } from '../observe/copy-watch.ts';
import { LINE_EVERY_MS, logProgress } from '../observe/progress-text.ts';
import { stderrScreen } from '../observe/screen.ts';
import { barsOf } from './bars.ts';
import { type Context, onlySync, openSession, tableFilter } from './command.ts';

const LOOK_MS = 500;

/** Runs until the signal. */
export async function showProgress({ config, log }: Context, done: AbortSignal): Promise<void> {
  const sync = onlySync(config);
  const { CI, TERM } = process.env;
  const bars = process.stderr.isTTY === true && !CI && TERM !== 'dumb' && !config.json;
  const watch = new CopyWatch({
    sync: sync.name,
    filter: tableFilter(sync),
    open: (side) => openSession(sync, side, 'progress'),
    onError: (error) => log.debug({ err: error }, 'could not read the progress'),
  });
  let saidAt = performance.now();
  try {
    while (!done.aborted) {
      await sleep(LOOK_MS, undefined, { signal: done }).catch(() => undefined);
      const due = bars || performance.now() - saidAt >= LINE_EVERY_MS;
      const view = done.aborted ? undefined : await watch.look();
      if (view === undefined || !due || done.aborted) continue;
      saidAt = performance.now();
      if (bars) stderrScreen.show(barsOf(view, stderrScreen.columns, stderrScreen.lines));
      else logProgress(log, view);
    }
  } finally {
    if (bars) stderrScreen.clear();
    watch.end();
  }
}
