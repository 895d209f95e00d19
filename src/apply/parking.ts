/**
 * Sets aside what stands on the target's tables in the way of replicated rows: foreign keys while a table is copied
 * (rows come in no order then), user triggers and rules for as long as the sync lives (their effects were already
 * carried from the source). Everything is written down in `ibex.parked`, in the same transaction that touches it, so
 * that a crash cannot lose it; `restoring.ts` puts it back.
 *
 * Where the role may set session_replication_role only what fires for replicas has to be set aside.
 */
import { isKind } from '../core/errors.ts';
import { type TableName, tableLabel } from '../core/plan.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import { type ForeignKey, readForeignKeys } from './foreign-keys.ts';
import { firesFor, isUserTrigger, treeOf } from './target-table.ts';

export interface ParkedObject extends TableName {
  readonly kind: 'foreign_key' | 'trigger' | 'rule' | 'index';
  /** Name of the constraint, trigger, rule or index; `name` and `schema` are the table's. */
  readonly object: string;
  /** The table of the sync, of which that table may be a partition. */
  readonly root: TableName;
  readonly referenced: string | null;
  readonly restore: string;
  /** The statement that puts its comment back; null when it had none, or never lost it. */
  readonly remark: string | null;
  /** Lower ones are put back first. */
  readonly turn: number;
  /** Of an index, see `TableIndex`. */
  readonly build: string | null;
  readonly relation: number | null;
  readonly needs: readonly number[] | null;
  readonly key: readonly number[] | null;
  /** Why it could not be put back when that was tried last. */
  readonly reason: string | null;
}

/** What is written down of an object when it is set aside. */
export type ToPark = Omit<ParkedObject, 'root' | 'reason'>;

export interface DroppedKey extends ForeignKey {
  /** `ALTER TABLE` that puts it back as it was. */
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

/** How a trigger is enabled, as ALTER TABLE says it. */
const stateOf = (trigger: string) =>
  `case ${trigger}.tgenabled when 'D' then 'disable' when 'A' then 'enable always' when 'R' then 'enable replica'
                             else 'enable' end`;

/**
 * A row trigger of a partitioned table has clones on the partitions. Before PostgreSQL 13 these can be disabled by
 * nobody but a superuser: such a trigger is dropped. From then on each clone is disabled for itself, and the trigger
 * comes back before its clones, with all of them: a partition that came meanwhile has taken it over as disabled.
 */
const interfering = (replica: boolean) => `
  with written as (
    select m.oid from json_to_recordset($1) w(schema text, name text)
     cross join lateral to_regclass(format('%I.%I', w.schema, w.name)) r(root)
     cross join lateral ${treeOf('r.root')} m
  )
  select 'trigger' as kind, n.nspname as schema, c.relname as name, t.tgname as object,
         (select count(*) from pg_partition_ancestors(c.oid)) as depth,
         case when dropped then format('drop trigger %I on %I.%I', t.tgname, n.nspname, c.relname)
              else format('alter table only %I.%I disable trigger %I', n.nspname, c.relname, t.tgname) end as park,
         concat(case when dropped then pg_get_triggerdef(t.oid) || '; ' end,
                format('alter table %s%I.%I %s trigger %I', case when cloned and not dropped then '' else 'only ' end,
                       n.nspname, c.relname, ${stateOf('t')}, t.tgname),
                case when cloned and not dropped then (
                  select string_agg(format('; alter table if exists only %I.%I %s trigger %I', un.nspname, uc.relname,
                                           ${stateOf('u')}, u.tgname), '')
                    from pg_partition_tree(c.oid) p join pg_trigger u on u.tgrelid = p.relid and u.tgname = t.tgname
                    join pg_class uc on uc.oid = p.relid join pg_namespace un on un.oid = uc.relnamespace
                   where u.tgenabled <> t.tgenabled and ${isUserTrigger('u')}) end) as restore,
         case when dropped and d.text is not null
              then format('comment on trigger %I on %I.%I is %L', t.tgname, n.nspname, c.relname, d.text) end as remark,
         0 as turn
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    cross join lateral obj_description(t.oid, 'pg_trigger') d(text)
    cross join lateral (select c.relkind = 'p' and t.tgtype & 1 = 1) k(cloned)
    cross join lateral (select cloned and current_setting('server_version_num')::int < 130000) v(dropped)
   where ${isUserTrigger('t')} and c.oid in (select w.oid from written w)
     and (t.tgenabled in ${firesFor(replica)} or dropped)
  union all
  select 'rule', n.nspname, c.relname, r.rulename, 0,
         format('alter table %I.%I disable rule %I', n.nspname, c.relname, r.rulename),
         format('alter table %I.%I enable %srule %I', n.nspname, c.relname,
                case r.ev_enabled when 'A' then 'always ' when 'R' then 'replica ' else '' end, r.rulename), null, 0
    from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
   where r.ev_type in ('2', '3', '4') and r.ev_enabled in ${firesFor(replica)} and c.relkind in ('r', 'p')
     and c.oid in (select w.oid from written w)
   order by depth, 1, 2, 3, 4`;

/**
 * Disables, by name, the user triggers and rules of these tables that fire for what we write; ours are left alone.
 * For a replica those are only the ones that somebody enabled for replicas, or always.
 */
export async function parkTriggersAndRules(
  session: Session,
  sync: string,
  tables: readonly TableName[],
  replica: boolean,
): Promise<void> {
  const wanted = JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
  const found = await session.rows<ToPark & { park: string }>(interfering(replica), [wanted]);
  for (const object of found) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await park(session, sync, { ...object, ...NO_INDEX, referenced: null }, object.park);
    });
  }
}

/** Drops, after writing it down, every foreign key that starts or ends at one of these tables. */
export async function parkForeignKeys(
  session: Session,
  sync: string,
  tables: readonly TableName[],
): Promise<void> {
  for (const key of await readForeignKeys(session, sync, tables)) {
    await session.transaction('', async () => {
      await session.run(`set local lock_timeout = '5s'`);
      await parkForeignKey(session, sync, key);
    });
  }
}

/**
 * Writes one foreign key down and drops it, in the transaction of the caller. Resolves to the key as it was dropped:
 * it may have been validated since it was read, which only the lock excludes. Null when it is gone.
 */
export async function parkForeignKey(
  session: Session,
  sync: string,
  read: ForeignKey,
): Promise<DroppedKey | null> {
  const table = tableIdent(read.relation);
  await session.run(`lock table only ${table} in access exclusive mode`);
  const [now] = await session.rows<{ definition: string }>(
    'select pg_get_constraintdef(oid) as definition from pg_constraint where conrelid = to_regclass($1) and conname = $2',
    [table, read.name],
  );
  if (now === undefined) return null;
  const key = {
    ...read,
    restore: `alter table ${table} add constraint ${ident(read.name)} ${now.definition}`,
  };
  await park(session, sync, foreignKeyObject(key), `alter table ${table} drop constraint ${ident(key.name)}`);
  return key;
}

/** Puts one back for what is written from now on; what is there is checked, and the record deleted, by `restoreParked`. */
export async function enforceForeignKey(session: Session, key: DroppedKey): Promise<void> {
  await session.run(key.checkedAtOnce ? key.restore : unchecked(key.restore));
  if (key.remark !== null) await session.run(key.remark);
}

export function unchecked(restore: string): string {
  return / not valid$/i.test(restore) ? restore : `${restore} not valid`;
}

/** What only an index has. */
const NO_INDEX = { build: null, relation: null, needs: null, key: null };

function foreignKeyObject(key: DroppedKey): ToPark {
  return {
    ...key.relation,
    ...NO_INDEX,
    turn: 1,
    kind: 'foreign_key',
    object: key.name,
    referenced: tableLabel(key.parent),
    restore: key.restore,
    remark: key.remark,
  };
}

/**
 * Part of the caller's transaction, so record and change come together. The change comes first: it takes the lock
 * under which `restoreParked` makes sure that it deletes no record that is needed again.
 */
async function park(session: Session, sync: string, object: ToPark, statement: string): Promise<void> {
  await session.run(statement);
  await writeDown(session, sync, object);
}

/** Part of the transaction that sets the object aside. */
export async function writeDown(session: Session, sync: string, object: ToPark): Promise<void> {
  await session.run(
    `insert into ibex.parked
            (sync, kind, schema_name, table_name, name, referenced, restore, remark, turn, build, relation, needs, key)
     select $1, o.kind, o.schema, o.name, o.object, o.referenced, o.restore, o.remark, o.turn, o.build, o.relation, o.needs, o.key
       from json_to_record($2) o(kind text, schema text, name text, object text, referenced text, restore text,
                                 remark text, turn int4, build text, relation int8, needs int2[], key int2[])
     on conflict do nothing`,
    [sync, JSON.stringify(object)],
  );
}

/** What is set aside, in the order in which it is to be put back. */
export async function readParked(session: Session, sync: string): Promise<ParkedObject[]> {
  return session.rows<ParkedObject>(
    `select kind, schema_name as schema, table_name as name, name as object, referenced, restore, remark, turn, build,
            relation::float8 as relation, needs, key, reason,
            coalesce((select json_build_object('schema', n.nspname, 'name', c.relname)
                        from pg_class c join pg_namespace n on n.oid = c.relnamespace
                       where c.oid = pg_partition_root(coalesce(p.relation::oid, to_regclass(format('%I.%I', p.schema_name, p.table_name))))),
                     json_build_object('schema', p.schema_name, 'name', p.table_name)) as root
       from ibex.parked p where p.sync = $1 order by turn, parked_at`,
    [sync],
  );
}

/** Indexes that are set aside are put back on their tables, whatever these are called by now. */
export async function followRenames(session: Session, sync: string): Promise<void> {
  await session.run(
    `update ibex.parked p
        set schema_name = n.nspname, table_name = c.relname, build = replace(p.build, w.was, w.is),
            restore = replace(replace(p.restore, w.was, w.is), w.index_was, w.index_is),
            remark = replace(replace(p.remark, w.was, w.is), w.index_was, w.index_is)
       from ibex.parked o
       join pg_class c on c.oid = o.relation join pg_namespace n on n.oid = c.relnamespace
      cross join lateral (
        select format('%I.%I ', o.schema_name, o.table_name) as was, format('%I.%I ', n.nspname, c.relname) as is,
               format(' index %I.%I ', o.schema_name, o.name) as index_was,
               format(' index %I.%I ', n.nspname, o.name) as index_is
      ) w
      where o.sync = $1 and (o.schema_name, o.table_name) <> (n.nspname, c.relname) and p.kind = 'index'
        and (p.kind, p.schema_name, p.table_name, p.name) = (o.kind, o.schema_name, o.table_name, o.name)`,
    [sync],
  );
}
