/** `ibex status`: one verdict, and what it rests on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Option } from 'commander';
import { readStatus, type SyncStatus } from '../observe/status.ts';
import { statusText } from '../observe/status-text.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  print,
  requireKnown,
  tableFilter,
  withBothSides,
} from './command.ts';

export const status: CommandSpec = {
  name: 'status',
  summary: 'one verdict (READY or NOT READY), and why',
  description:
    'Reads both databases, so it tells the truth whether or not a daemon runs. Exit 0 when every sync is READY: a daemon runs it, every table streams, the lag is small, nothing is held.',
  options: ['tables', 'exclude', 'json'],
  own: [new Option('--watch', 'again every second, until interrupted')],
  run: async (context) => {
    for (;;) {
      const code = await show(context);
      if (!context.flags.watch) return code;
      await sleep(1_000, undefined, { signal: context.signal }).catch(() => undefined);
      if (context.signal.aborted) return code;
      if (process.stdout.isTTY) process.stdout.write('\u001b[2J\u001b[H');
    }
  },
};

async function show({ config }: Context): Promise<ExitCode> {
  const all: SyncStatus[] = [];
  for (const one of config.syncs) {
    all.push(
      await withBothSides(one, 'status', async (source, target, sync) => {
        await requireKnown(target, sync);
        return readStatus(source, target, sync.name, tableFilter(sync));
      }),
    );
  }
  print(config.json, all, all.map(statusText).join('\n\n'));
  return all.every((one) => one.verdict === 'READY') ? 0 : 1;
}
