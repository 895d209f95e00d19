-- Function: ibex.write_functions(root oid) returns void
-- Purpose:  writes (or replaces) the trigger functions of a captured table, so that they note changes in the
--           generation that ibex.captured names.
-- Writes:   functions ibex.insert_<root>, update_, delete_, truncate_ and move_<root>.
-- Locks:    none on the application's table; running statements finish with the body they started with.
-- Why:      - One function an operation: no `if`, and so no operator that a search_path of the application
--             could redirect. The bodies run as the owner of `ibex`, whatever the caller's search_path: every
--             name in them is qualified, or a transition table.
--           - UPDATE notes the new keys, and those old keys that no new row has (keys that changed). The
--             anti-join writes half of what `union all` would.
--           - move_ is for MERGE, which moves rows between partitions without any statement trigger seeing it.
--           - By row (see ibex.choose_level) the same is noted from the records old and new.
create or replace function ibex.write_functions(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
  delta text;
  noted text;
  from_new text := ' from n';
  from_old text := ' from o';
  unless_same text := ' from o where not exists (select from n where (%s) operator(pg_catalog.=) (%s))';
  n text := 'n';
  o text := 'o';
begin
  select * into strict captured from ibex.captured c where c.relid = root;
  if captured.level = 'row' then
    from_new := '';
    from_old := '';
    unless_same := ' where not (%s) operator(pg_catalog.=) (%s)';
    n := 'new';
    o := 'old';
  end if;
  delta := format('ibex.delta_%s_%s', root, captured.generation);
  select string_agg(format('k%s', c.ord), ', ' order by c.ord) into noted
    from generate_subscripts(captured.columns, 1) c(ord);

  n := ibex.noted_values(captured, n);
  o := ibex.noted_values(captured, o);

  perform ibex.write_function(format('insert_%s', root), format(
    'insert into %s (%s, op) select %s, ''I''%s', delta, noted, n, from_new), 'null');
  perform ibex.write_function(format('delete_%s', root), format(
    'insert into %s (%s, op) select %s, ''D''%s', delta, noted, o, from_old), 'null');
  perform ibex.write_function(format('truncate_%s', root), format(
    'insert into %s (op, relation) values (''T'', tg_relid)', delta), 'null');
  if captured.mode = 'row' then
    perform ibex.write_function(format('update_%s', root), format(
      'insert into %s (%s, op) select %s, ''I''%s union all select %s, ''D''%s',
      delta, noted, n, from_new, o, from_old), 'null');
  else
    perform ibex.write_function(format('update_%s', root), format(
      'insert into %s (%s, op) select %s, ''U''%s union all select %s, ''U''%s',
      delta, noted, n, from_new, o, format(unless_same, n, o)), 'null');
    perform ibex.write_function(format('move_%s', root), format(
      'insert into %s (%s, op) values (%s, ''U''), (%s, ''U'')',
      delta, noted, ibex.noted_values(captured, 'old'), ibex.noted_values(captured, 'new')), 'new');
  end if;
end
$$;

-- Function: ibex.write_function(name text, statement text, result text) returns void
-- Purpose:  creates or replaces one trigger function of one statement.
create or replace function ibex.write_function(name text, statement text, result text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute format('create or replace function ibex.%I() returns trigger language plpgsql security definer as %L',
                 name, format('begin %s; return %s; end', statement, result));
end
$$;

-- Function: ibex.noted_values(captured ibex.captured, alias text) returns text
-- Purpose:  the select list that turns a row of the table into the columns k1 .. kn of its delta tables.
create or replace function ibex.noted_values(captured ibex.captured, alias text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select string_agg(format('%s.%I::%s', alias, c.name, c.type), ', ' order by c.ord)
    from unnest(captured.columns, captured.types) with ordinality c(name, type, ord)
$$;
