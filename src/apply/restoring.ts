/**
 * Puts back what was set aside on the target (`parking.ts`, `index-parking.ts`), and strikes it off the record in the
 * same transaction, or after it is sure: what a person has put back meanwhile counts as done.
 */
import { IbexError, isKind } from '../core/errors.ts';
import { tableLabel } from '../core/plan.ts';
import { serverError } from '../postgres/errors.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { removeSurplus } from './indexes.ts';
import { becomeReplica, type ParkedObject, unchecked } from './parking.ts';

/** What a unique index says of rows that contradict it. */
const DOUBLED = '23505';
/** There is no unique index over the columns that a foreign key refers to. */
const NOTHING_TO_REFER_TO = '42830';

/**
 * Puts one object back. A foreign key comes back NOT VALID, a matter of milliseconds, and is then validated
 * under a lock that lets everybody write; one that is there again (a person was faster) is taken as restored.
 * Errors: `constraint` when the rows contradict it; it stays parked. An index names itself in whatever stands against it.
 */
export async function restoreParked(session: Session, sync: string, object: ParkedObject): Promise<void> {
  if (object.kind === 'index') return restoreIndex(session, sync, object);
  if (object.kind === 'foreign_key') await restoreForeignKey(session, object);
  await session.transaction('', async () => {
    await session.run(`set local lock_timeout = '5s'`);
    if (object.kind !== 'foreign_key') await restoreTrigger(session, object);
    else await session.run(`lock table only ${tableIdent(object)} in share update exclusive mode`);
    await strikeOff(session, sync, object);
  });
}

/**
 * Of the indexes that could not be put back, one of a partition of this one's table: made before that, this one would
 * give the partition another in its place, under another name.
 */
export function lackingFor(
  { kind, root, turn }: ParkedObject,
  left: readonly ParkedObject[],
): ParkedObject | undefined {
  return left.find(
    (other) =>
      kind === 'index' &&
      other.kind === 'index' &&
      other.turn < turn &&
      tableLabel(other.root) === tableLabel(root),
  );
}

/** Writes down why an object could not be put back. */
export async function noteReason(
  session: Session,
  sync: string,
  { kind, schema, name, object }: ParkedObject,
  reason: string,
): Promise<void> {
  await session.run(
    `update ibex.parked set reason = $6
      where sync = $1 and kind = $2 and schema_name = $3 and table_name = $4 and name = $5 and reason is distinct from $6`,
    [sync, kind, schema, name, object, reason],
  );
}

/** Unless the foreign key was put aside once more since it was checked: then it is to be checked again. */
const STRIKE_OFF = `
  delete from ibex.parked p
   where p.sync = $1 and p.kind = $2 and p.schema_name = $3 and p.table_name = $4 and p.name = $5
     and (p.kind <> 'foreign_key' or p.restore ~* ' not valid$'
          or exists (select from pg_constraint k
                      where k.conrelid = to_regclass(format('%I.%I', p.schema_name, p.table_name))
                        and k.conname = p.name and k.convalidated))`;

async function strikeOff(
  session: Session,
  sync: string,
  { kind, schema, name, object }: ParkedObject,
): Promise<void> {
  await session.run(STRIKE_OFF, [sync, kind, schema, name, object]);
}

async function restoreForeignKey(session: Session, object: ParkedObject): Promise<void> {
  const { present, checkedAtOnce } = await session.row<{ present: boolean; checkedAtOnce: boolean }>(
    `select exists (select from pg_constraint k where k.conrelid = to_regclass($1) and k.conname = $2) as present,
            exists (select from pg_class c where c.oid = to_regclass($1) and c.relkind = 'p')
              and current_setting('server_version_num')::int < 180000 as "checkedAtOnce"`,
    [tableIdent(object), object.object],
  );
  if (!present) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await addForeignKey(session, object, checkedAtOnce);
      if (object.remark !== null) await session.run(object.remark);
    });
  }
  if (!/ not valid$/i.test(object.restore)) await validate(session, object);
}

async function addForeignKey(session: Session, object: ParkedObject, checkedAtOnce: boolean): Promise<void> {
  try {
    await session.run(checkedAtOnce ? object.restore : unchecked(object.restore));
  } catch (error) {
    if (serverError(error)?.state !== NOTHING_TO_REFER_TO) throw error;
    throw new IbexError(
      'constraint',
      `foreign key ${object.object} of ${tableLabel(object)} needs a unique index of ${object.referenced} that is not there`,
      { table: tableLabel(object), hint: 'See what keeps that index from coming back.', cause: error },
    );
  }
}

async function validate(session: Session, object: ParkedObject): Promise<void> {
  try {
    await session.run(`alter table ${tableIdent(object)} validate constraint ${ident(object.object)}`);
  } catch (error) {
    if (!isKind(error, 'constraint')) throw error;
    throw new IbexError(
      'constraint',
      `foreign key ${object.object} of ${tableLabel(object)} does not hold on the target`,
      {
        table: tableLabel(object),
        hint: `Look for rows of ${tableLabel(object)} without a row in ${object.referenced}.`,
        cause: error.cause,
      },
    );
  }
}

/** A trigger or rule. */
async function restoreTrigger(session: Session, object: ParkedObject): Promise<void> {
  const { present } = await session.row<{ present: boolean }>(
    `select exists (select from pg_trigger t where t.tgrelid = to_regclass($1) and t.tgname = $2)
         or exists (select from pg_rewrite r where r.ev_class = to_regclass($1) and r.rulename = $2) as present`,
    [tableIdent(object), object.object],
  );
  // It went with its partition; or a person was faster.
  if (present === /^create (constraint )?trigger/i.test(object.restore)) return;
  await session.run(object.restore);
  if (object.remark !== null) await session.run(object.remark);
}

async function restoreIndex(session: Session, sync: string, object: ParkedObject): Promise<void> {
  await buildIndex(session, object);
  await finishIndex(session, sync, object);
}

/**
 * Builds what takes its time, if it is not there, under a lock that lets others build on the same table. Under an index
 * that tells keys apart rows that are too many are removed; true if so.
 */
export async function buildIndex(session: Session, object: ParkedObject): Promise<boolean> {
  if (object.build === null || !(await isLacking(session, object))) return false;
  try {
    await build(session, object);
    return false;
  } catch (error) {
    if (object.key === null || serverError(error)?.state !== DOUBLED) throw contradicted(object, error);
    await removeQuietly(session, object, object.key);
    await build(session, object).catch((again) => {
      throw contradicted(object, again);
    });
    return true;
  }
}

/** Triggers that would fire for it are set aside, or a replica fires none. */
async function removeQuietly(session: Session, object: ParkedObject, key: readonly number[]): Promise<void> {
  const replica = await becomeReplica(session);
  try {
    await removeSurplus(session, object, key);
  } finally {
    if (replica) await session.run('set session_replication_role = origin');
  }
}

async function build(session: Session, { build }: ParkedObject): Promise<void> {
  await session.transaction('', async () => {
    await session.run(`set local lock_timeout = '5s'`);
    if (build !== null) await session.run(build);
  });
}

/** Everything else of an index that is built: its constraint, its marks, its comments. */
export async function finishIndex(session: Session, sync: string, object: ParkedObject): Promise<void> {
  try {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      if (await isLacking(session, object)) {
        await session.run(object.restore);
        if (object.remark !== null) await session.run(object.remark);
      }
      await strikeOff(session, sync, object);
    });
  } catch (error) {
    throw contradicted(object, error);
  }
}

/**
 * False when there is nothing to do: a person has put the constraint back, or has made another index by that name; or
 * what it stood on is gone, as with a column that was dropped, and so would it be.
 */
async function isLacking(session: Session, object: ParkedObject): Promise<boolean> {
  const { lacking } = await session.row<{ lacking: boolean }>(
    `select c.oid is not null
        and not exists (select from pg_constraint k where k.conrelid = c.oid and k.conname = $2)
        and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attisdropped
                           and a.attnum = any ($3::int2[]))
        and not exists (select from pg_index i join pg_class x on x.oid = i.indexrelid
                         where i.indrelid = c.oid and x.relname = $2 and $5 not like '% add constraint %'
                           and strpos(replace($4, ' IF NOT EXISTS ', ' '), pg_get_indexdef(x.oid)) = 0) as lacking
       from (select (select r.oid from pg_class r where r.oid = $1) as oid) c`,
    [object.relation, object.object, object.needs, object.build, object.restore],
  );
  return lacking;
}

/** The error with the index's name, where it is about the index and not about the server. */
function contradicted(object: ParkedObject, error: unknown): unknown {
  if (!isContradicted(error) || serverError(error) === undefined) return error;
  const label = tableLabel(object.root);
  return new IbexError(
    error.kind,
    `index ${object.object} of ${label} cannot be put back: ${error.message}`,
    {
      table: label,
      hint: 'Remove what stands against it on the target, or make it there by hand: what has its name is taken for it.',
      cause: error.cause,
    },
  );
}

/** Rows, rights, or a change of the table stand against what is to be put back, and not the state of the server. */
export function isContradicted(error: unknown): error is IbexError {
  return (
    error instanceof IbexError && ['constraint', 'schema_mismatch', 'privilege', 'lock'].includes(error.kind)
  );
}
