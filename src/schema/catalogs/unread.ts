/** Objects of kinds that no query here reads, such as operators and text search configurations: pg_dump knows them. */
import { PLAIN_AGGREGATE } from './before-rows.ts';
import { FOREIGN } from './query.ts';

/** Rows: kind, name, catalog, oid. */
export const UNREAD_OBJECTS = `
  select i.type as kind, i.identity as name, o.classid::regclass::text as catalog, o.oid::int8::text as oid
    from (select 'pg_type'::regclass as classid, t.oid from pg_type t where t.typtype = 'b' and t.typcategory <> 'A'
          union all select 'pg_proc'::regclass, g.aggfnoid from pg_aggregate g where not ${PLAIN_AGGREGATE}
          union all select 'pg_operator'::regclass, oid from pg_operator
          union all select 'pg_opclass'::regclass, oid from pg_opclass
          union all select 'pg_opfamily'::regclass, f.oid from pg_opfamily f
                     where not exists (select from pg_opclass c where c.opcfamily = f.oid)
          union all select 'pg_cast'::regclass, oid from pg_cast
          union all select 'pg_conversion'::regclass, oid from pg_conversion
          union all select 'pg_transform'::regclass, oid from pg_transform
          union all select 'pg_language'::regclass, oid from pg_language
          union all select 'pg_am'::regclass, oid from pg_am
          union all select 'pg_ts_config'::regclass, oid from pg_ts_config
          union all select 'pg_ts_dict'::regclass, oid from pg_ts_dict
          union all select 'pg_ts_parser'::regclass, oid from pg_ts_parser
          union all select 'pg_ts_template'::regclass, oid from pg_ts_template
          union all select 'pg_foreign_data_wrapper'::regclass, oid from pg_foreign_data_wrapper
          union all select 'pg_foreign_server'::regclass, oid from pg_foreign_server
          union all select 'pg_class'::regclass, oid from pg_class where relkind = 'f') o
    cross join lateral pg_identify_object(o.classid, o.oid, 0) i
   where o.oid >= 16384 and coalesce(i.schema, '') !~ ${FOREIGN}
     and not exists (select from pg_depend e
                      where e.classid = o.classid and e.objid = o.oid and e.deptype in ('e', 'i'))
   order by 1, 2`;
