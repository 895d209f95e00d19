-- Function: ibex.rotate(root oid) returns integer
-- Purpose:  makes the trigger functions of a table write another delta table, an empty one if there is any, and
--           returns its generation, so that the one written until now can be forgotten.
-- Locks:    the table's row in ibex.captured; none on the application's table.
-- Why:      statements that already loaded the old body still write the old generation, also after this
--           commits. Every batch therefore reads all generations, and ibex.forget decides by what is in them.
create or replace function ibex.rotate(root oid) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
  candidate integer;
begin
  select * into strict captured from ibex.captured c where c.relid = root for update;
  if captured.muted_at is not null then
    return captured.generation;
  end if;
  select g.n into candidate from ibex.generation g
   where g.relid = root and g.n <> captured.generation
     and pg_relation_size(format('ibex.delta_%s_%s', root, g.n)::regclass) = 0
   order by g.n limit 1;
  if candidate is null then
    candidate := ibex.add_generation(root);
  end if;
  update ibex.captured c set generation = candidate where c.relid = root;
  perform ibex.write_functions(root);
  return candidate;
end
$$;
