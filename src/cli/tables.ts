/** `ibex tables add`, `remove` and `recopy`: what a sync carries, changed while its daemon runs. */
import { becomeReplica } from '../apply/parking.ts';
import { parsePatterns, type TablePattern } from '../core/patterns.ts';
import { tableLabel } from '../core/plan.ts';
import { addTables, recopyTables, removeTables } from '../setup/membership.ts';
import {
  type CommandSpec,
  type Context,
  type ExitCode,
  onlySync,
  print,
  withBothSides,
  writeError,
} from './command.ts';

const PATTERNS = { name: 'table', summary: 'patterns such as public.orders or public.log_*' };

const add: CommandSpec = {
  name: 'add',
  summary: 'take tables into the sync',
  description:
    'Captures the tables and has them copied. A running daemon takes them in within a second or two, while the others stream on; without one the next `ibex run` does. A table that was taken out before is copied anew, replacing what the target has of it.',
  argument: PATTERNS,
  options: ['json'],
  run: (context) => {
    const { config } = context;
    return withBothSides(onlySync(config), 'tables', async (source, target, sync): Promise<ExitCode> => {
      const replica = await becomeReplica(target);
      const membership = { sync: sync.name, source, target, patterns: patternsOf(context) };
      const { added, already, obstacles } = await addTables({ ...membership, replica, carry: sync.carry });
      const [obstacle, ...more] = obstacles;
      if (obstacle !== undefined) {
        for (const { error } of more) writeError(error);
        throw obstacle.error;
      }
      const lines = [
        ...added.map((table) => `${tableLabel(table)}: added`),
        ...already.map((table) => `${tableLabel(table)}: part of the sync already`),
      ];
      const document = { sync: sync.name, added: added.map(tableLabel), already: already.map(tableLabel) };
      print(config.json, document, lines.join('\n'));
      return 0;
    });
  },
};

const remove: CommandSpec = {
  name: 'remove',
  summary: 'take tables out of the sync',
  description:
    'Takes the triggers off, and puts back what was set aside on the target. The rows on the target stay. The patterns of the sync do not bring the tables back; `ibex tables add` does. Exit 1 when a table is still locked by others after --arm-timeout; run it again.',
  argument: PATTERNS,
  options: ['lock_timeout_ms', 'arm_timeout', 'json'],
  run: (context) => {
    const { config, signal } = context;
    return withBothSides(onlySync(config), 'tables', async (source, target, sync): Promise<ExitCode> => {
      const membership = { sync: sync.name, source, target, patterns: patternsOf(context) };
      const limits = { lockTimeoutMs: config.lockTimeoutMs, patienceMs: config.armTimeoutMs, signal };
      const result = await removeTables(membership, limits);
      const removed = result.removed.map(tableLabel);
      const waiting = [...result.source.waiting, ...result.guard.waiting];
      const { notRestored } = result.target;
      const lines = [
        ...removed.map((table) => `${table}: removed`),
        ...waiting.map(
          ({ relation, blockers }) =>
            `${relation} is still armed: locked by ${blockers.join(', ') || 'others'}`,
        ),
        ...notRestored.map((reason) => `not restored: ${reason}`),
      ];
      print(config.json, { sync: sync.name, removed, waiting, notRestored }, lines.join('\n'));
      return waiting.length + notRestored.length === 0 ? 0 : 1;
    });
  },
};

const recopy: CommandSpec = {
  name: 'recopy',
  summary: 'copy tables again',
  description:
    'Empties the tables on the target and copies them again, also those whose changes were given up, through the running daemon or the next `ibex run`. The others stream on.',
  argument: PATTERNS,
  options: ['json'],
  run: (context) => {
    const { config } = context;
    return withBothSides(onlySync(config), 'tables', async (source, target, sync): Promise<ExitCode> => {
      const chosen = await recopyTables({ sync: sync.name, source, target, patterns: patternsOf(context) });
      const tables = chosen.map(tableLabel);
      print(
        config.json,
        { sync: sync.name, tables },
        tables.map((table) => `${table}: copied again`).join('\n'),
      );
      return 0;
    });
  },
};

function patternsOf({ args }: Context): TablePattern[] {
  return args.flatMap(parsePatterns);
}

export const tables = {
  name: 'tables',
  summary: 'what a sync carries: add, remove, recopy tables while it runs',
  commands: [add, remove, recopy],
};
