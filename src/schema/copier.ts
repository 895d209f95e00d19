/**
 * Makes on the target what is missing there. What an object needs may come later in the list: whatever fails is
 * tried again as long as anything else succeeds, so the order is a matter of speed only. What fails in the end is
 * told, and everything else is there.
 */
import { IbexError } from '../core/errors.ts';
import { FOREIGN_SCHEMAS } from '../postgres/catalog.ts';
import type { Session } from '../postgres/session.ts';
import { isCovered, type SchemaObject } from './objects.ts';
import { readCovered } from './target-state.ts';

export interface FailedObject {
  readonly object: SchemaObject;
  readonly error: IbexError;
}

export interface Creation {
  readonly created: readonly SchemaObject[];
  readonly failed: readonly FailedObject[];
}

/** Bodies may name what comes later, and the source has checked them. Nobody waits behind us for long. */
const SETTINGS = `set check_function_bodies = off; set client_min_messages = warning; set lock_timeout = '10s'`;

/** So many are made in one transaction: its end is what takes the time. */
const AT_ONCE = 50;

/**
 * Both sections, one after the other. A partition that is attached gets the indexes of its table, which need not be made
 * then. Errors: as `createObjects`.
 */
export async function createInOrder(
  target: Session,
  missing: readonly SchemaObject[],
  signal: AbortSignal,
): Promise<Creation> {
  const before = missing.filter(({ section }) => section === 'pre-data');
  const first = await createObjects(target, before, signal);
  const covered = await readCovered(target);
  const after = missing.filter((object) => object.section === 'post-data' && !isCovered(object, covered));
  const second = await createObjects(target, [...first.failed.map(({ object }) => object), ...after], signal);
  return { created: [...first.created, ...second.created], failed: second.failed };
}

/** Errors: those of the connection; `transient` once the signal has come. What one object meets is in the result. */
async function createObjects(
  target: Session,
  missing: readonly SchemaObject[],
  signal: AbortSignal,
): Promise<Creation> {
  await target.run(SETTINGS);
  const created: SchemaObject[] = [];
  let left = missing;
  for (;;) {
    const failed: FailedObject[] = [];
    for (let first = 0; first < left.length; first += AT_ONCE) {
      if (signal.aborted) throw new IbexError('transient', 'stopped before everything was created');
      const some = left.slice(first, first + AT_ONCE);
      const refused = await createSome(target, some);
      failed.push(...refused);
      created.push(...some.filter((object) => refused.every((one) => one.object !== object)));
    }
    if (failed.length === 0 || failed.length === left.length) return { created, failed };
    left = failed.map(({ object }) => object);
  }
}

/** All of them together, or else each by itself. */
async function createSome(target: Session, objects: readonly SchemaObject[]): Promise<FailedObject[]> {
  const statements = objects.flatMap(({ statement }) => statement ?? []);
  if (statements.length === objects.length && (await refusal(target, statements.join(';\n'))) === null) {
    return [];
  }
  const failed: FailedObject[] = [];
  for (const object of objects) {
    const error = object.statement === null ? unreadable(object) : await refusal(target, object.statement);
    if (error !== null) failed.push({ object, error });
  }
  return failed;
}

function unreadable({ kind }: SchemaObject): IbexError {
  return new IbexError('tool', `only pg_dump can read this ${kind}`, {
    hint: 'Put a pg_dump that is as new as both servers on the PATH, or create it by hand.',
  });
}

/** Null, or why the server refuses it. Several statements in one message are one transaction. */
async function refusal(target: Session, statements: string): Promise<IbexError | null> {
  try {
    await target.run(statements);
    return null;
  } catch (error) {
    if (!(error instanceof IbexError) || error.kind === 'connection') throw error;
    return error;
  }
}

const MATERIALIZED_VIEWS = `
  select format('%I.%I', n.nspname, c.relname) as name, c.relispopulated as filled
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind = 'm' and n.nspname !~ $1 order by c.oid`;

/** Fills the materialised views that were never filled on the target, and are on the source. */
export async function fillMaterializedViews(
  source: Session,
  target: Session,
  signal: AbortSignal,
): Promise<Creation> {
  const read = (side: Session) =>
    side.rows<{ name: string; filled: boolean }>(MATERIALIZED_VIEWS, [FOREIGN_SCHEMAS]);
  const filled = new Set((await read(source)).flatMap((view) => (view.filled ? [view.name] : [])));
  const empty = (await read(target)).filter((view) => !view.filled && filled.has(view.name));
  const refreshes = empty.map(({ name }): SchemaObject => {
    const statement = `refresh materialized view ${name}`;
    return { kind: 'rows of materialized view', name, section: 'post-data', statement, under: null };
  });
  return createObjects(target, refreshes, signal);
}
