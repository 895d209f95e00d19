-- Function: ibex.noted_value(name text, type text) returns text
-- Purpose:  the expression that turns a column, by its unqualified name, into the type in which it is noted.
create or replace function ibex.noted_value(name text, type text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when type = 'pg_catalog.text' then format('%I::pg_catalog.text', name)
              else format('ibex.%I(%I, %2$I, 1)', 'note_' || ibex.bare_type(type), name) end
$$;

-- Function: ibex.bare_type(type text) returns text
-- Purpose:  the name of a type in which something is noted without its schema, as in ibex.note_int8.
-- Why:      before PostgreSQL 13 what a function in SQL returns has to be of its very type.
drop function if exists ibex.note_function(text);
create or replace function ibex.bare_type(type text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select t.typname::text from pg_type t where t.oid = type::regtype
$$;

-- Function: ibex.known_type(name text, type text, declared oid) returns text
-- Purpose:  the expression that tells whether a column, by its unqualified name, still is of a type that is noted in
--           this one. `declared` is the type it was captured with: of what is noted as text without being one, only
--           that will do.
-- Why:      pg_typeof is called for each write; ibex.is_ is a constant to the planner.
create or replace function ibex.known_type(name text, type text, declared oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when type = 'pg_catalog.text' and declared not in ('text'::regtype, 'varchar'::regtype)
              then format('pg_catalog.pg_typeof(%I) operator(pg_catalog.=) %s::pg_catalog.oid', name, declared)
              else format('ibex.%I(%I, %2$I, 1)', 'is_' || ibex.bare_type(type), name) end
$$;

-- Function: ibex.write_notes(types text[]) returns void
-- Purpose:  makes the functions that note values in these types, where they are not there yet: of a value of the
--           type ibex.note_ gives the value, of any other a null; ibex.is_ says which of both it is.
-- Why:      a cast can fail when the column has become another type, or not exist; both would be an error of the
--           application's write. Which of the two is called is decided when the call is parsed. The column is given
--           twice, and then a number, so that of the candidates one always matches better: for the type itself the
--           first function has two exact matches and the other one; for any other type it is none and one.
--           All are inlined.
create or replace function ibex.write_notes(types text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  missing record;
  kind text;
begin
  -- Mostly all of them are there. Who has to make one looks again, alone.
  if not exists (select from ibex.missing_notes(types)) then
    return;
  end if;
  perform pg_advisory_xact_lock(hashtext('ibex'), hashtext('notes'));
  for missing in select * from ibex.missing_notes(types) loop
    execute format('create function ibex.%I(anyelement, anyelement, int4) returns %s language sql immutable as %L',
                   missing.name, missing.result, 'select ' || missing.otherwise);
    foreach kind in array case missing.type when 'pg_catalog.int8' then '{int2,int4,int8}'
                                            when 'pg_catalog.text' then '{text,varchar}'
                                            else array[missing.type] end loop
      execute format('create function ibex.%I(%s, %2$s, int8) returns %s language sql immutable as %L',
                     missing.name, kind, missing.result, 'select ' || missing.value);
    end loop;
  end loop;
end
$$;

-- Function: ibex.missing_notes(types text[])
--           returns table (type text, name text, result text, value text, otherwise text)
-- Purpose:  the functions that are not there yet: what they are called, what they give for a value of the type, and
--           for others.
drop function if exists ibex.missing_notes(text[]);
create function ibex.missing_notes(types text[])
returns table (type text, name text, result text, value text, otherwise text)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select distinct t.type, f.*
    from unnest(types) t(type) cross join lateral ibex.bare_type(t.type) bare
    cross join lateral (values
      ('note_' || bare, t.type, '$1::' || t.type, 'null::' || t.type),
      ('is_' || bare, 'pg_catalog.bool', 'true', 'false')) f(name, result, value, otherwise)
   where f.name <> 'note_text' and to_regprocedure(format('ibex.%I(anyelement, anyelement, int4)', f.name)) is null
$$;
