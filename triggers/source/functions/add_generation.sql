-- Function: ibex.add_generation(root oid) returns integer
-- Purpose:  gives a captured table one more delta table, ibex.delta_<root>_<n>, and returns n.
-- Writes:   ibex.generation, the delta table and who may read it. Locks: none on the application's table.
-- Why:      no index and no sequence (they double the cost of a write; lastval() belongs to the application),
--           autovacuum off (a vacuum would make our NOWAIT lock fail; there is nothing to vacuum), never
--           UNLOGGED (a crash would empty it), columns k1 .. kn so that no name of the application collides.
--           The origin is believed of those that could write it here anyway, see ibex.write_function.
--           A bounded origin, since with fixed-width keys the table then needs no TOAST table: that would be three
--           relations for one. It is cut rather than refused: the application may set it to anything.
create or replace function ibex.add_generation(root oid) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
  n integer;
  noted text;
begin
  select * into strict captured from ibex.captured c where c.relid = root for update;
  select coalesce(max(g.n), 0) + 1 into n from ibex.generation g where g.relid = root;
  select string_agg(format('k%s %s', t.ord, t.type), ', ' order by t.ord) into noted
    from unnest(captured.types) with ordinality t(type, ord);
  execute format(
    'create table ibex.%I (%s, '
    'xid bigint not null default txid_current(), '
    'at timestamptz not null default clock_timestamp(), '
    'op "char" not null, '
    'relation oid, '
    'origin varchar(63) default case when current_setting(''ibex.origin'', true) <> '''' '
      'then case when pg_has_role(session_user, current_user, ''member'') '
      'then current_setting(''ibex.origin'', true)::varchar(63) end end) '
    'with (autovacuum_enabled = off, toast.autovacuum_enabled = off)',
    format('delta_%s_%s', root, n), noted);
  -- See ibex.share.
  if (select c.relrowsecurity from pg_class c where c.oid = root) then
    execute format('alter table ibex.%I enable row level security', format('delta_%s_%s', root, n));
  end if;
  insert into ibex.generation values (root, n);
  perform ibex.share(root);
  return n;
end
$$;
