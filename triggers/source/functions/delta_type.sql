-- Function: ibex.delta_type(type oid) returns text
-- Purpose:  the type in which a captured column is noted in a delta table.
-- Returns:  int8 for all integers, text for varchar, the type itself (no typmod) for other built-in types, the
--           base type's for a domain, text for everything else (enums, composites, extension types, reg*).
-- Reads:    pg_type.
-- Why:      the application's DDL must not be in our way: a typmod would round a key after it was widened, a
--           domain's CHECK would reject old keys, an enum could not be dropped, int4 would overflow inside the
--           application's INSERT after the column became int8.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.delta_type(type oid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return (
  with recursive base as (
    select t.oid, t.typname, t.typtype, t.typbasetype, t.typnamespace
      from pg_type t where t.oid = type
    union all
    select t.oid, t.typname, t.typtype, t.typbasetype, t.typnamespace
      from base b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd'
  )
  select case
           when b.typname in ('int2', 'int4', 'int8') and b.oid < 16384 then 'pg_catalog.int8'
           when b.typname = 'varchar' and b.oid < 16384 then 'pg_catalog.text'
           when b.oid < 16384 and b.typnamespace = 'pg_catalog'::regnamespace
                and b.typtype in ('b', 'r', 'm') and b.typname !~ '^_?reg'
             then format('pg_catalog.%I', b.typname)
           else 'pg_catalog.text'
         end
    from base b where b.typtype <> 'd');
end
$$;
