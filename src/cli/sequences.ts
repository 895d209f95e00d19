/** `ibex sequences sync`: brings the sequences of the target ahead of those of the source, once and by itself. */
import { InvalidArgumentError, Option } from 'commander';
import type { SyncConfig } from '../config/syncs.ts';
import { MARGIN } from '../core/sequence.ts';
import { type CarriedTable, faultText, SequenceCarrier } from '../engine/sequences.ts';
import type { Session } from '../postgres/session.ts';
import { readKnown } from '../setup/setup.ts';
import { chooseTables } from '../setup/tables.ts';
import {
  type CommandSpec,
  type ExitCode,
  onlySync,
  print,
  requireKnown,
  tableFilter,
  withBothSides,
} from './command.ts';

/** How long those are tried again that others have locked. */
const PATIENCE_MS = 10_000;

const sync: CommandSpec = {
  name: 'sync',
  summary: 'bring the sequences of the target ahead of those of the source, once',
  description:
    'Sets every sequence of the target ahead of where the one of the source stands now, identity columns included, and never moves one back. A sync that is set up carries those of its tables, otherwise those of --tables are taken, or of all tables; and in any case those that belong to no table. The daemon and `ibex wait` do the same by themselves. Exit 1 when a sequence cannot be carried or is locked by others for ten seconds, each with its name.',
  options: ['tables', 'exclude', 'json'],
  own: [
    new Option(
      '--margin <steps>',
      'how many steps ahead of the source, of which a sequence takes at most a tenth of what it has left',
    )
      .default(MARGIN, String(MARGIN))
      .argParser(parseMargin),
  ],
  run: ({ config, flags, signal }) => {
    return withBothSides(onlySync(config), 'sequences', async (source, target, chosen): Promise<ExitCode> => {
      await requireKnown(target, chosen);
      const tables = await tablesOf(source, target, chosen);
      const limits = { deadline: Date.now() + PATIENCE_MS, signal };
      const carrier = new SequenceCarrier(flags.margin as bigint);
      const { carried, faults, locked } = await carrier.carry(source, target, tables, limits);
      const lines = [
        ...carried.map(
          (one) =>
            `${one.sequence}: ${one.sourceAt} on the source, ${one.moved ? 'set to' : 'at'} ${one.targetAt}`,
        ),
        ...faults.map(faultText),
        ...locked.map((one) => `sequence ${one} is not carried: others have it locked; run this again`),
        `${carried.length} of ${carried.length + faults.length + locked.length} sequences are ahead`,
      ];
      const document = {
        sync: chosen.name,
        sequences: carried.map(({ sourceAt, targetAt, ...one }) => ({
          ...one,
          sourceAt: String(sourceAt),
          targetAt: String(targetAt),
        })),
        notCarried: faults,
        locked,
      };
      print(config.json, document, lines.join('\n'));
      return faults.length + locked.length === 0 ? 0 : 1;
    });
  },
};

function parseMargin(text: string): bigint {
  if (/^\d{1,18}$/.test(text)) return BigInt(text);
  throw new InvalidArgumentError('It must be a number of steps, 0 or more.');
}

/** The tables whose sequences are meant: those of the sync, or what the call names while there is none. */
async function tablesOf(source: Session, target: Session, chosen: SyncConfig): Promise<CarriedTable[]> {
  const known = (await readKnown(target, chosen.name)).filter(tableFilter(chosen));
  const tables = known.length > 0 ? known : await chooseTables(source, chosen, []);
  return tables.map((table) => ({ source: table, target: table }));
}

export const sequences = {
  name: 'sequences',
  summary: 'the sequences of the target: bring them ahead of those of the source',
  commands: [sync],
};
