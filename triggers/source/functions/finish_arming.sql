-- Function: ibex.finish_arming(root oid) returns boolean
-- Purpose:  records what the catalogs say now that every relation of the table carries its triggers; false
--           when one does not (a partition came meanwhile): then it is to be armed first.
-- Writes:   ibex.captured.
create or replace function ibex.finish_arming(root oid) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from ibex.unarmed(root)) then
    return false;
  end if;
  update ibex.captured c
     set shape = s.shape, storage = s.storage, armour = s.armour, armed_at = clock_timestamp()
    from ibex.signatures(array[root]) s
   where c.relid = root;
  return true;
end
$$;

-- Function: ibex.unarmed(root oid) returns setof regclass
-- Purpose:  the relations of a captured table that lack one of its triggers, or have it disabled.
create or replace function ibex.unarmed(root oid) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select m.m::regclass
    from ibex.members(root) m(m) join pg_class c on c.oid = m.m
   where (select count(*) from pg_trigger t
           where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname ~ ('^ibex_[a-z]+_' || root || '$')) < 4
      or (m.m = root and c.relkind = 'p' and current_setting('server_version_num')::int >= 150000
          and not exists (select from pg_trigger t
                           where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname = '~ibex_move_' || root))
$$;
