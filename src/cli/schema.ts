/** `ibex schema copy` and `ibex schema diff`: the target's schema, made from the source's and compared with it. */
import { Option } from 'commander';
import type { Session } from '../postgres/session.ts';
import { createInOrder, type FailedObject, fillMaterializedViews } from '../schema/copier.ts';
import { compareExtensions, type ExtensionDifference } from '../schema/extensions.ts';
import { compareObjects, identityOf, type SchemaObject, type Section } from '../schema/objects.ts';
import { readSides, type Sides } from '../schema/sides.ts';
import { type CommandSpec, type Context, type ExitCode, onlySync, print, withBothSides } from './command.ts';

const SECTION = new Option(
  '--section <section>',
  'pre-data: what rows are written into; post-data: what is better made after them, and rows of materialised views',
).choices(['pre-data', 'post-data']);

const copy: CommandSpec = {
  name: 'copy',
  summary: 'create on the target what it lacks of the source',
  description:
    'Creates types, tables, sequences, functions, views, indexes, constraints, triggers and all else that the target lacks. What is there stays as it is, whatever it looks like. Owners and privileges are left to the target. What cannot be created is listed with its statement and the error, and the rest goes on. Exit 0 when all of it is there, 1 when something could not be created. With --tables only those tables and what they need.',
  options: ['tables', 'exclude', 'json'],
  own: [SECTION],
  run: async (context) => {
    const report = await copySchema(context, context.flags.section as Section | undefined);
    print(context.config.json, { sync: onlySync(context.config).name, ...report.document }, report.text);
    return report.complete ? 0 : 1;
  },
};

const diff: CommandSpec = {
  name: 'diff',
  summary: 'what the schemas of source and target differ in',
  description:
    'Lists what the target lacks, what it has otherwise, with both statements, and what it has beyond the source. What a sync has set aside on the target counts as there. Exit 0 when they are equal, 1 when they differ.',
  options: ['tables', 'exclude', 'json'],
  own: [SECTION],
  run: (context) => inBoth(context, context.flags.section as Section | undefined, compareSchemas),
};

interface Read {
  readonly sides: Sides;
  readonly extensions: readonly ExtensionDifference[];
  /** What of both sides is meant. */
  readonly wanted: (object: SchemaObject) => boolean;
}

type Sessions = readonly [source: Session, target: Session];

function inBoth<T>(
  context: Context,
  section: Section | undefined,
  work: (context: Context, read: Read, ...sessions: Sessions) => Promise<T>,
): Promise<T> {
  const sync = onlySync(context.config);
  return withBothSides(sync, 'schema', async (source, target) => {
    const wanted = (object: SchemaObject) => section === undefined || object.section === section;
    const extensions = await compareExtensions(source, target);
    const sides = await readSides({ sync, source, target });
    return work(context, { sides, extensions, wanted }, source, target);
  });
}

export interface SchemaReport {
  /** Nothing of it is missing any more. */
  readonly complete: boolean;
  readonly text: string;
  readonly document: object;
}

/** Creates what the target lacks, of one section or of both. */
export function copySchema(context: Context, section?: Section): Promise<SchemaReport> {
  return inBoth(context, section, (_, read, ...sessions) => createMissing(context, section, read, sessions));
}

async function createMissing(
  { config, signal }: Context,
  section: Section | undefined,
  { sides, extensions, wanted }: Read,
  [source, target]: Sessions,
): Promise<SchemaReport> {
  const objects = sides.source.filter(wanted);
  const { missing } = compareObjects(objects, sides.target);
  const present = objects.length - missing.length;
  const made = await createInOrder(target, missing, signal);
  const filled =
    section === 'post-data'
      ? await fillMaterializedViews(source, target, signal)
      : { created: [], failed: [] };
  const created = [...made.created, ...filled.created];
  const failed = [...(await stillMissing(made.failed, config, source, target)), ...filled.failed];
  const lines = [
    ...extensions.map(extensionLine),
    ...failed.flatMap(({ object, error }) => [
      `could not create ${identityOf(object)}: ${error.message}`,
      ...statementLines(object.statement),
    ]),
    `${created.length} created, ${failed.length} could not be created, ${present} were there (${wayOf(sides)})`,
  ];
  const document = {
    way: sides.way,
    because: sides.because,
    extensions,
    created: created.map(({ kind, name }) => ({ kind, name })),
    failed: failed.map(({ object: { kind, name, statement }, error }) => ({
      kind,
      name,
      statement,
      error: error.message,
      hint: error.hint,
    })),
  };
  return { complete: failed.length === 0, text: lines.join('\n'), document };
}

/** What failed may have come with something else: a check with that of its table. */
async function stillMissing(
  failed: readonly FailedObject[],
  config: Context['config'],
  ...[source, target]: Sessions
): Promise<readonly FailedObject[]> {
  if (failed.length === 0) return failed;
  const now = await readSides({ sync: onlySync(config), source, target });
  const missing = new Set(compareObjects(now.source, now.target).missing.map(identityOf));
  return failed.filter(({ object }) => missing.has(identityOf(object)));
}

async function compareSchemas({ config }: Context, { sides, extensions, wanted }: Read): Promise<ExitCode> {
  const { missing, different, extra } = compareObjects(sides.source.filter(wanted), {
    ...sides.target,
    objects: sides.target.objects.filter(wanted),
  });
  const count = missing.length + different.length + extra.length;
  const lines = [
    ...extensions.map(extensionLine),
    ...missing.flatMap((object) => [`missing: ${identityOf(object)}`, ...statementLines(object.statement)]),
    ...different.flatMap(({ source, target }) => [
      `different: ${identityOf(source)}`,
      '  on the source:',
      ...statementLines(source.statement),
      '  on the target:',
      ...statementLines(target.statement),
    ]),
    ...extra.map((object) => `on the target only: ${identityOf(object)}`),
    `${count === 0 ? 'no difference' : `${count} ${count === 1 ? 'difference' : 'differences'}`} (${wayOf(sides)})`,
  ];
  const brief = ({ kind, name, statement }: SchemaObject) => ({ kind, name, statement });
  const document = {
    way: sides.way,
    because: sides.because,
    extensions,
    missing: missing.map(brief),
    different: different.map(({ source, target }) => ({
      kind: source.kind,
      name: source.name,
      source: source.statement,
      target: target.statement,
    })),
    extra: extra.map(brief),
  };
  print(config.json, { sync: onlySync(config).name, ...document }, lines.join('\n'));
  return count === 0 ? 0 : 1;
}

function extensionLine({ name, source, target, available }: ExtensionDifference): string {
  const there = target ?? (available === null ? 'none to be had' : `none, ${available} to be had`);
  return `extension ${name}: ${source} on the source, ${there} on the target`;
}

function statementLines(statement: string | null): string[] {
  return statement === null ? [] : statement.split('\n').map((line) => `    ${line}`);
}

function wayOf({ way, because }: Sides): string {
  return because === null ? `read by ${way}` : `read from the catalogs: ${because}`;
}

export const schema = {
  name: 'schema',
  summary: 'the schema of the target: copy what it lacks, see what differs',
  commands: [copy, diff],
};
