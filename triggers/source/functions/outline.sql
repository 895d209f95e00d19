-- Function: ibex.outline(root oid) returns text
-- Purpose:  what a plan is made from: the table's name, its columns with their types. A batch or a chunk that was
--           read while this was another one is void. Null when there is no such table.
--           Of a virtual column its formula: what it reads as changes with it, and no row does.
-- Why:      asked for every batch, while the reader's locks keep the tables from being altered. Versions of
--           catalog rows are no part of it: a GRANT or SET STATISTICS changes nothing that is read.
create or replace function ibex.outline(root oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select md5(concat_ws(' ', c.relnamespace, c.relname,
           (select string_agg(concat_ws(',', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation, a.attgenerated,
                                         a.attidentity,
                                         (select md5(d.adbin::text) from pg_attrdef d
                                           where a.attgenerated = 'v' and d.adrelid = a.attrelid and d.adnum = a.attnum)),
                              ' ' order by a.attnum)
              from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)))
    from pg_class c where c.oid = root
$$;

-- Function: ibex.missing_values(root oid) returns jsonb
-- Purpose:  the value that rows have in a column which was added after they were written and is not stored in
--           them, as an object of text by column number; columns where partitions disagree are left out.
-- Why:      ADD COLUMN with a constant default changes every row and fires no trigger. What it gave them is
--           written down in the catalog, until the next rewrite of the table.
create or replace function ibex.missing_values(root oid) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(jsonb_object_agg(v.attnum, v.value), '{}')
    from (select a.attnum, min(array_to_string(l.attmissingval, '')) as value
            from pg_attribute a
            left join (ibex.members(root) m join pg_class c on c.oid = m and c.relkind = 'r') on true
            left join pg_attribute l on l.attrelid = c.oid and l.attname = a.attname
           where a.attrelid = root and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
           group by a.attnum
          having count(distinct coalesce('=' || array_to_string(l.attmissingval, ''), '')) = 1) v
$$;
