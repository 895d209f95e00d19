-- Function: ibex.choose_key(root regclass) returns table (mode text, columns text[], types text[], attnums int2[])
-- Purpose:  decides what the delta tables of a table note.
-- Returns:  mode `key` with the columns of the primary key, else of the replica identity index, else of the
--           narrowest unique index that is immediate, whole (no predicate, no expression) and NOT NULL;
--           mode `row` with all columns that are not generated when there is none of them.
-- Reads:    pg_index, pg_attribute.
create or replace function ibex.choose_key(root regclass)
returns table (mode text, columns text[], types text[], attnums int2[])
language sql stable set search_path = pg_catalog, pg_temp as $$
  with candidate as (
    select i.indexrelid, i.indkey, i.indnkeyatts,
           case when i.indisprimary then 0 when i.indisreplident then 1 else 2 end as rank
      from pg_index i
     where i.indrelid = root and i.indisunique and i.indisvalid
       and (i.indisprimary or i.indimmediate)
       and i.indpred is null and i.indexprs is null
       and not exists (
             select from unnest(i.indkey::int2[]) with ordinality k(attnum, ord)
               join pg_attribute a on a.attrelid = root and a.attnum = k.attnum
              where k.ord <= i.indnkeyatts and not a.attnotnull)
     order by rank, i.indnkeyatts, i.indexrelid
     limit 1
  ), noted as (
    select 'key' as mode, k.ord, a.attnum, a.attname::text as name, ibex.delta_type(a.atttypid) as type
      from candidate c
      cross join unnest(c.indkey::int2[]) with ordinality k(attnum, ord)
      join pg_attribute a on a.attrelid = root and a.attnum = k.attnum
     where k.ord <= c.indnkeyatts
    union all
    select 'row', a.attnum, a.attnum, a.attname, ibex.delta_type(a.atttypid)
      from pg_attribute a
     where a.attrelid = root and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       and not exists (select from candidate)
  )
  select n.mode, array_agg(n.name order by n.ord), array_agg(n.type order by n.ord),
         array_agg(n.attnum order by n.ord)
    from noted n group by n.mode
$$;
