/**
 * Builds the indexes of a table that were set aside while it was copied, several at a time: after the last row, and
 * before the batch that takes the table into step, which finds its rows by the key's index.
 *
 * Rows that move between chunks come twice, or hold each other's unique values until that batch has settled it. Under
 * the index of the key one of them is removed, since that batch writes it anew. Any other index that is contradicted
 * waits until the table is in step, with the reason in its record.
 */
import type { IbexError } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import type { Session } from '../postgres/session.ts';
import { type ParkedObject, readParked } from './parking.ts';
import { buildIndex, finishIndex, isContradicted, lackingFor, noteReason } from './restoring.ts';

/** Runs a piece of work on a session of its own as soon as there is room for one more. */
export type OnBuilder = <T>(work: (session: Session) => Promise<T>) => Promise<T>;

/**
 * Ends builds of a daemon that is gone, which the server has not noticed: they hold what the next ones need, and nobody
 * would commit them. To be called before the first one of this one.
 */
export async function endForsakenBuilds(target: Session, sync: string): Promise<void> {
  await target.rows(
    `select pg_terminate_backend(a.pid) from pg_stat_activity a
      where a.pid <> pg_backend_pid() and a.usename = current_user and a.datname = current_database()
        and a.application_name = 'ibex:' || $1 || ':copy' and a.query like '%INDEX IF NOT EXISTS%'`,
    [sync],
  );
}

/**
 * Resolves to what is left for later. Errors: whatever keeps the index of the key from being built, and what is not
 * about a single index.
 */
export async function rebuildIndexes(
  sync: string,
  table: TableName,
  onBuilder: OnBuilder,
): Promise<IbexError[]> {
  const parked = (await onBuilder((session) => readParked(session, sync))).filter(
    ({ kind, root }) => kind === 'index' && tableLabel(root) === tableLabel(table),
  );
  const failed = await buildAll(parked, onBuilder);
  const left: ParkedObject[] = [];
  const errors: IbexError[] = [];
  for (const object of parked) {
    if (lackingFor(object, left) !== undefined) continue;
    const error = await onBuilder((builder) => finish(builder, sync, object, failed.get(object)));
    if (error === undefined) continue;
    left.push(object);
    errors.push(error);
  }
  return errors;
}

/**
 * Builds what can be built beside each other. Resolves to what failed and need not be tried once more: when rows that
 * came twice have gone meanwhile, that is nothing.
 */
async function buildAll(
  parked: readonly ParkedObject[],
  onBuilder: OnBuilder,
): Promise<ReadonlyMap<ParkedObject, IbexError>> {
  const failed = new Map<ParkedObject, IbexError>();
  let thinned = false;
  const build = async (object: ParkedObject) => {
    try {
      if (await onBuilder((builder) => buildIndex(builder, object))) thinned = true;
    } catch (error) {
      if (!isContradicted(error)) throw error;
      failed.set(object, error);
    }
  };
  const builds = parked.filter((object) => object.build !== null).map(build);
  const [fault] = (await Promise.allSettled(builds)).filter((result) => result.status === 'rejected');
  if (fault !== undefined) throw fault.reason;
  return thinned ? new Map() : failed;
}

/** What is left for later; undefined when the index is back. */
async function finish(
  session: Session,
  sync: string,
  object: ParkedObject,
  failed: IbexError | undefined,
): Promise<IbexError | undefined> {
  try {
    if (failed !== undefined) throw failed;
    await buildIndex(session, object);
    await finishIndex(session, sync, object);
    return undefined;
  } catch (error) {
    if (!isContradicted(error)) throw error;
    await noteReason(session, sync, object, error.message);
    if (object.key !== null) throw error;
    return error;
  }
}
