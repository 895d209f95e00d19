-- Function: ibex.note_rows(root oid, relation regclass, first_block bigint, end_block bigint) returns void
-- Purpose:  notes the keys of all rows that stand in some blocks of a captured table (or of one of its partitions)
--           as if they had changed, so that the stream carries them. `end_block` is the first one behind the
--           range; null means to the end.
-- Writes:   the delta table. Locks: none on the application's table but that of a reader.
-- Why:      a copy beside rows of the target may find places taken that only the stream can settle.
create or replace function ibex.note_rows(root oid, relation regclass, first_block bigint, end_block bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
begin
  select * into strict captured from ibex.captured c where c.relid = root;
  execute format('insert into ibex.delta_%s_%s (%s, op) ', root, captured.generation, ibex.noted_names(captured, ''))
    || ibex.noted_rows(captured, format('(select * from %s%s r where r.ctid >= %L::tid%s) n',
         case (select c.relkind from pg_class c where c.oid = relation) when 'p' then '' else 'only ' end, relation,
         format('(%s,0)', first_block), ' and r.ctid < ''(' || end_block || ',0)''::tid'), 'U');
end
$$;
