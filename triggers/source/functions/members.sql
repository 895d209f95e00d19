-- Function: ibex.members(root oid) returns setof oid
-- Purpose:  the relations that carry triggers for a captured table: itself and, when it is partitioned, every
--           partition below it, since writes may name any of them.
-- Reads:    pg_class, pg_inherits.
create or replace function ibex.members(root oid) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
  select root
  union all
  select p.relid::oid
    from pg_class c cross join lateral pg_partition_tree(c.oid) p
   where c.oid = root and c.relkind = 'p' and p.relid <> c.oid
$$;
