-- Function: ibex.note_keys(root oid, keys jsonb) returns void
-- Purpose:  notes keys of a captured table as if their rows had changed, so that the stream carries the rows as they
--           are, or the fact that they are gone.
-- Parameters: keys - an array of keys, each an array of the texts of its columns, in the order in which they are noted.
-- Writes:   the delta table, as whoever calls it: nobody but the owner of the schema ibex may. Locks: none on the
--           application's table.
-- Why:      verify repairs what differs on the target in the one way by which anything gets there.
create or replace function ibex.note_keys(root oid, keys jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
begin
  select * into strict captured from ibex.captured c where c.relid = root and c.mode = 'key';
  execute (
    select format('insert into ibex.delta_%s_%s (%s, op) select %s, ''U'' from jsonb_array_elements($1) k',
                  root, captured.generation, ibex.noted_names(captured, ''),
                  string_agg(format('(k ->> %s)::%s', t.place - 1, t.type), ', ' order by t.place))
      from unnest(captured.types) with ordinality t(type, place)
  ) using keys;
end
$$;
