/** Shows how a copy goes while a command waits for it: bars on a terminal, otherwise lines of the log. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { CopyWatch } from '../observe/copy-watch.ts';
import { LINE_EVERY_MS, logProgress } from '../observe/progress-text.ts';
import { stderrScreen } from '../observe/screen.ts';
import { barsOf } from './bars.ts';
import { type Context, onlySync, openSession, tableFilter } from './command.ts';

/** Pause between looks, for bars and for lines: of those there is one in ten seconds. */
const LOOK_MS = { bars: 500, lines: 2_500 };
/** Looks take at most this part of the time: the process that copies may be this one. */
const LOOK_SHARE = 1 / 20;

/** Runs until the signal. */
export async function showProgress({ config, log }: Context, done: AbortSignal): Promise<void> {
  const sync = onlySync(config);
  const { CI, TERM } = process.env;
  const bars = process.stderr.isTTY === true && !CI && TERM !== 'dumb' && !config.json;
  const lookMs = LOOK_MS[bars ? 'bars' : 'lines'];
  const watch = new CopyWatch({
    sync: sync.name,
    filter: tableFilter(sync),
    open: (side) => openSession(sync, side, 'progress'),
    onError: (error) => log.debug({ err: error }, 'could not read the progress'),
  });
  let saidAt = performance.now();
  let tookMs = 0;
  try {
    while (!done.aborted) {
      await sleep(Math.max(lookMs, tookMs / LOOK_SHARE), undefined, { signal: done }).catch(() => undefined);
      const due = bars || performance.now() - saidAt >= LINE_EVERY_MS;
      const began = performance.now();
      const view = done.aborted ? undefined : await watch.look();
      tookMs = performance.now() - began;
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
