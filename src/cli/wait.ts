/** `ibex wait`: exits 0 as soon as everything committed on the source before the call is on the target. */
import { pausedSince } from '../apply/restraint.ts';
import { readSyncTables } from '../apply/state.ts';
import type { SyncConfig } from '../config/syncs.ts';
import { faultText, SequenceCarrier } from '../engine/sequences.ts';
import { readDaemon } from '../observe/status.ts';
import { waitForTarget } from '../observe/wait.ts';
import type { Session } from '../postgres/session.ts';
import {
  type CommandSpec,
  type Context,
  onlySync,
  print,
  requireKnown,
  tableFilter,
  withBothSides,
} from './command.ts';

export const wait: CommandSpec = {
  name: 'wait',
  summary: 'wait until the target has everything committed before the call',
  description:
    'Exits 0 as soon as everything committed on the source before the call, the backfill included, was applied by the running daemon, and the sequences of the target are ahead of those of the source; 1 at the time-out, or at once when only held tables are missing, with their names, or the sync is paused. An open transaction never delays it.',
  options: ['tables', 'exclude', 'timeout', 'json'],
  run: (context) => {
    const { config, signal } = context;
    return withBothSides(onlySync(config), 'wait', async (source, target, sync) => {
      await requireKnown(target, sync);
      const deadline = Date.now() + config.timeoutMs;
      const filter = tableFilter(sync);
      const result = await waitForTarget(source, target, {
        sync: sync.name,
        filter,
        timeoutMs: config.timeoutMs,
        signal,
      });
      const sequences = result.done
        ? await carrySequences(context, sync, source, target, deadline)
        : { missing: [], notCarried: [] };
      const missing = [...result.missing, ...sequences.missing];
      const done = result.done && missing.length === 0;
      const nobody = !result.done && (await readDaemon(target, sync.name)) === null;
      const lines = [
        ...sequences.notCarried,
        ...missing.map(({ table, reason }) => `${table}: ${reason}`),
        ...(result.paused === null ? [] : [`${sync.name} is ${pausedSince(result.paused)}`]),
        ...(nobody ? ['no daemon runs this sync; start it with `ibex run`'] : []),
        ...(done ? ['the target has everything'] : []),
      ];
      print(
        config.json,
        {
          sync: sync.name,
          done,
          missing: missing.map(({ table, reason }) => ({ table, reason })),
          notCarried: sequences.notCarried,
          paused: result.paused,
        },
        lines.join('\n'),
      );
      return done ? 0 : 1;
    });
  },
};

/** The daemon looks at them every few seconds only, so this is done here. */
async function carrySequences(
  { signal }: Context,
  sync: SyncConfig,
  source: Session,
  target: Session,
  deadline: number,
) {
  if (sync.rivalry !== null) return { missing: [], notCarried: [] };
  const tables = (await readSyncTables(target, sync.name))
    .filter(tableFilter(sync))
    .map((table) => ({ source: table, target: table }));
  const limits = { deadline, signal };
  const { locked, faults } = await new SequenceCarrier().carry(source, target, tables, limits);
  return {
    missing: locked.map((table) => ({ table, reason: 'others have the sequence locked' })),
    notCarried: faults.map(faultText),
  };
}
