-- What the first version of Ibex left on the source after a move of two tables: the schema ibex and its triggers, as pg_dump wrote
-- them down. <parent> and <child> stand for the oids of the tables.
set check_function_bodies = off;
CREATE SCHEMA ibex;
CREATE FUNCTION ibex.add_generation(root oid) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
    'origin text default nullif(current_setting(''ibex.origin'', true), '''')) '
    'with (autovacuum_enabled = off, toast.autovacuum_enabled = off)',
    format('delta_%s_%s', root, n), noted);
  insert into ibex.generation values (root, n);
  return n;
end
$$;
CREATE FUNCTION ibex.arm(relation regclass, root oid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  wanted record;
  key_changes text;
begin
  execute format('lock table only %s in share row exclusive mode', relation);
  for wanted in
    select v.name || '_' || root as name, v.event,
           (select t.tgenabled from pg_trigger t
             where t.tgrelid = relation and t.tgname = 'ibex_' || v.name || '_' || root) as enabled
      from (values ('insert', 'insert on %s referencing new table as n'),
                   ('update', 'update on %s referencing old table as o new table as n'),
                   ('delete', 'delete on %s referencing old table as o'),
                   ('truncate', 'truncate on %s')) v(name, event)
  loop
    if wanted.enabled is null then
      execute format('create trigger %I after ' || wanted.event || ' for each statement execute function ibex.%I()',
                     'ibex_' || wanted.name, relation, wanted.name);
    end if;
    if wanted.enabled is distinct from 'A' then
      execute format('alter table only %s enable always trigger %I', relation, 'ibex_' || wanted.name);
    end if;
  end loop;
  if relation = root and (select c.relkind = 'p' from pg_class c where c.oid = root)
     and current_setting('server_version_num')::int >= 150000
     and not exists (select from pg_trigger t
                      where t.tgrelid = root and t.tgname = '~ibex_move_' || root and t.tgenabled = 'A') then
    select format('(%s) is distinct from (%s)', string_agg(format('old.%I', k), ', '),
                  string_agg(format('new.%I', k), ', ')) into key_changes
      from ibex.captured c cross join unnest(c.columns) k where c.relid = root;
    execute format('create trigger %I before update on %s for each row when (%s) execute function ibex.%I()',
                   '~ibex_move_' || root, relation, key_changes, 'move_' || root);
    execute format('alter table %s enable always trigger %I', relation, '~ibex_move_' || root);
  end if;
end
$$;
CREATE FUNCTION ibex.armed_relations(root oid) RETURNS SETOF regclass
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select distinct t.tgrelid::regclass from pg_trigger t where t.tgname ~ ('^~?ibex_[a-z]+_' || root || '$')
$_$;
CREATE FUNCTION ibex.capture(root regclass) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  refusal text := ibex.refusal(root);
  chosen record;
begin
  if refusal is not null then
    return refusal;
  end if;
  if exists (select from ibex.captured c where c.relid = root) then
    if ibex.follow_shape(root) then
      return null;
    end if;
    perform ibex.uncapture(root);
  end if;
  select * into strict chosen from ibex.choose_key(root);
  insert into ibex.captured (relid, schema_name, table_name, mode, columns, types, attnums, generation)
    select root, n.nspname, t.relname, chosen.mode, chosen.columns, chosen.types, chosen.attnums, 1
      from pg_class t join pg_namespace n on n.oid = t.relnamespace where t.oid = root;
  perform ibex.add_generation(root);
  perform ibex.write_functions(root);
  return null;
end
$$;
CREATE FUNCTION ibex.choose_key(root regclass) RETURNS TABLE(mode text, columns text[], types text[], attnums smallint[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
CREATE FUNCTION ibex.delete_<parent>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<parent>_1 (k1, op) select o.id::pg_catalog.int8, 'D' from o; return null; end$$;
CREATE FUNCTION ibex.delete_<child>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<child>_1 (k1, op) select o.id::pg_catalog.int8, 'D' from o; return null; end$$;
CREATE FUNCTION ibex.delta_type(type oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  with recursive base as (
    select t.oid, t.typname, t.typtype, t.typbasetype, t.typcategory, t.typelem
      from pg_type t where t.oid = type
    union all
    select t.oid, t.typname, t.typtype, t.typbasetype, t.typcategory, t.typelem
      from base b join pg_type t on t.oid = b.typbasetype where b.typtype = 'd'
  )
  select case
           when b.typname in ('int2', 'int4', 'int8') and b.oid < 16384 then 'pg_catalog.int8'
           when b.oid < 16384 and b.typtype in ('b', 'r', 'm') and b.typname !~ '^_?reg'
             then format('pg_catalog.%I', b.typname)
           else 'pg_catalog.text'
         end
    from base b where b.typtype <> 'd'
$$;
CREATE FUNCTION ibex.disable(relation regclass, root oid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  ours name;
begin
  for ours in
    select t.tgname from pg_trigger t
     where t.tgrelid = relation and t.tgenabled <> 'D' and t.tgname ~ ('^ibex_[a-z]+_' || root || '$')
  loop
    execute format('alter table only %s disable trigger %I', relation, ours);
  end loop;
end
$_$;
CREATE FUNCTION ibex.disarm(relation regclass, root oid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  ours name;
begin
  for ours in
    select t.tgname from pg_trigger t
     where t.tgrelid = relation
       and (t.tgname ~ ('^ibex_[a-z]+_' || root || '$') or (relation = root and t.tgname = '~ibex_move_' || root))
  loop
    execute format('drop trigger %I on %s', ours, relation);
  end loop;
end
$_$;
CREATE FUNCTION ibex.finish_arming(root oid) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
CREATE FUNCTION ibex.follow_shape(root oid) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  known ibex.captured;
  chosen record;
begin
  select * into strict known from ibex.captured c where c.relid = root for update;
  select * into strict chosen from ibex.choose_key(root);
  if (known.mode, known.types, known.attnums) is distinct from (chosen.mode, chosen.types, chosen.attnums) then
    return false;
  end if;
  if known.columns is distinct from chosen.columns then
    update ibex.captured c set columns = chosen.columns where c.relid = root;
    perform ibex.write_functions(root);
  end if;
  update ibex.captured c set schema_name = n.nspname, table_name = t.relname
    from pg_class t join pg_namespace n on n.oid = t.relnamespace
   where c.relid = root and t.oid = root;
  return true;
end
$$;
CREATE FUNCTION ibex.forget(root oid, generation integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
  delta text := format('ibex.delta_%s_%s', root, generation);
  needed txid_snapshot[];
  wanted boolean;
begin
  begin
    execute format('lock table %s in access exclusive mode nowait', delta);
  exception when lock_not_available then
    return false;
  end;
  select array_agg(distinct coalesce(st.floor, s.position)::text)::txid_snapshot[] into needed
    from ibex.source_table st join ibex.source_sync s on s.name = st.sync where st.relid = root;
  execute format(
    'select exists (select from %s d, unnest($1) n(position) where not txid_visible_in_snapshot(d.xid, n.position))',
    delta) into wanted using needed;
  if wanted then
    return false;
  end if;
  execute format('truncate %s', delta);
  update ibex.captured c
     set forgotten = coalesce((select n.position from unnest(needed) n(position)
                                order by txid_snapshot_xmax(n.position), txid_snapshot_xmin(n.position) limit 1),
                              txid_current_snapshot())
   where c.relid = root;
  return true;
end
$_$;
CREATE FUNCTION ibex.insert_<parent>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<parent>_1 (k1, op) select n.id::pg_catalog.int8, 'I' from n; return null; end$$;
CREATE FUNCTION ibex.insert_<child>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<child>_1 (k1, op) select n.id::pg_catalog.int8, 'I' from n; return null; end$$;
CREATE FUNCTION ibex.members(root oid) RETURNS SETOF oid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select root
  union all
  select p.relid::oid
    from pg_class c cross join lateral pg_partition_tree(c.oid) p
   where c.oid = root and c.relkind = 'p' and p.relid <> c.oid
$$;
CREATE FUNCTION ibex.move_<parent>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<parent>_1 (k1, op) values (old.id::pg_catalog.int8, 'U'), (new.id::pg_catalog.int8, 'U'); return new; end$$;
CREATE FUNCTION ibex.move_<child>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<child>_1 (k1, op) values (old.id::pg_catalog.int8, 'U'), (new.id::pg_catalog.int8, 'U'); return new; end$$;
CREATE TABLE ibex.captured (
    relid oid NOT NULL,
    schema_name text NOT NULL,
    table_name text NOT NULL,
    mode text NOT NULL,
    columns text[] NOT NULL,
    types text[] NOT NULL,
    attnums smallint[] NOT NULL,
    generation integer NOT NULL,
    forgotten txid_snapshot,
    shape text,
    storage text,
    armour text,
    armed_at timestamp with time zone,
    CONSTRAINT captured_mode_check CHECK ((mode = ANY (ARRAY['key'::text, 'row'::text])))
);
CREATE FUNCTION ibex.noted_values(captured ibex.captured, alias text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select string_agg(format('%s.%I::%s', alias, c.name, c.type), ', ' order by c.ord)
    from unnest(captured.columns, captured.types) with ordinality c(name, type, ord)
$$;
CREATE FUNCTION ibex.refusal(root regclass) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  select case
    when c.relkind not in ('r', 'p') then 'it is not an ordinary or partitioned table'
    when c.relpersistence = 't' then 'it is a temporary table'
    when c.relispartition then 'it is a partition; name its partitioned table instead'
    when c.relkind = 'r' and exists (select from pg_inherits i where root in (i.inhparent, i.inhrelid))
      then 'it takes part in table inheritance, which is not carried yet'
    when exists (select from ibex.members(root) m join pg_class l on l.oid = m where l.relkind = 'f')
      then 'one of its partitions is a foreign table, which is not carried yet'
    when exists (select from pg_subscription_rel s join ibex.members(root) m on m = s.srrelid)
      then 'a subscription writes it, whose changes fire no statement trigger'
    when not exists (select from pg_attribute a where a.attrelid = root and a.attnum > 0
                        and not a.attisdropped and a.attgenerated = '')
      then 'it has no column of its own'
    when c.relkind = 'p' and (select k.mode from ibex.choose_key(root) k) = 'row'
      then 'it is partitioned and has no primary key or unique NOT NULL index, which is not carried yet'
  end
  from pg_class c where c.oid = root
$$;
CREATE FUNCTION ibex.rotate(root oid) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  captured ibex.captured;
  candidate integer;
begin
  select * into strict captured from ibex.captured c where c.relid = root for update;
  select g.n into candidate from ibex.generation g
   where g.relid = root and g.n <> captured.generation
     and pg_relation_size(format('ibex.delta_%s_%s', root, g.n)::regclass) = 0
   order by g.n limit 1;
  if candidate is null then
    candidate := ibex.add_generation(root);
  end if;
  update ibex.captured c set generation = candidate where c.relid = root;
  perform ibex.write_functions(root);
  return candidate;
end
$$;
CREATE FUNCTION ibex.signatures(roots oid[]) RETURNS TABLE(relid oid, shape text, storage text, armour text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  with root as (
    select c.oid, c.relname, c.relnamespace, c.relkind from pg_class c where c.oid = any (roots)
  ), member as (
    select r.oid as root, r.oid from root r
    union all
    select r.oid, p.relid from root r cross join lateral pg_partition_tree(r.oid) p
     where r.relkind = 'p' and p.relid <> r.oid
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
  ), files as (
    select m.root, string_agg(c.oid || ':' || c.relfilenode, ' ' order by c.oid) as text
      from member m join pg_class c on c.oid = m.oid group by 1
  ), triggers as (
    select m.root,
           string_agg(concat_ws(':', t.tgrelid, t.tgname, t.tgenabled, t.xmin), ' ' order by t.tgrelid, t.tgname) as text
      from member m join pg_trigger t on t.tgrelid = m.oid
     where t.tgname ~ ('^~?ibex_[a-z]+_' || m.root || '$') group by 1
  )
  select r.oid, md5(concat_ws(' ', r.relnamespace, r.relname, c.text, k.text)), f.text, t.text
    from root r left join columns c on c.root = r.oid left join keys k on k.root = r.oid
    left join files f on f.root = r.oid left join triggers t on t.root = r.oid
$_$;
CREATE FUNCTION ibex.truncate_<parent>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<parent>_1 (op, relation) values ('T', tg_relid); return null; end$$;
CREATE FUNCTION ibex.truncate_<child>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<child>_1 (op, relation) values ('T', tg_relid); return null; end$$;
CREATE FUNCTION ibex.unarmed(root oid) RETURNS SETOF regclass
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  select m.m::regclass
    from ibex.members(root) m(m) join pg_class c on c.oid = m.m
   where (select count(*) from pg_trigger t
           where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname ~ ('^ibex_[a-z]+_' || root || '$')) < 4
      or (m.m = root and c.relkind = 'p' and current_setting('server_version_num')::int >= 150000
          and not exists (select from pg_trigger t
                           where t.tgrelid = m.m and t.tgenabled = 'A' and t.tgname = '~ibex_move_' || root))
$_$;
CREATE FUNCTION ibex.uncapture(root oid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  ours text;
begin
  if exists (select from ibex.armed_relations(root)) then
    raise exception 'table % is still armed', root using errcode = 'object_in_use';
  end if;
  for ours in select g.n from ibex.generation g where g.relid = root loop
    execute format('drop table if exists ibex.%I', format('delta_%s_%s', root, ours));
  end loop;
  foreach ours in array array['insert', 'update', 'delete', 'truncate', 'move'] loop
    execute format('drop function if exists ibex.%I()', format('%s_%s', ours, root));
  end loop;
  delete from ibex.captured c where c.relid = root;
end
$$;
CREATE FUNCTION ibex.update_<parent>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<parent>_1 (k1, op) select n.id::pg_catalog.int8, 'U' from n union all select o.id::pg_catalog.int8, 'U' from o where not exists (select from n where (n.id::pg_catalog.int8) operator(pg_catalog.=) (o.id::pg_catalog.int8)); return null; end$$;
CREATE FUNCTION ibex.update_<child>() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$begin insert into ibex.delta_<child>_1 (k1, op) select n.id::pg_catalog.int8, 'U' from n union all select o.id::pg_catalog.int8, 'U' from o where not exists (select from n where (n.id::pg_catalog.int8) operator(pg_catalog.=) (o.id::pg_catalog.int8)); return null; end$$;
CREATE FUNCTION ibex.write_function(name text, statement text, result text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
  execute format('create or replace function ibex.%I() returns trigger language plpgsql security definer as %L',
                 name, format('begin %s; return %s; end', statement, result));
end
$$;
CREATE FUNCTION ibex.write_functions(root oid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
  captured ibex.captured;
  delta text;
  noted text;
begin
  select * into strict captured from ibex.captured c where c.relid = root;
  delta := format('ibex.delta_%s_%s', root, captured.generation);
  select string_agg(format('k%s', c.ord), ', ' order by c.ord) into noted
    from generate_subscripts(captured.columns, 1) c(ord);
  perform ibex.write_function(format('insert_%s', root), format(
    'insert into %s (%s, op) select %s, ''I'' from n',
    delta, noted, ibex.noted_values(captured, 'n')), 'null');
  perform ibex.write_function(format('delete_%s', root), format(
    'insert into %s (%s, op) select %s, ''D'' from o',
    delta, noted, ibex.noted_values(captured, 'o')), 'null');
  perform ibex.write_function(format('truncate_%s', root), format(
    'insert into %s (op, relation) values (''T'', tg_relid)', delta), 'null');
  if captured.mode = 'row' then
    perform ibex.write_function(format('update_%s', root), format(
      'insert into %s (%s, op) select %s, ''I'' from n union all select %s, ''D'' from o',
      delta, noted, ibex.noted_values(captured, 'n'), ibex.noted_values(captured, 'o')), 'null');
  else
    perform ibex.write_function(format('update_%s', root), format(
      'insert into %s (%s, op) select %s, ''U'' from n '
      'union all select %s, ''U'' from o where not exists (select from n where (%s) operator(pg_catalog.=) (%s))',
      delta, noted, ibex.noted_values(captured, 'n'), ibex.noted_values(captured, 'o'),
      ibex.noted_values(captured, 'n'), ibex.noted_values(captured, 'o')), 'null');
    perform ibex.write_function(format('move_%s', root), format(
      'insert into %s (%s, op) values (%s, ''U''), (%s, ''U'')',
      delta, noted, ibex.noted_values(captured, 'old'), ibex.noted_values(captured, 'new')), 'new');
  end if;
end
$$;
CREATE TABLE ibex.delta_<parent>_1 (
    k1 bigint,
    xid bigint DEFAULT txid_current() NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    op "char" NOT NULL,
    relation oid,
    origin text DEFAULT NULLIF(current_setting('ibex.origin'::text, true), ''::text)
)
WITH (autovacuum_enabled=off, toast.autovacuum_enabled=off);
CREATE TABLE ibex.delta_<child>_1 (
    k1 bigint,
    xid bigint DEFAULT txid_current() NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    op "char" NOT NULL,
    relation oid,
    origin text DEFAULT NULLIF(current_setting('ibex.origin'::text, true), ''::text)
)
WITH (autovacuum_enabled=off, toast.autovacuum_enabled=off);
CREATE TABLE ibex.generation (
    relid oid NOT NULL,
    n integer NOT NULL
);
CREATE TABLE ibex.identity (
    only_row boolean DEFAULT true NOT NULL,
    system text NOT NULL,
    database text NOT NULL,
    timeline integer NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT identity_only_row_check CHECK (only_row)
);
CREATE TABLE ibex.migration (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE ibex.source_sync (
    name text NOT NULL,
    "position" txid_snapshot NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE ibex.source_table (
    sync text NOT NULL,
    relid oid NOT NULL,
    floor txid_snapshot
);
INSERT INTO ibex.captured VALUES (<child>, 'public', 'child', 'key', '{id}', '{pg_catalog.int8}', '{1}', 1, NULL, '931eefa2ef32f733f3e297ac21662985', '<child>:<child>', '<child>:ibex_delete_<child>:A:737 <child>:ibex_insert_<child>:A:737 <child>:ibex_truncate_<child>:A:737 <child>:ibex_update_<child>:A:737', '2026-11-21 03:06:52.882623+00');
INSERT INTO ibex.captured VALUES (<parent>, 'public', 'parent', 'key', '{id}', '{pg_catalog.int8}', '{1}', 1, NULL, 'ac4e25dda1ee421575a886bbb3004f81', '<parent>:<parent>', '<parent>:ibex_delete_<parent>:A:739 <parent>:ibex_insert_<parent>:A:739 <parent>:ibex_truncate_<parent>:A:739 <parent>:ibex_update_<parent>:A:739', '2026-11-21 03:06:52.953411+00');
INSERT INTO ibex.delta_<parent>_1 VALUES (11, 743, '2026-11-21 03:06:58.218797+00', 'I', NULL, NULL);
INSERT INTO ibex.generation VALUES (<child>, 1);
INSERT INTO ibex.generation VALUES (<parent>, 1);
INSERT INTO ibex.identity VALUES (true, '7710455848870844916', '16385', 1, '2026-11-21 03:06:52.027762+00');
INSERT INTO ibex.migration VALUES ('source/tables/0001_capture.sql', 'cb32154b892ed4ceb04781e065d75284245c014b5363ed4bbee6177bc5129eea', '2026-11-21 03:06:51.706465+00');
INSERT INTO ibex.migration VALUES ('source/functions/add_generation.sql', '0abeb7940743ea12c0a65803c7b91647dede1d914e96e1748a03d922f009cc39', '2026-11-21 03:06:51.742914+00');
INSERT INTO ibex.migration VALUES ('source/functions/arm.sql', '0ca9377c9e5364dbe4e633a41035efdbe7718ce511f7b611099ced7bd1be770a', '2026-11-21 03:06:51.760582+00');
INSERT INTO ibex.migration VALUES ('source/functions/capture.sql', 'd44dda7b102a57eba9e3762da68367e9cd5ff8312e8e402ce9975305062efa76', '2026-11-21 03:06:51.775143+00');
INSERT INTO ibex.migration VALUES ('source/functions/choose_key.sql', 'd677902546b04d835ccd0dc897b627adff02cd5aadb51ba108355d0c106cd4c9', '2026-11-21 03:06:51.796624+00');
INSERT INTO ibex.migration VALUES ('source/functions/delta_type.sql', 'ed1691a68085f757b9e1def53ac18ba7c6cbc996e991b2cd74550543ed041b59', '2026-11-21 03:06:51.803627+00');
INSERT INTO ibex.migration VALUES ('source/functions/disarm.sql', 'a347ea8f180c63cecc529d9abf7241f122eafc0201fac057cb47258361c12da8', '2026-11-21 03:06:51.813794+00');
INSERT INTO ibex.migration VALUES ('source/functions/finish_arming.sql', '5dc22783b219b1ad6cd2dd05c0b78f4db990e10da06714b9f71a7ba171344d1e', '2026-11-21 03:06:51.825517+00');
INSERT INTO ibex.migration VALUES ('source/functions/forget.sql', '964a38798e0516d3614424dabdc81a87445fd681ecf3b5d753f983668f6322be', '2026-11-21 03:06:51.834176+00');
INSERT INTO ibex.migration VALUES ('source/functions/members.sql', '8b2b360dbaa21ed27bc7973727e93fb2689c731af077fd529ade08c7c369ad36', '2026-11-21 03:06:51.84195+00');
INSERT INTO ibex.migration VALUES ('source/functions/rotate.sql', '9a8b44ef8f04d96b2811aa96ec4cbe2451bb39e17f1b221276ff07051b86ddc6', '2026-11-21 03:06:51.851083+00');
INSERT INTO ibex.migration VALUES ('source/functions/signature.sql', '753922339cd4e69004e38dab1c967a9f0974f8ef70bc120839cec20b499a1ca7', '2026-11-21 03:06:51.865205+00');
INSERT INTO ibex.migration VALUES ('source/functions/write_functions.sql', 'b6a4d4e28b8b3b599d56388f4af1af39ccf05b6c3b59d2838b96dbb9a4ebc469', '2026-11-21 03:06:51.872868+00');
INSERT INTO ibex.source_sync VALUES ('main', '732:732:', '2026-11-21 03:06:52.037248+00');
INSERT INTO ibex.source_table VALUES ('main', <child>, '741:741:');
INSERT INTO ibex.source_table VALUES ('main', <parent>, '742:742:');
ALTER TABLE ONLY ibex.captured
    ADD CONSTRAINT captured_pkey PRIMARY KEY (relid);
ALTER TABLE ONLY ibex.generation
    ADD CONSTRAINT generation_pkey PRIMARY KEY (relid, n);
ALTER TABLE ONLY ibex.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY ibex.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);
ALTER TABLE ONLY ibex.source_sync
    ADD CONSTRAINT source_sync_pkey PRIMARY KEY (name);
ALTER TABLE ONLY ibex.source_table
    ADD CONSTRAINT source_table_pkey PRIMARY KEY (sync, relid);
ALTER TABLE ONLY ibex.generation
    ADD CONSTRAINT generation_relid_fkey FOREIGN KEY (relid) REFERENCES ibex.captured(relid) ON DELETE CASCADE;
ALTER TABLE ONLY ibex.source_table
    ADD CONSTRAINT source_table_relid_fkey FOREIGN KEY (relid) REFERENCES ibex.captured(relid) ON DELETE CASCADE;
ALTER TABLE ONLY ibex.source_table
    ADD CONSTRAINT source_table_sync_fkey FOREIGN KEY (sync) REFERENCES ibex.source_sync(name) ON DELETE CASCADE;
CREATE TRIGGER ibex_delete_<parent> AFTER DELETE ON public.parent REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION ibex.delete_<parent>();
ALTER TABLE public.parent ENABLE ALWAYS TRIGGER ibex_delete_<parent>;
CREATE TRIGGER ibex_delete_<child> AFTER DELETE ON public.child REFERENCING OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION ibex.delete_<child>();
ALTER TABLE public.child ENABLE ALWAYS TRIGGER ibex_delete_<child>;
CREATE TRIGGER ibex_insert_<parent> AFTER INSERT ON public.parent REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION ibex.insert_<parent>();
ALTER TABLE public.parent ENABLE ALWAYS TRIGGER ibex_insert_<parent>;
CREATE TRIGGER ibex_insert_<child> AFTER INSERT ON public.child REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION ibex.insert_<child>();
ALTER TABLE public.child ENABLE ALWAYS TRIGGER ibex_insert_<child>;
CREATE TRIGGER ibex_truncate_<parent> AFTER TRUNCATE ON public.parent FOR EACH STATEMENT EXECUTE FUNCTION ibex.truncate_<parent>();
ALTER TABLE public.parent ENABLE ALWAYS TRIGGER ibex_truncate_<parent>;
CREATE TRIGGER ibex_truncate_<child> AFTER TRUNCATE ON public.child FOR EACH STATEMENT EXECUTE FUNCTION ibex.truncate_<child>();
ALTER TABLE public.child ENABLE ALWAYS TRIGGER ibex_truncate_<child>;
CREATE TRIGGER ibex_update_<parent> AFTER UPDATE ON public.parent REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION ibex.update_<parent>();
ALTER TABLE public.parent ENABLE ALWAYS TRIGGER ibex_update_<parent>;
CREATE TRIGGER ibex_update_<child> AFTER UPDATE ON public.child REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION ibex.update_<child>();
ALTER TABLE public.child ENABLE ALWAYS TRIGGER ibex_update_<child>;
