-- Function: ibex.members(root oid) returns setof oid
-- Purpose:  the relations that carry triggers for a captured table: itself and, when it is partitioned, every
--           partition below it, since writes may name any of them.
-- Reads:    pg_class, pg_inherits.
-- Why:      pg_partition_tree would lock every partition for the rest of the transaction, one after the other, and
--           wait for one with others in hand: an application that detaches partitions could be made to fail.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.members(root oid) returns setof oid
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  with recursive member as (
    select root as relid
    union all
    select i.inhrelid
      from member m
      join pg_class c on c.oid = m.relid and c.relkind = 'p'
      join pg_inherits i on i.inhparent = m.relid and coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
  )
  select relid from member;
end
$$;

-- Function: ibex.present_members(root oid) returns setof oid
-- Purpose:  the same as of now, for a transaction whose snapshot may be older.
-- Locks:    ACCESS SHARE on every partition.
create or replace function ibex.present_members(root oid) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
  select root
  union all
  select p.relid::oid
    from pg_class c cross join lateral pg_partition_tree(c.oid) p
   where c.oid = root and c.relkind = 'p' and p.relid <> c.oid
$$;

-- Function: ibex.leaves(root oid) returns table (leaf oid, link text, definition text, predicate text)
-- Purpose:  the partitions of a table that hold rows; none when it is not partitioned.
-- Returns:  link       - every step up to the root with the version of its catalog row: another one when the
--                        leaf, or a level above it, was detached and attached again meanwhile;
--           definition - its partition constraint, comparable with that of a partition elsewhere; null where
--                        an equal one may still take other rows there;
--           predicate  - the same as a condition on the root's columns that picks the same rows on any server;
--                        null where there is none.
-- Why:      hash functions are called by the root's oid, on the bytes of the database's encoding. The order of
--           text depends on its collation, whose meaning is a matter of the server, so do equality and hashes of
--           a nondeterministic one. pg_inherits is read, not pg_partition_tree, so that the answer is that of
--           one snapshot. A partition that is being detached concurrently is gone already, for every query that
--           starts now.
-- Locks:    ACCESS SHARE, first on a leaf and then on what is above it, until the transaction ends. An application
--           that detaches partitions locks them the other way round: whoever calls this sets `lock_timeout` well
--           below `deadlock_timeout`.
create or replace function ibex.leaves(root oid)
returns table (leaf oid, link text, definition text, predicate text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive tree as (
    select root as relid, null::text as link, true as alike, true as portable
    union all
    select i.inhrelid, concat_ws(' ', t.link, concat_ws(':', i.inhparent, i.inhrelid, i.xmin)),
           t.alike and s.alike, t.portable and s.alike and s.strategy <> 'h'
      from tree t
      join pg_inherits i on i.inhparent = t.relid
      join lateral (
        select p.partstrat as strategy,
               p.partexprs is null and not exists (
                 select from unnest(p.partcollation::oid[]) k join pg_collation n on n.oid = k
                  where p.partstrat = 'r' or not n.collisdeterministic) as alike
          from pg_partitioned_table p where p.partrelid = t.relid
      ) s on true
     where coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
  )
  select t.relid, t.link,
         case when t.alike then regexp_replace(d.text, 'satisfies_hash_partition\(''\d+''::oid',
                                              'hash ' || getdatabaseencoding() || '(', 'g') end,
         case when t.portable then d.text end
    from tree t join pg_class c on c.oid = t.relid
    cross join lateral pg_get_partition_constraintdef(t.relid) d(text)
   where t.relid <> root and c.relkind <> 'p'
$$;
