/**
 * `ibex sequences sync` brings the sequences of the target ahead of those of the source, once and by itself; `interleave` has
 * those of nodes that are all written take turns.
 */
import { InvalidArgumentError, Option } from 'commander';
import type { SyncConfig } from '../config/syncs.ts';
import { IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { MARGIN } from '../core/sequence.ts';
import { type CarriedTable, faultText, SequenceCarrier } from '../engine/sequences.ts';
import { Session } from '../postgres/session.ts';
import { interleaveShared, readShared, type SequenceNode } from '../setup/interleaving.ts';
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
      if (chosen.rivalry !== null)
        throw new IbexError('config', `${chosen.name} goes both ways: its sequences are not carried`, {
          hint: '`ibex sequences interleave` has them take turns.',
        });
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

const interleave: CommandSpec = {
  name: 'interleave',
  summary: 'have the sequences of nodes that are all written take turns',
  description:
    'For syncs between two nodes. Each sequence that can hand out the same value on two nodes is given a step of as many as there are nodes, and begins on each node beyond what any of them has handed out, with a remainder of its own. Sequences that take turns already, or have ranges of their own, stay as they are, so it is safe to repeat. Nobody can draw from a sequence while it is changed, which takes a moment. With --sync only the two nodes of that sync are looked at. Exit 1 when a sequence ends too early for that or is locked by others.',
  options: ['tables', 'exclude', 'json'],
  own: [
    new Option('--margin <steps>', 'how many values each node may draw before all are changed')
      .default(MARGIN, String(MARGIN))
      .argParser(parseMargin),
  ],
  run: async ({ config, flags }): Promise<ExitCode> => {
    const lanes = config.syncs.filter(({ rivalry }) => rivalry !== null);
    if (lanes.length === 0)
      throw new IbexError('config', 'no sync of the configuration is between two nodes', {
        hint: 'Where one side alone is written `ibex sequences sync` is what you want.',
      });
    const nodes: SequenceNode[] = [];
    try {
      for (const { name, source } of lanes) {
        if (nodes.some((node) => node.name === source.name)) continue;
        const url = await source.resolveUrl();
        nodes.push({
          name: source.name,
          session: await Session.open({ url, name: `ibex:${name}:sequences` }),
        });
      }
      return await takeTurns(nodes, lanes, { json: config.json, margin: flags.margin as bigint });
    } finally {
      for (const { session } of nodes) await session.close();
    }
  },
};

/** Every node is the source of some lane. */
async function takeTurns(
  nodes: readonly SequenceNode[],
  lanes: readonly SyncConfig[],
  { json, margin }: { readonly json: boolean; readonly margin: bigint },
): Promise<ExitCode> {
  const tables = new Map<string, TableName>();
  for (const lane of lanes) {
    const node = nodes.find(({ name }) => name === lane.source.name) as SequenceNode;
    for (const table of await chooseTables(node.session, lane, [])) tables.set(tableLabel(table), table);
  }
  const { shared, locked } = await readShared(nodes, [...tables.values()]);
  const names = nodes.map(({ name }) => name).sort();
  const done: object[] = [];
  const failed: string[] = [];
  const lines: string[] = [];
  for (const one of shared) {
    const made = one.collides ? await interleaveShared(one, names, margin) : [];
    if (made === null) failed.push(one.label);
    else if (one.collides) {
      const text = made.map(({ node, next, increment }) => `${node} from ${next} by ${increment}`).join(', ');
      lines.push(`${one.label}: ${text}`);
      const of = made.map(({ increment, next, ...rest }) => ({
        ...rest,
        increment: String(increment),
        next: String(next),
      }));
      done.push({ sequence: one.label, nodes: of });
    }
  }
  const already = shared.filter(({ collides }) => !collides).map(({ label }) => label);
  lines.push(
    ...already.map((label) => `${label}: hands out other values on each node already`),
    ...failed.map((label) => `${label}: ends before its turn would begin; give its column a wider type`),
    ...locked.map((label) => `${label}: others have it locked; run this again`),
  );
  print(json, { interleaved: done, already, tooShort: failed, locked }, lines.join('\n'));
  return failed.length + locked.length === 0 ? 0 : 1;
}

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
  summary: 'bring the sequences of the target ahead of those of the source, or have both take turns',
  commands: [sync, interleave],
};
