/** What the log of a daemon says of a copy: every ten seconds how far it is, as long as it gets on. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { SyncConfig } from '../config/syncs.ts';
import { CopyWatch } from '../observe/copy-watch.ts';
import type { Logger } from '../observe/log.ts';
import { LINE_EVERY_MS, logProgress } from '../observe/progress-text.ts';
import { Session } from '../postgres/session.ts';

/** Runs until the signal. Asks nobody anything while everything streams. */
export async function sayProgress(
  sync: SyncConfig,
  log: Logger,
  isStreaming: () => boolean,
  signal: AbortSignal,
): Promise<void> {
  const watch = new CopyWatch({
    sync: sync.name,
    filter: () => true,
    open: async (side) =>
      Session.open({ url: await sync[side].resolveUrl(), name: `ibex:${sync.name}:progress` }),
    onError: (error) => log.debug({ err: error }, 'could not read the progress'),
  });
  let said = -1;
  while (!signal.aborted) {
    await sleep(LINE_EVERY_MS, undefined, { signal }).catch(() => undefined);
    const view = signal.aborted || isStreaming() ? undefined : await watch.look();
    watch.end();
    if (view === undefined) continue;
    const { jobs, bytes } = view.copy;
    if (jobs > 0 || bytes.copied !== said) logProgress(log, view);
    said = bytes.copied;
  }
}
