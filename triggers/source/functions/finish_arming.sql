-- Function: ibex.finish_arming(roots oid[]) returns setof oid
-- Purpose:  records what the catalogs say now that every relation of these tables carries its triggers. Returns those
--           of which that is true; the others are to be armed first (a partition came meanwhile).
-- Writes:   ibex.captured. Locks: of partitioned tables as ibex.leaves, so these come one by one.
-- Why:      one statement, so that what is recorded and what is asked is the state of one moment.
drop function if exists ibex.finish_arming(oid);
create or replace function ibex.finish_arming(roots oid[]) returns setof oid
language sql set search_path = pg_catalog, pg_temp as $$
  update ibex.captured c
     set shape = s.shape, storage = s.storage, armour = s.armour, tree = s.tree,
         leaves = case when s.tree is not null then ibex.note_leaves(c.relid) end, armed_at = clock_timestamp()
    from ibex.signatures(roots) s
   where c.relid = s.relid and c.relid = any (roots) and not exists (select from ibex.unarmed(c.relid))
  returning c.relid
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
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.unarmed(root oid) returns setof regclass
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  select m.m::regclass
    from ibex.members(root) m(m)
   where exists (select from ibex.wanted_triggers(m.m, root) w
                  where not exists (select from pg_trigger t
                                     where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname = 'ibex_' || w.name || '_' || root))
      or (m.m = root and ibex.wants_move(root)
          and not ibex.sees_moves(root));
end
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
