/** `ibex conflicts list`, `show` and `resolve`: the record of all nodes, and what a person says to it. */
import type { NodeConfig } from '../config/urls.ts';
import { endsOtherwise, type Outcome, type PreviewRule, previewConflict } from '../conflict/preview.ts';
import {
  type Conflict,
  type ConflictFilter,
  type ConflictState,
  readConflicts,
} from '../conflict/recorded.ts';
import { type Decision, resolveConflict } from '../conflict/resolve.ts';
import { lineOf, outcomeText, pageOf } from '../conflict/text.ts';
import type { ConflictType } from '../core/conflict.ts';
import { IbexError } from '../core/errors.ts';
import type { TableName } from '../core/plan.ts';
import { Session } from '../postgres/session.ts';
import { type CommandSpec, type Context, type ExitCode, print, tableFilter } from './command.ts';
import { FILTERS, PREVIEW, TO } from './conflict-flags.ts';

const IDS = { name: 'id', summary: 'as `ibex conflicts list` shows them: NODE/NUMBER' };

const list: CommandSpec = {
  name: 'list',
  summary: 'the conflicts of all nodes, the newest first',
  description:
    'Gathers the record from every node of the configuration. With --preview each line says what another strategy would have done with what is recorded, and the last one how many would have ended otherwise. Exit 0, whatever there is.',
  options: ['tables', 'exclude', 'json'],
  own: [...FILTERS, PREVIEW],
  run: (context) =>
    withNodes(context, async (nodes): Promise<ExitCode> => {
      const { flags, config } = context;
      const all = await gather(nodes, filterOf(context, null));
      const chosen = all.slice(0, flags.limit as number);
      const more = all.length - chosen.length;
      const outcomes = await previewAll(nodes, chosen, flags.preview as PreviewRule | undefined);
      const lines = chosen.map((conflict, i) => `${lineOf(conflict)}${previewText(conflict, outcomes?.[i])}`);
      const changed = outcomes?.filter((outcome, i) => endsOtherwise(chosen[i] as Conflict, outcome)).length;
      if (more > 0) lines.push(`and ${more} more; --limit shows them`);
      if (changed !== undefined) lines.push(`${changed} of ${chosen.length} would have ended otherwise`);
      if (all.length === 0) lines.push('no conflicts');
      const conflicts = chosen.map((conflict, i) => document(conflict, outcomes?.[i]));
      const summary = changed === undefined ? {} : { otherwise: changed };
      print(config.json, { conflicts, more, ...summary }, lines.join('\n'));
      return 0;
    }),
};

const show: CommandSpec = {
  name: 'show',
  summary: 'everything that the record has of single conflicts',
  description: 'Both rows column by column, when each was changed, what decided and what came of it.',
  argument: IDS,
  options: ['json'],
  own: [PREVIEW],
  run: (context) =>
    withNodes(context, async (nodes): Promise<ExitCode> => {
      const chosen = await findAll(nodes, context);
      const outcomes = await previewAll(nodes, chosen, context.flags.preview as PreviewRule | undefined);
      const pages = chosen.map((conflict, i) => {
        const outcome = outcomes?.[i];
        return outcome === undefined
          ? pageOf(conflict)
          : `${pageOf(conflict)}\n  preview     ${outcomeText(conflict, outcome)}`;
      });
      const conflicts = chosen.map((conflict, i) => document(conflict, outcomes?.[i]));
      print(context.config.json, { conflicts }, pages.join('\n\n'));
      return 0;
    }),
};

const resolve: CommandSpec = {
  name: 'resolve',
  summary: 'say which row is to stand',
  description:
    'Decides conflicts that are held or have stopped a sync, or otherwise than a strategy has. The row that is to stand is written, or noted as changed, on its node, and travels from there as an ordinary change, by the daemon. Of a conflict that waits, source and target mean the row that the node has now; of one that was decided, the row that the record has.',
  argument: IDS,
  options: ['json'],
  own: [TO],
  run: (context) =>
    withNodes(context, async (nodes): Promise<ExitCode> => {
      const decision = context.flags.to as Decision;
      const chosen = await findAll(nodes, context);
      const done: string[] = [];
      for (const conflict of chosen) {
        // An earlier one of the same key may have taken this one with it.
        const [now] = await findAll(nodes, { ...context, args: [conflict.id] });
        if (now === undefined || (done.length > 0 && now.state === 'closed' && conflict.state !== 'closed'))
          continue;
        const party = (name: string) => sessionOf(nodes, name);
        await resolveConflict(now, decision, {
          local: party(now.local.node),
          incoming: party(now.incoming.node),
          guard: context.config.syncs.some(({ name, guard }) => name === now.sync && guard !== null),
        });
        done.push(now.id);
      }
      const after = await findAll(nodes, context);
      print(
        context.config.json,
        { conflicts: after.map((conflict) => document(conflict, undefined)) },
        after.map(lineOf).join('\n'),
      );
      return 0;
    }),
};

export const conflicts = {
  name: 'conflicts',
  summary: 'what was decided where both sides had changed a row: list, show, resolve',
  commands: [list, show, resolve],
};

type Nodes = ReadonlyMap<string, Session>;

async function withNodes<T>({ config }: Context, body: (nodes: Nodes) => Promise<T>): Promise<T> {
  const nodes = new Map<string, Session>();
  const open = async (node: NodeConfig, sync: string) => {
    if (nodes.has(node.name)) return;
    nodes.set(
      node.name,
      await Session.open({ url: await node.resolveUrl(), name: `ibex:${sync}:conflicts` }),
    );
  };
  try {
    for (const { name, source, target } of config.syncs) {
      await open(source, name);
      await open(target, name);
    }
    return await body(nodes);
  } finally {
    for (const session of nodes.values()) await session.close();
  }
}

function sessionOf(nodes: Nodes, name: string): Session {
  const session = nodes.get(name);
  if (session !== undefined) return session;
  throw new IbexError('config', `no sync of the configuration has a node ${name}`, {
    hint: 'The record names nodes as they were called then; give the node its former name, or --config that has it.',
  });
}

function filterOf({ config, flags }: Context, number: string | null): ConflictFilter {
  const filters = config.syncs.map(tableFilter);
  return {
    syncs: config.syncs.map(({ name }) => name),
    types: (flags.type as ConflictType[] | undefined) ?? null,
    states: (flags.state as ConflictState[] | undefined) ?? null,
    since: (flags.since as Date | undefined) ?? null,
    number,
    covers: (table: TableName) => filters.some((covers) => covers(table)),
  };
}

/** The newest first, over all nodes. */
async function gather(nodes: Nodes, filter: ConflictFilter): Promise<Conflict[]> {
  const all: Conflict[] = [];
  for (const [name, session] of nodes) all.push(...(await readConflicts(session, name, filter)));
  return all.sort((a, b) => b.at.getTime() - a.at.getTime());
}

/** Errors: `config` for an id that is none, or that no record has. */
async function findAll(nodes: Nodes, context: Context): Promise<Conflict[]> {
  const found: Conflict[] = [];
  for (const id of context.args) {
    const [, node, number] = /^([a-z][a-z0-9_]*)\/(\d{1,18})$/.exec(id) ?? [];
    if (node === undefined || number === undefined || !nodes.has(node))
      throw new IbexError(
        'config',
        `${id} is no conflict: ids are NODE/NUMBER, the nodes ${[...nodes.keys()].join(', ')}`,
      );
    const [conflict] = await readConflicts(sessionOf(nodes, node), node, filterOf(context, number));
    if (conflict === undefined)
      throw new IbexError('config', `there is no conflict ${id}`, {
        hint: '`ibex conflicts list` shows them; records are kept for conflict_retention.',
      });
    found.push(conflict);
  }
  return found;
}

async function previewAll(
  nodes: Nodes,
  conflicts: readonly Conflict[],
  rule: PreviewRule | undefined,
): Promise<Outcome[] | undefined> {
  if (rule === undefined) return undefined;
  const outcomes: Outcome[] = [];
  for (const conflict of conflicts)
    outcomes.push(await previewConflict(sessionOf(nodes, conflict.node), conflict, rule));
  return outcomes;
}

function previewText(conflict: Conflict, outcome: Outcome | undefined): string {
  return outcome === undefined ? '' : `  (preview: ${outcomeText(conflict, outcome)})`;
}

function document(conflict: Conflict, outcome: Outcome | undefined): object {
  const { number: _, ...rest } = conflict;
  if (outcome === undefined) return rest;
  return { ...rest, preview: { ...outcome, otherwise: endsOtherwise(conflict, outcome) } };
}
