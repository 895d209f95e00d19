-- Function: ibex.partition_changes(root oid)
-- Purpose:  what partitions that came or went since the table was armed leave to do, given that nothing else changed.
-- Returns:  no row while a relation lacks its triggers; else one row:
--           exact   - the parts below say it all; otherwise only a copy of the whole table does;
--           parts   - see ibex.part of the target: regions to remove, and where their rows are now;
--           came, went - how many partitions, for messages;
--           seen, leaves - what to record once the parts are asked for.
-- Why:      all of it is the state of one moment: the functions that are called are stable.
--           A leaf counts as touched when it is new or gone, or when a step between it and the root is another
--           one: then it was away, and may have come back with other rows. A region is what a leaf could hold;
--           its rows on the target are removed, and what the table has of it now, in whichever partition, is
--           copied. Rows without a key cannot be copied beside others.
create or replace function ibex.partition_changes(root oid)
returns table (exact boolean, parts json, came bigint, went bigint, seen json, leaves jsonb)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with captured as (
    select c.* from ibex.captured c where c.relid = root and not exists (select from ibex.unarmed(root))
  ), known as (
    select k.key::oid as leaf, k.value ->> 'link' as link, k.value ->> 'predicate' as predicate, k.value as noted
      from captured c cross join jsonb_each(c.leaves) k
  ), leaf as (
    select leaf, k.leaf is not null as was, p.leaf is not null as stays, k.predicate as before, p.predicate as now,
           k.link is distinct from p.link as touched, k.noted, p.link
      from known k full join ibex.leaves(root) p using (leaf)
  ), part as (
    select l.leaf as relation, case when l.before = l.now then l.before end as predicate
      from leaf l where l.touched and l.stays
    union all
    select null, l.before from leaf l where l.touched and l.was and (not l.stays or l.before is distinct from l.now)
  ), steady as (
    select root as relation
    union select l.leaf from leaf l where not l.touched
    union select (step.ends)[1]::oid
      from leaf l cross join regexp_matches(l.link, '(\d+):\d+:\d+', 'g') step(ends) where not l.touched
  ), signature as (
    select s.* from ibex.signatures(array[root]) s
  ), disarmed as (
    select from captured c cross join signature s
     cross join lateral (
       (select unnest(string_to_array(c.armour, ' ')) except select unnest(string_to_array(s.armour, ' ')))
       union all
       (select unnest(string_to_array(s.armour, ' ')) except select unnest(string_to_array(c.armour, ' ')))) d(trigger)
     where d.trigger = 'lost' or split_part(d.trigger, ':', 1) in (select st.relation::text from steady st)
  )
  select c.mode = 'key' and s.shape = c.shape and not exists (select from disarmed)
           and not exists (select from leaf l where l.touched and l.was and l.before is null),
         (select json_agg(p) from part p),
         (select count(*) from leaf l where l.touched and l.stays),
         (select count(*) from leaf l where l.touched and l.was),
         json_build_object('shape', s.shape, 'storage', s.storage, 'armour', s.armour, 'tree', s.tree),
         (select jsonb_object_agg(l.leaf, case when l.touched
                    then jsonb_build_object('link', l.link, 'predicate', l.now, 'since', txid_current_snapshot()::text)
                    else l.noted || jsonb_build_object('predicate', l.now) end)
            from leaf l where l.stays)
    from captured c cross join signature s
$$;

-- Function: ibex.note_seen(root oid, leaf oid) returns void
-- Purpose:  a batch has read from a partition that is not known yet. It is noted as one that was there, with what it
--           can hold: should it be gone again before anybody looks, its region still has to be removed.
-- Writes:   ibex.captured; `tree` so that the next look finds the partitions changed whatever they are by then.
create or replace function ibex.note_seen(root oid, leaf oid) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update ibex.captured c
     set tree = '',
         leaves = coalesce(c.leaves, '{}') || jsonb_build_object(leaf, jsonb_build_object(
           'link', 'seen', 'since', '1:1:',
           'predicate', case when coalesce(c.leaves -> leaf::text ->> 'predicate', l.predicate) = l.predicate
                             then l.predicate end))
    from (select max(p.predicate) as predicate from ibex.leaves(root) p where p.leaf = note_seen.leaf) l
   where c.relid = root
$$;
