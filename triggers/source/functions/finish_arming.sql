-- Function: ibex.finish_arming(root oid) returns boolean
-- Purpose:  records what the catalogs say now that every relation of the table carries its triggers; false
--           when one does not (a partition came meanwhile): then it is to be armed first.
-- Writes:   ibex.captured.
-- Why:      one statement, so that what is recorded and what is asked is the state of one moment.
create or replace function ibex.finish_arming(root oid) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  update ibex.captured c
     set shape = s.shape, storage = s.storage, armour = s.armour, tree = s.tree,
         leaves = ibex.note_leaves(root), armed_at = clock_timestamp()
    from ibex.signatures(array[root]) s
   where c.relid = root and not exists (select from ibex.unarmed(root));
  return found;
end
$$;

-- Function: ibex.note_leaves(root oid) returns jsonb
-- Purpose:  the leaves of a table as ibex.captured keeps them, by oid.
create or replace function ibex.note_leaves(root oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  select jsonb_object_agg(l.leaf, jsonb_build_object(
           'link', l.link, 'predicate', l.predicate, 'since', txid_current_snapshot()::text))
    from ibex.leaves(root) l
$$;

-- Function: ibex.refresh_leaves(root oid, known jsonb) returns jsonb
-- Purpose:  the known leaves with the names that the columns of their predicates have now.
create or replace function ibex.refresh_leaves(root oid, known jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  select jsonb_object_agg(k.key, case when l.leaf is null then k.value
                                      else k.value || jsonb_build_object('predicate', l.predicate) end)
    from jsonb_each(known) k
    left join ibex.leaves(root) l on l.leaf = k.key::oid and l.link = k.value ->> 'link'
$$;

-- Function: ibex.unarmed(root oid) returns setof regclass
-- Purpose:  the relations of a captured table that lack one of its triggers, or have it disabled.
create or replace function ibex.unarmed(root oid) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select m.m::regclass
    from ibex.members(root) m(m)
   where exists (select from ibex.wanted_triggers(m.m, root) w
                  where not exists (select from pg_trigger t
                                     where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname = 'ibex_' || w.name || '_' || root))
      or (m.m = root and ibex.wants_move(root)
          and not ibex.sees_moves(root))
$$;

-- Function: ibex.strays(root oid) returns setof regclass
-- Purpose:  relations that are no part of the table any more, such as a detached partition, and that carry its
--           triggers still.
create or replace function ibex.strays(root oid) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct t.tgrelid::regclass
    from pg_trigger t
   where (select c.relkind = 'p' from pg_class c where c.oid = root)
     and t.tgname ~ ('^ibex_[a-z]+_' || root || '$')
     and not exists (select from ibex.members(root) m where m = t.tgrelid)
$$;
