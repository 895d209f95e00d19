-- Function: ibex.note_existing(root oid) returns void
-- Purpose:  notes the keys of all rows of a captured table as rows that were there before, op `B`: the other side takes
--           them in where it has none, and any change of its own goes before them.
-- Writes:   the delta table. Locks: none on the application's table but that of a reader.
-- Why:      where both sides are written the rows that one of them has alone at the start have to reach the other.
create or replace function ibex.note_existing(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
begin
  select * into strict captured from ibex.captured c where c.relid = root and c.mode = 'key';
  execute format('insert into ibex.delta_%s_%s (%s, op) ', root, captured.generation, ibex.noted_names(captured, ''))
    || ibex.noted_rows(captured, format('(select * from %s%s) n',
         case (select c.relkind from pg_class c where c.oid = root) when 'p' then '' else 'only ' end, root::regclass), 'B');
end
$$;
