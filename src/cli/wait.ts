/** `ibex wait`: exits 0 as soon as everything committed on the source before the call is on the target. */
import { pausedSince } from '../apply/restraint.ts';
import { readDaemon } from '../observe/status.ts';
import { waitForTarget } from '../observe/wait.ts';
import { type CommandSpec, onlySync, print, requireKnown, tableFilter, withBothSides } from './command.ts';

export const wait: CommandSpec = {
  name: 'wait',
  summary: 'wait until the target has everything committed before the call',
  description:
    'Exits 0 as soon as everything committed on the source before the call, the backfill included, was applied by the running daemon; 1 at the time-out, or at once when only held tables are missing, with their names, or the sync is paused. An open transaction never delays it.',
  options: ['tables', 'exclude', 'timeout', 'json'],
  run: ({ config, signal }) => {
    const sync = onlySync(config);
    return withBothSides(sync, 'wait', async (source, target) => {
      await requireKnown(target, sync);
      const filter = tableFilter(sync);
      const result = await waitForTarget(source, target, {
        sync: sync.name,
        filter,
        timeoutMs: config.timeoutMs,
        signal,
      });
      const nobody = !result.done && (await readDaemon(target, sync.name)) === null;
      const text = result.done
        ? 'the target has everything'
        : [
            ...result.missing.map(({ table, reason }) => `${table}: ${reason}`),
            ...(result.paused === null ? [] : [`${sync.name} is ${pausedSince(result.paused)}`]),
            ...(nobody ? ['no daemon runs this sync; start it with `ibex run`'] : []),
          ].join('\n');
      print(
        config.json,
        {
          sync: sync.name,
          done: result.done,
          missing: result.missing.map(({ table, reason }) => ({ table, reason })),
          paused: result.paused,
        },
        text,
      );
      return result.done ? 0 : 1;
    });
  },
};
