-- Function: ibex.choose_key(root regclass) returns table (mode text, columns text[], types text[], attnums int2[])
-- Purpose:  decides what the delta tables of a table note.
-- Returns:  mode `key` with the columns of the primary key, else of the replica identity index, else of the
--           narrowest unique index that is immediate, whole (no predicate, no expression) and NOT NULL;
--           mode `row` with all columns that are not generated when there is none of them.
-- Reads:    pg_index, pg_attribute, pg_constraint, see ibex.is_equality.
-- Why:      NOT NULL may be said and not be valid yet, from PostgreSQL 18 on: then there can be nulls.
--           In PL/pgSQL, as what else is asked for each of thousands of tables: it keeps the plan for the session, while
--           a function in SQL is planned with every call, before PostgreSQL 18 at least. With 15 it was two fifths of a setup.
create or replace function ibex.choose_key(root regclass)
returns table (mode text, columns text[], types text[], attnums int2[])
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
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
              where k.ord <= i.indnkeyatts
                and (not a.attnotnull
                     or exists (select from pg_constraint n
                                 where n.conrelid = root and n.contype = 'n' and n.conkey = array[k.attnum]
                                   and not n.convalidated)
                     or not ibex.is_equality(a.atttypid, a.attcollation,
                                             (i.indclass::oid[])[k.ord - 1], (i.indcollation::oid[])[k.ord - 1])))
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
    from noted n group by n.mode;
end
$$;

-- Function: ibex.is_equality(type oid, of_column oid, opclass oid, of_index oid) returns boolean
-- Purpose:  whether values that an index holds apart are different for their type, as it is compared by default: only
--           then does an equal key mean the same row.
-- Parameters: of_column, of_index - the collations of the column and of the index.
-- Why:      citext with the operator class of text, or a column that ignores case with an index that does not, can
--           hold several rows that are equal for their column. The operator class that says what is equal by default
--           is that of the type itself, or else of the one to which it is binary coercible. Other access methods than
--           btree hold equal values apart as their own business (GiST, for WITHOUT OVERLAPS).
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.is_equality(type oid, of_column oid, opclass oid, of_index oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return (
  with recursive behind as (
    select t.oid, t.typtype, t.typbasetype from pg_type t where t.oid = type
    union all
    select t.oid, t.typtype, t.typbasetype from behind b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd'
  ), base as (
    select b.oid from behind b where b.typtype <> 'd'
  ), btree as (
    select c.oid, c.opcintype as type, c.opcdefault as by_default, o.amopopr as equal
      from pg_opclass c
      join pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
      join pg_amop o on o.amopfamily = c.opcfamily and o.amopstrategy = 3
       and o.amoplefttype = c.opcintype and o.amoprighttype = c.opcintype
  )
  select (of_column = of_index
          or not exists (select from pg_collation k where k.oid in (of_column, of_index) and not k.collisdeterministic))
     and (not exists (select from btree b where b.oid = opclass)
          or exists (select from btree b join btree d on d.by_default and d.type = b.type and d.equal = b.equal
                      where b.oid = opclass
                        and (b.type in (select oid from base)
                             or not exists (select from btree o where o.by_default and o.type in (select oid from base))))));
end
$$;
