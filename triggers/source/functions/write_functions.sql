-- Function: ibex.write_functions(root oid) returns void
-- Purpose:  writes (or replaces) the trigger functions of a captured table, so that they note changes in the
--           generation that ibex.captured names.
-- Writes:   functions ibex.insert_<root>, update_, delete_, truncate_ and, where it is wanted, move_<root>.
-- Locks:    none on the application's table; running statements finish with the body they started with.
-- Why:      - One function an operation: no `if`, and so no operator that a search_path of the application
--             could redirect. The bodies run as the owner of `ibex`, whatever the caller's search_path: every
--             name in them is qualified, or a transition table, or a column of one.
--           - UPDATE notes the keys of the old rows and of the new ones: a key that changed leaves no ghost. Nearly all
--             are noted twice; to leave out those that no new row lacks, by whatever join, costs the application
--             more than to write them, and a batch carries a key once however often it was noted.
--           - move_ is for MERGE, which moves rows between partitions without any statement trigger seeing it.
--           - By row (see ibex.choose_level) the same is noted from the records old and new.
--           - What a lane of ours brought from the node to which all readers of the table carry is not noted at all: see
--             ibex.echo.
--           - Where values become text, what changes such a text is pinned: the functions run in sessions of the
--             application, whose DateStyle the target does not know.
create or replace function ibex.write_functions(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
  into_delta text;
  n text;
  o text;
  pinned text;
  echo text;
begin
  select * into strict captured from ibex.captured c where c.relid = root;
  if captured.muted_at is not null then
    perform ibex.mute(root);
    return;
  end if;
  perform ibex.write_notes(captured.types);
  pinned := ibex.pinned_settings(captured);
  echo := ibex.echo(root);
  into_delta := format('insert into ibex.delta_%s_%s (%s, op) ', root, captured.generation, ibex.noted_names(captured, ''));
  n := case captured.level when 'row' then '(select new.*) n' else 'n' end;
  o := case captured.level when 'row' then '(select old.*) o' else 'o' end;

  perform ibex.write_function(format('insert_%s', root), echo, into_delta || ibex.noted_rows(captured, n, 'I'), 'null', pinned);
  perform ibex.write_function(format('delete_%s', root), echo, into_delta || ibex.noted_rows(captured, o, 'D'), 'null', pinned);
  perform ibex.write_function(format('truncate_%s', root), echo, format(
    'insert into ibex.delta_%s_%s (op, relation) values (''T'', tg_relid)', root, captured.generation), 'null', pinned);
  perform ibex.write_function(format('update_%s', root), echo, into_delta
    || ibex.noted_rows(captured, n, case captured.mode when 'row' then 'I' else 'U' end) || ' union all '
    || ibex.noted_rows(captured, o, case captured.mode when 'row' then 'D' else 'U' end), 'null', pinned);
  if ibex.wants_move(root) then
    perform ibex.write_function(format('move_%s', root), echo, into_delta
      || ibex.noted_rows(captured, '(select old.*) o', 'U') || ' union all '
      || ibex.noted_rows(captured, '(select new.*) n', 'U'), 'new', pinned);
    perform ibex.admit_owners(root);
  end if;
end
$$;

-- Function: ibex.echo(root oid) returns text
-- Purpose:  the node whose changes nobody who reads the table carries, as far as a lane of ours brought them here: they
--           came from there. Null where there is none, or some reader carries them on to a third node.
create or replace function ibex.echo(root oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select min(s.echo) from ibex.source_table t join ibex.source_sync s on s.name = t.sync
   where t.relid = root having min(s.echo) = max(s.echo) and count(*) = count(s.echo)
$$;

-- Function: ibex.write_function(name text, echo text, statement text, result text, pinned text) returns void
-- Purpose:  creates or replaces one trigger function of one statement, with its SET clauses. A column may have the name of a variable
--           that every trigger function has, such as tg_op. In a session that marks what it writes as coming from the
--           node `echo` the statement is not executed; null: in every session it is. Only roles that could change these
--           functions themselves are believed: whoever else sets ibex.origin hides nothing.
-- Why:      Triggers fire for whoever writes; only who makes a trigger needs the right to execute its function. Nobody
--           else has it, lest a role that can see the schema hang one on a table of its own and make up deltas.
--           It is not checked as it is made: that would cost as much as to make it, and a name that is gone is no error.
drop function if exists ibex.write_function(text, text, text, text);
create or replace function ibex.write_function(name text, echo text, statement text, result text, pinned text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set check_function_bodies = off as $$
begin
  execute format('create or replace function ibex.%I() returns trigger language plpgsql security definer %s as %L',
                 name, pinned, format(E'#variable_conflict use_column\nbegin %s%s; return %s; end',
                   case when echo is not null then format(
                     'if pg_catalog.current_setting(''ibex.origin'', true) operator(pg_catalog.=) %L::pg_catalog.text '
                     'and pg_catalog.pg_has_role(session_user, current_user, ''member'') then return %s; end if; ',
                     echo, result) end, statement, result));
  execute format('revoke execute on function ibex.%I() from public', name);
end
$$;

-- Function: ibex.admit_owners(root oid) returns void
-- Purpose:  lets the owners of a partitioned table make partitions: each gets a copy of the row trigger move_, for which
--           they need the right to execute its function.
create or replace function ibex.admit_owners(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  owner name;
begin
  if to_regprocedure(format('ibex.move_%s()', root)) is null then
    return;
  end if;
  for owner in
    select distinct r.rolname
      from ibex.members(root) m join pg_class c on c.oid = m join pg_roles r on r.oid = c.relowner
     where c.relkind = 'p'
  loop
    execute format('grant execute on function ibex.%I() to %I', 'move_' || root, owner);
  end loop;
end
$$;

-- Function: ibex.noted_rows(captured ibex.captured, rows text, op text) returns text
-- Purpose:  the query that makes deltas of rows of the table: k1 .. kn, op. Where the table is not any more what
--           was captured, op is `?`: something changed there, and nobody can tell which rows.
-- Why:      DDL of the application comes before we know of it, in its own transaction even, and must not make its
--           writes fail. A name that the rows lack is found in `v` instead, which has one row of nulls, and
--           ibex.note_ takes any type. The planner removes both: what is executed is the scan of `rows`.
--           A key has no null, so one says that something is amiss; a whole row is known by its columns' types. So in
--           `v` no column has the type that was captured.
create or replace function ibex.noted_rows(captured ibex.captured, rows text, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format(
           'select %s, case when %s then %L::pg_catalog."char" else ''?''::pg_catalog."char" end as op '
           'from (values (%s)) v(%s) cross join lateral (select %s from %s) c',
           ibex.noted_names(captured, 'c.ibex_'),
           case captured.mode when 'key' then string_agg(format('c.ibex_k%s is not null', c.ord), ' and ' order by c.ord)
                              else 'c.ibex_known' end,
           op,
           string_agg('null::' || case when captured.mode = 'key' then c.type
                                       when c.type = 'pg_catalog.bool' then 'pg_catalog.int4'
                                       else 'pg_catalog.bool' end, ', ' order by c.ord),
           string_agg(quote_ident(c.name), ', ' order by c.ord),
           string_agg(format('%s as ibex_k%s', ibex.noted_value(c.name, c.type), c.ord), ', ' order by c.ord)
             || case captured.mode when 'row' then format(', %s as ibex_known', string_agg(
                     ibex.known_type(c.name, c.type, coalesce(a.atttypid, 0)), ' and ' order by c.ord)) else '' end,
           rows)
    from unnest(captured.columns, captured.types, captured.attnums) with ordinality c(name, type, attnum, ord)
    left join pg_attribute a on a.attrelid = captured.relid and a.attnum = c.attnum and not a.attisdropped
$$;

-- Function: ibex.noted_names(captured ibex.captured, prefix text) returns text
-- Purpose:  the list of the columns k1 .. kn.
create or replace function ibex.noted_names(captured ibex.captured, prefix text) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select string_agg(format('%sk%s', prefix, c.ord), ', ' order by c.ord) from generate_subscripts(captured.columns, 1) c(ord)
$$;

-- Function: ibex.pinned_settings(captured ibex.captured) returns text
-- Purpose:  the SET clauses of trigger functions that note a value as text whose text depends on settings: there may
--           be a date in it, or a float, or a name. Empty for all others, since each clause costs every call.
-- Reads:    pg_attribute, pg_type, pg_cast.
create or replace function ibex.pinned_settings(captured ibex.captured) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive behind as (
    select t.oid, t.typtype, t.typbasetype
      from unnest(captured.types, captured.attnums) c(type, attnum)
      join pg_attribute a on a.attrelid = captured.relid and a.attnum = c.attnum
      join pg_type t on t.oid = a.atttypid
     where c.type = 'pg_catalog.text'
    union all
    select t.oid, t.typtype, t.typbasetype from behind b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd'
  )
  select case when exists (
           select from behind b
            where b.typtype not in ('d', 'e') and b.oid <> 'text'::regtype
              and not exists (select from pg_cast x
                               where x.castsource = b.oid and x.casttarget = 'text'::regtype and x.castmethod = 'b'))
    then 'set search_path = pg_catalog, pg_temp set datestyle = ''ISO, YMD'' set intervalstyle = postgres '
         'set timezone = ''UTC'' set extra_float_digits = 3 set bytea_output = hex set lc_monetary = ''C'' '
         'set quote_all_identifiers = off'
    else '' end
$$;

drop function if exists ibex.noted_changes(ibex.captured);
drop function if exists ibex.noted_values(ibex.captured);

-- Tables that another version captured are noted by its functions until this file is another one.
select ibex.write_functions(c.relid) from (select c.relid from ibex.captured c order by c.relid for update) c;
