-- Function: ibex.noted_value(name text, type text) returns text
-- Purpose:  the expression that turns a column, by its unqualified name, into the type in which it is noted.
create or replace function ibex.noted_value(name text, type text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when type = 'pg_catalog.text' then format('%I::pg_catalog.text', name)
              else format('ibex.%I(%I, %2$I, 1)', ibex.note_function(type), name) end
$$;

-- Function: ibex.note_function(type text) returns text
-- Purpose:  the name of the function that notes values in this type: `note_int8`, say.
create or replace function ibex.note_function(type text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select 'note_' || t.typname from pg_type t where t.oid = type::regtype
$$;

-- Function: ibex.write_notes(types text[]) returns void
-- Purpose:  makes the functions that note values in these types, where they are not there yet: of a value of the
--           type they give the value, of any other a null.
-- Why:      a cast can fail when the column has become another type, or not exist; both would be an error of the
--           application's write. Which of the two is called is decided when the call is parsed. The column is given
--           twice, and then a number, so that of the candidates one always matches better: for the type itself the
--           first function has two exact matches and the other one; for any other type it is none and one.
--           Both are inlined.
create or replace function ibex.write_notes(types text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  noted record;
  kind text;
begin
  -- Mostly all of them are there. Who has to make one looks again, alone.
  if not exists (select from ibex.missing_notes(types)) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('ibex'), hashtext('notes'));
  for noted in select * from ibex.missing_notes(types) loop
    execute format('create function ibex.%I(anyelement, anyelement, int4) returns %s language sql immutable '
                   'as ''select null::%2$s''', noted.name, noted.type);
    foreach kind in array case when noted.type = 'pg_catalog.int8' then '{int2,int4,int8}' else array[noted.type] end loop
      execute format('create function ibex.%I(%s, %2$s, int8) returns %s language sql immutable as ''select $1::%3$s''',
                     noted.name, kind, noted.type);
    end loop;
  end loop;
end
$$;

-- Function: ibex.missing_notes(types text[]) returns table (type text, name text)
-- Purpose:  those of the types that nothing notes values in yet, and what the functions are called that will.
create or replace function ibex.missing_notes(types text[]) returns table (type text, name text)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select distinct t.type, ibex.note_function(t.type) from unnest(types) t(type)
   where t.type <> 'pg_catalog.text'
     and to_regprocedure(format('ibex.%I(anyelement, anyelement, int4)', ibex.note_function(t.type))) is null
$$;
