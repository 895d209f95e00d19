-- Function: ibex.signatures(roots oid[]) returns table (relid oid, shape text, storage text, armour text, tree text)
-- Purpose:  what the catalogs say about captured tables; compared with what they said when they were armed.
-- Returns:  one row a table that still exists:
--           shape    - name, owner, row level security, columns with their types and the version of their catalog rows, unique indexes, and
--                      what decides by what kind of trigger it is noted (inheritance, subscriptions, late triggers);
--           storage  - the relations and their files: changes with TRUNCATE, rewrites, new and gone partitions;
--           armour   - our triggers on every relation, whether enabled, and the version of their catalog rows;
--                      delta tables that are gone;
--           tree     - how partitions hang together, and the version of those catalog rows.
-- Why:      no trigger tells us of DISABLE TRIGGER, ALTER TABLE, ATTACH or DETACH. xmin of the catalog rows
--           shows a trigger that was disabled and enabled again, a partition that was detached and attached
--           again, and an ALTER TYPE to the same type. One statement for all tables: it is asked every second.
drop function if exists ibex.signatures(oid[]);
create function ibex.signatures(roots oid[])
returns table (relid oid, shape text, storage text, armour text, tree text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive root as (
    select c.oid, c.relname, c.relnamespace, c.relkind, c.relowner, c.relrowsecurity
      from pg_class c where c.oid = any (roots)
  ), member as (
    select r.oid as root, r.oid, null::text as link from root r
    union all
    select m.root, i.inhrelid, concat_ws(':', i.inhparent, i.inhrelid, i.xmin)
      from member m
      join pg_class c on c.oid = m.oid and c.relkind = 'p'
      join pg_inherits i on i.inhparent = m.oid and coalesce(to_jsonb(i) ->> 'inhdetachpending', 'false') = 'false'
  ), columns as (
    select a.attrelid as root,
           string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated, a.xmin),
                      ' ' order by a.attnum) as text
      from pg_attribute a where a.attrelid = any (roots) and a.attnum > 0 and not a.attisdropped group by 1
  ), keys as (
    select i.indrelid as root,
           string_agg(concat_ws(',', i.indexrelid, i.indkey, i.indisprimary, i.indisreplident, i.indisvalid),
                      ' ' order by i.indexrelid) as text
      from pg_index i where i.indrelid = any (roots) and i.indisunique group by 1
  ), kin as (
    select r.oid as root, string_agg(concat_ws(':', i.inhparent, i.inhrelid, i.xmin), ' ' order by i.inhparent, i.inhrelid) as text
      from root r join pg_inherits i on i.inhrelid = r.oid or (i.inhparent = r.oid and r.relkind = 'r') group by 1
  ), fed as (
    select m.root, string_agg(s.srrelid || '<' || s.srsubid, ' ' order by s.srrelid, s.srsubid) as text
      from member m join pg_subscription_rel s on s.srrelid = m.oid group by 1
  ), late as (
    select distinct m.root, 'late' as text
      from member m join pg_trigger t on t.tgrelid = m.oid
     where m.link is not null and t.tgname > '~ibex_move_' and ibex.sorts_late(t)
  ), files as (
    select m.root, string_agg(c.oid || ':' || c.relfilenode, ' ' order by c.oid) as text,
           string_agg(m.link, ' ' order by m.oid) as tree
      from member m join pg_class c on c.oid = m.oid group by 1
  ), triggers as (
    select m.root,
           string_agg(concat_ws(':', t.tgrelid, t.tgname, t.tgenabled, t.xmin), ' ' order by t.tgrelid, t.tgname) as text
      from member m join pg_trigger t on t.tgrelid = m.oid
     where t.tgname ~ ('^~?ibex_[a-z]+_' || m.root || '$') group by 1
  ), lost as (
    select g.relid as root, string_agg('lost ' || g.n, ' ' order by g.n) as text
      from ibex.generation g
     where g.relid = any (roots) and to_regclass(format('ibex.delta_%s_%s', g.relid, g.n)) is null group by 1
  )
  select r.oid, md5(concat_ws(' ', r.relnamespace, r.relname, r.relowner, r.relrowsecurity, c.text, k.text, i.text, s.text, l.text)), f.text,
         concat_ws(' ', t.text, d.text), f.tree
    from root r left join columns c on c.root = r.oid left join keys k on k.root = r.oid
    left join kin i on i.root = r.oid left join fed s on s.root = r.oid left join late l on l.root = r.oid
    left join files f on f.root = r.oid left join triggers t on t.root = r.oid left join lost d on d.root = r.oid
$$;
