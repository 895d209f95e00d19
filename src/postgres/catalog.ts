/**
 * What the catalogs say about servers and tables, the same questions on either side.
 */
import { IbexError } from '../core/errors.ts';
import type { TableName } from '../core/plan.ts';
import type { SourceIdentity } from '../core/position.ts';
import type { ColumnInfo, TableInfo } from '../core/table.ts';
import type { Session } from './session.ts';
import { readTypes, type TypeLookup } from './types.ts';

/** Schemas that belong to PostgreSQL, to Ibex or to a provider, never to the application. */
export const FOREIGN_SCHEMAS =
  '^(pg_.*|information_schema|ibex|bullmq|bucardo|_heroku|heroku_ext|rds_tools|rdsadmin|aiven_extras|cron|partman' +
  '|auth|storage|realtime|supabase_functions|supabase_migrations|graphql|graphql_public|vault|pgsodium|pgsodium_masks' +
  '|extensions|net|pgbouncer|neon|neon_control_plane|azure|google_vacuum_mgmt)$';

const LIST_TABLES = `
  select c.oid::int8::text as relid, n.nspname as schema, c.relname as name, c.relkind::text as kind,
         c.relispartition as "isPartition"
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
     and n.nspname !~ $1
     and not exists (select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
   order by 2, 3`;

const READ_TABLES = `
  select c.oid::int8::text as relid, n.nspname as schema, c.relname as name, c.relkind::text as kind,
         c.relispartition as "isPartition",
         coalesce((
           select json_agg(json_build_object(
                    'number', a.attnum,
                    'name', a.attname,
                    'generated', a.attgenerated <> '',
                    'formula', case when a.attgenerated <> '' then pg_get_expr(ad.adbin, ad.adrelid) end,
                    'virtual', a.attgenerated = 'v',
                    'identityAlways', a.attidentity = 'a',
                    'notNull', a.attnotnull or base.notnull,
                    'hasDefault', a.atthasdef or a.attidentity <> '' or t.typdefault is not null,
                    'typeOid', a.atttypid::int8::text,
                    'typmod', a.atttypmod,
                    'shown', format_type(a.atttypid, a.atttypmod),
                    'looseCollation', case when not o.collisdeterministic then json_build_object(
                      'name', format('%I.%I', oq.nspname, o.collname),
                      'definition', concat_ws(' ', o.collprovider, coalesce(
                        to_jsonb(o) ->> 'colllocale', to_jsonb(o) ->> 'colliculocale', o.collcollate),
                        to_jsonb(o) ->> 'collicurules')) end
                  ) order by a.attnum)
             from pg_attribute a
             join pg_type t on t.oid = a.atttypid
             join lateral (
               with recursive d as (
                 select x.typtype, x.typbasetype, x.typnotnull from pg_type x where x.oid = a.atttypid
                 union all
                 select x.typtype, x.typbasetype, d.typnotnull or x.typnotnull
                   from d join pg_type x on x.oid = d.typbasetype where d.typtype = 'd'
               ) select typnotnull as notnull from d where typtype <> 'd'
             ) base on true
             left join pg_attrdef ad on ad.adrelid = a.attrelid and ad.adnum = a.attnum
             left join pg_collation o on o.oid = a.attcollation
             left join pg_namespace oq on oq.oid = o.collnamespace
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]') as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join json_to_recordset($1) w(schema text, name text) on w.schema = n.nspname and w.name = c.relname
   where c.relkind in ('r', 'p', 'v', 'm', 'f')`;

interface TableRow {
  relid: string;
  schema: string;
  name: string;
  kind: string;
  isPartition: boolean;
  columns: (Omit<ColumnInfo, 'type'> & { typeOid: string; typmod: number; shown: string })[];
}

/** All ordinary and partitioned tables of the application; partitions are part of their table. */
export async function listTables(session: Session): Promise<TableName[]> {
  return session.rows<TableName>(LIST_TABLES, [FOREIGN_SCHEMAS]);
}

/** The named relations, in the order asked for; missing ones are left out. */
export async function readTables(session: Session, names: readonly TableName[]): Promise<TableInfo[]> {
  const wanted = names.map(({ schema, name }) => ({ schema, name }));
  const rows = await session.rows<TableRow>(READ_TABLES, [JSON.stringify(wanted)]);
  const typeOf = await readTypes(
    session,
    rows.flatMap((row) => row.columns.map((column) => column.typeOid)),
  );
  const found = new Map(rows.map((row) => [key(row), describe(row, typeOf)]));
  return names.map((name) => found.get(key(name))).filter((table) => table !== undefined);
}

function describe({ columns, ...row }: TableRow, typeOf: TypeLookup): TableInfo {
  return {
    ...row,
    relid: Number(row.relid),
    columns: columns.map(({ typeOid, typmod, shown, ...column }) => ({
      ...column,
      type: { ...typeOf(typeOid, typmod), shown },
    })),
  };
}

function key(table: TableName): string {
  return JSON.stringify([table.schema, table.name]);
}

/** Checks that a server can take part at all. `source` must be a primary: a standby's snapshots lie. */
export async function checkServer(session: Session): Promise<void> {
  if (session.version < 120_000) {
    throw new IbexError(
      'unsupported',
      `${session.server}: PostgreSQL ${session.version / 10_000} is too old`,
    );
  }
  const { standby } = await session.row<{ standby: boolean }>('select pg_is_in_recovery() as standby');
  if (standby) {
    throw new IbexError('standby', `${session.server}: the server is a standby (in recovery)`);
  }
}

/**
 * Which history of which database this is. A provider may hide the control file: then the parts it hides read
 * `hidden` and 0, and the row in `ibex.identity` and the transaction counter stand in.
 */
export async function readIdentity(session: Session): Promise<SourceIdentity> {
  const read = (system: string, timeline: string) =>
    session.row<SourceIdentity>(
      `select oid::text as database, ${system} as system, ${timeline} as timeline
         from pg_database where datname = current_database()`,
    );
  try {
    return await read(
      '(select system_identifier::text from pg_control_system())',
      // The control file still has the former one for a while after a promotion.
      `case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())
            else ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int4 end`,
    );
  } catch (error) {
    if (error instanceof IbexError && error.kind === 'privilege') return read(`'hidden'`, '0');
    throw error;
  }
}
