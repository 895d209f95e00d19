-- Function: ibex.ask_resolver(resolver text, relation regclass, a text, b text, meta jsonb) returns (answer text, failure text)
-- Purpose:  asks a function of the application which row of two is to stand, or what a new one is to be: it is called as
--           resolver(a, b, meta), a and b being rows of the table or null, and returns such a row or null.
-- Input:    resolver - its name as SQL spells it. a, b - rows as text.
-- Why:      with the search_path that a server has by default, for the sake of the names in the function's body.
-- Returns:  the row as text (null: it is to be gone), or what the function failed with.
create or replace function ibex.ask_resolver(resolver text, relation regclass, a text, b text, meta jsonb,
                                             out answer text, out failure text)
language plpgsql set search_path = "$user", public as $$
begin
  execute pg_catalog.format('select case when r.row is distinct from null then r.row::pg_catalog.text end '
                            'from (select %s($1::%s, $2::%2$s, $3)) r(row)', resolver, relation)
    into answer using a, b, meta;
exception when others then
  failure := pg_catalog.format('%s failed: %s', resolver, sqlerrm);
end
$$;
