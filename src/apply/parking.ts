/**
 * Sets aside what stands on the target's tables in the way of replicated rows, and puts it back: foreign keys
 * while a table is copied (rows come in no order then), user triggers and rules for as long as the sync lives
 * (their effects were already carried from the source). Everything is written down in `ibex.parked`, in the
 * same transaction that touches it, so that a crash cannot lose it and `ibex teardown` can restore it.
 *
 * None of it is needed where the role may set session_replication_role.
 */
import { IbexError, isKind } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type ForeignKey, readForeignKeys } from './target-table.ts';

export interface ParkedObject extends TableName {
  readonly kind: 'foreign_key' | 'trigger' | 'rule';
  /** Name of the constraint, trigger or rule; `name` and `schema` are the table's. */
  readonly object: string;
  readonly referenced: string | null;
  readonly restore: string;
}

/** Makes the session one for which triggers, rules and foreign keys do not fire. False when the role may not. */
export async function becomeReplica(session: Session): Promise<boolean> {
  try {
    await session.run(`set session_replication_role = replica`);
    return true;
  } catch (error) {
    if (isKind(error, 'privilege')) return false;
    throw error;
  }
}

const READ_INTERFERING = `
  select 'trigger' as kind, n.nspname as schema, c.relname as name, t.tgname as object,
         format('alter table only %I.%I disable trigger %I', n.nspname, c.relname, t.tgname) as park,
         format('alter table only %I.%I enable %strigger %I', n.nspname, c.relname,
                case t.tgenabled when 'A' then 'always ' else '' end, t.tgname) as restore
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
   where not t.tgisinternal and t.tgenabled in ('O', 'A') and t.tgname !~ '^~?ibex_[a-z]+_[0-9]+$'
     and c.oid in (select p.relid from json_to_recordset($1) w(schema text, name text)
                    cross join lateral pg_partition_tree(to_regclass(format('%I.%I', w.schema, w.name))) p
                   union select to_regclass(format('%I.%I', w.schema, w.name))
                           from json_to_recordset($1) w(schema text, name text))
  union all
  select 'rule', n.nspname, c.relname, r.rulename,
         format('alter table %I.%I disable rule %I', n.nspname, c.relname, r.rulename),
         format('alter table %I.%I enable %srule %I', n.nspname, c.relname,
                case r.ev_enabled when 'A' then 'always ' else '' end, r.rulename)
    from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
    join json_to_recordset($1) w(schema text, name text) on w.schema = n.nspname and w.name = c.relname
   where r.ev_type in ('2', '3', '4') and r.ev_enabled in ('O', 'A') and c.relkind in ('r', 'p')
   order by 1, 2, 3, 4`;

/** Disables, by name, the user triggers and rules of these tables. Ours are left alone. */
export async function parkTriggersAndRules(
  session: Session,
  sync: string,
  tables: readonly TableName[],
): Promise<void> {
  const wanted = JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
  const found = await session.rows<ParkedObject & { park: string }>(READ_INTERFERING, [wanted]);
  for (const object of found) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await park(session, sync, { ...object, referenced: null }, object.park);
    });
  }
}

/** Drops, after writing it down, every foreign key that starts or ends at one of these tables. */
export async function parkForeignKeys(
  session: Session,
  sync: string,
  tables: readonly TableName[],
): Promise<void> {
  for (const key of await readForeignKeys(session, tables)) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await parkForeignKey(session, sync, key);
    });
  }
}

/** Writes one foreign key down and drops it, in the transaction of the caller. */
export async function parkForeignKey(session: Session, sync: string, key: ForeignKey): Promise<void> {
  const drop = `alter table ${tableIdent(key.child)} drop constraint ${ident(key.name)}`;
  await park(session, sync, foreignKeyObject(key), drop);
}

/** Puts one back for what is written from now on; what is there is checked, and the record deleted, by `restoreParked`. */
export async function enforceForeignKey(session: Session, key: ForeignKey): Promise<void> {
  await session.run(key.checkedAtOnce ? key.restore : unchecked(key.restore));
}

function unchecked(restore: string): string {
  return / not valid$/i.test(restore) ? restore : `${restore} not valid`;
}

function foreignKeyObject(key: ForeignKey): ParkedObject {
  return {
    ...key.child,
    kind: 'foreign_key',
    object: key.name,
    referenced: tableLabel(key.parent),
    restore: key.restore,
  };
}

/**
 * Part of the caller's transaction, so record and change come together. The change comes first: it takes the lock
 * under which `restoreParked` makes sure that it deletes no record that is needed again.
 */
async function park(session: Session, sync: string, object: ParkedObject, statement: string): Promise<void> {
  await session.run(statement);
  await session.run(
    `insert into ibex.parked (sync, kind, schema_name, table_name, name, referenced, restore)
     values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing`,
    [sync, object.kind, object.schema, object.name, object.object, object.referenced, object.restore],
  );
}

export async function readParked(session: Session, sync: string): Promise<ParkedObject[]> {
  return session.rows<ParkedObject>(
    `select kind, schema_name as schema, table_name as name, name as object, referenced, restore
       from ibex.parked where sync = $1 order by parked_at`,
    [sync],
  );
}

/**
 * Puts one object back. A foreign key comes back NOT VALID, a matter of milliseconds, and is then validated
 * under a lock that lets everybody write; one that is there again (a person was faster) is taken as restored.
 * Errors: `constraint` when the rows contradict it; it stays parked.
 */
export async function restoreParked(session: Session, sync: string, object: ParkedObject): Promise<void> {
  const table = tableIdent(object);
  const { present, checkedAtOnce } = await readConstraint(session, object);
  if (object.kind === 'foreign_key' && !present) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await session.run(checkedAtOnce ? object.restore : unchecked(object.restore));
    });
  }
  if (object.kind === 'foreign_key' && !/ not valid$/i.test(object.restore)) {
    await validate(session, object, table);
  }
  await session.transaction('', async () => {
    await session.run(`set local lock_timeout = '5s'`);
    if (object.kind !== 'foreign_key') await session.run(object.restore);
    else await session.run(`lock table only ${table} in share update exclusive mode`);
    await session.run(FORGET_PARKED, [sync, object.kind, object.schema, object.name, object.object]);
  });
}

/** Unless the foreign key was put aside once more since it was checked: then it is to be checked again. */
const FORGET_PARKED = `
  delete from ibex.parked p
   where p.sync = $1 and p.kind = $2 and p.schema_name = $3 and p.table_name = $4 and p.name = $5
     and (p.kind <> 'foreign_key' or p.restore ~* ' not valid$'
          or exists (select from pg_constraint k
                      where k.conrelid = to_regclass(format('%I.%I', p.schema_name, p.table_name))
                        and k.conname = p.name and k.convalidated))`;

async function validate(session: Session, object: ParkedObject, table: string): Promise<void> {
  try {
    await session.run(`alter table ${table} validate constraint ${ident(object.object)}`);
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

async function readConstraint(session: Session, object: ParkedObject) {
  return session.row<{ present: boolean; checkedAtOnce: boolean }>(
    `select exists (select from pg_constraint k where k.conrelid = to_regclass($1) and k.conname = $2) as present,
            exists (select from pg_class c where c.oid = to_regclass($1) and c.relkind = 'p')
              and current_setting('server_version_num')::int < 180000 as "checkedAtOnce"`,
    [tableIdent(object), object.object],
  );
}
