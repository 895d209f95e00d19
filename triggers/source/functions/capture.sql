-- Function: ibex.capture_all(roots oid[], sync text) returns table (relid oid, refusal text)
-- Purpose:  prepares the capture of tables and takes them into a sync: a row of each in ibex.captured and in
--           ibex.source_table, the first delta table, the trigger functions. The triggers themselves come with ibex.arm,
--           one relation a transaction. Repeatable. A table whose key is another one now is prepared anew once it is
--           disarmed; until then it stays as it is, and the daemon's look at the catalogs disarms it and has it copied
--           again. A muted one stays so until it is about to be armed: see ibex.mend.
-- Returns:  the tables that cannot be captured exactly, and why.
-- Writes:   ibex.captured, ibex.generation, ibex.source_table. Locks: none on the application's tables, therefore many at
--           once; each of the delta tables made takes a lock until the transaction ends.
-- Why:      in the order of their oids, so that two that take the same tables wait for each other and never in a circle.
create or replace function ibex.capture_all(roots oid[], sync text) returns table (relid oid, refusal text)
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  root oid;
begin
  for root in select r from unnest(roots) r order by r loop
    refusal := coalesce(ibex.guard_refusal(root, capture_all.sync), ibex.capture(root));
    if refusal is not null then
      relid := root;
      return next;
    else
      insert into ibex.source_table (sync, relid, floor)
        values (capture_all.sync, root, txid_current_snapshot()) on conflict do nothing;
    end if;
  end loop;
  perform ibex.heed_echoes(roots);
end
$$;

-- Function: ibex.guard_refusal(root oid, wanted text) returns text
-- Purpose:  why a sync cannot take in a table that the guard of another one notes, or a guard one that another sync carries;
--           null when it can. What a guard notes is deleted once it is settled, and never acknowledged: neither would do for
--           somebody who carries it on.
create or replace function ibex.guard_refusal(root oid, wanted text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('%s notes its changes, and a guard stands alone', min(t.sync))
    from ibex.source_table t
   where t.relid = root and t.sync <> wanted and (t.sync like '%.guard' or wanted like '%.guard') having count(*) > 0
$$;

-- Function: ibex.heed_echoes(roots oid[]) returns void
-- Purpose:  after tables got another reader: writes their trigger functions anew where one of the readers has an echo, see
--           ibex.echo. What one reader leaves out another may have to carry.
create or replace function ibex.heed_echoes(roots oid[]) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  select ibex.write_functions(r.relid)
    from (select t.relid from ibex.source_table t join ibex.source_sync s on s.name = t.sync
           where t.relid = any (roots) group by t.relid having count(s.echo) > 0 order by t.relid) r
$$;

-- Function: ibex.capture(root regclass) returns text
-- Purpose:  prepares the capture of one table, see ibex.capture_all; null, or why it cannot be captured exactly.
create or replace function ibex.capture(root regclass) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  refusal text := ibex.refusal(root);
  chosen record;
begin
  if refusal is not null then
    return refusal;
  end if;
  if exists (select from ibex.captured c where c.relid = root and c.muted_at is not null) then
    return null;
  end if;
  if exists (select from ibex.captured c where c.relid = root) then
    if ibex.follow_shape(root) or exists (select from ibex.armed_relations(root)) then
      return null;
    end if;
    perform ibex.uncapture(root);
  end if;
  select * into strict chosen from ibex.choose_key(root);
  insert into ibex.captured (relid, schema_name, table_name, mode, level, columns, types, attnums, generation)
    select root, n.nspname, t.relname, chosen.mode, ibex.choose_level(root, chosen.mode), chosen.columns, chosen.types,
           chosen.attnums, 1
      from pg_class t join pg_namespace n on n.oid = t.relnamespace where t.oid = root
    on conflict do nothing;
  -- Another sync was faster, which has ended its transaction by now.
  if not found then
    return ibex.capture(root);
  end if;
  perform ibex.add_generation(root);
  perform ibex.write_functions(root);
  return null;
end
$$;

-- Function: ibex.refusal(root regclass) returns text
-- Purpose:  why a table cannot be carried exactly by this version; null when it can.
create or replace function ibex.refusal(root regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case
    when c.relkind not in ('r', 'p') then 'it is not an ordinary or partitioned table'
    when c.relpersistence = 't' then 'it is a temporary table'
    when c.relispartition then 'it is a partition; name its partitioned table instead'
    when c.relkind = 'p' and exists (select from ibex.members(root) m join pg_class l on l.oid = m where l.relkind = 'f')
      then (select format('its partition %s is a foreign table, whose rows can change unseen', min(l.oid::regclass::text))
              from ibex.members(root) m join pg_class l on l.oid = m where l.relkind = 'f')
    when not exists (select from pg_attribute a where a.attrelid = root and a.attnum > 0
                        and not a.attisdropped and a.attgenerated = '')
      then 'it has no column of its own'
    when c.relnatts > 300 and ibex.too_wide(root)
      then 'it has no key, and so many columns that its rows do not fit into a delta table'
  end
  from pg_class c where c.oid = root
$$;

-- Function: ibex.too_wide(root oid) returns boolean
-- Purpose:  whether a row that is noted whole could exceed the size of a page, so that the application's own
--           statement would fail: integers and enums are noted wider than they are stored.
create or replace function ibex.too_wide(root oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select count(*) > 1590
         or (bool_or(a.attlen > 0 and a.attlen <> d.typlen)
             and sum(case when d.typlen > 0 then greatest(8, d.typlen) else 24 end) > 8000)
    from ibex.choose_key(root) k
    cross join unnest(k.types, k.attnums) c(type, attnum)
    join pg_attribute a on a.attrelid = root and a.attnum = c.attnum
    join pg_type d on d.oid = c.type::regtype
   where k.mode = 'row'
$$;

-- Function: ibex.choose_level(root regclass, mode text) returns text
-- Purpose:  whether the changes of a table are noted by statement triggers, or by row triggers because the
--           statement triggers would see
--           - too much: the transition tables of an inheritance parent have the rows of its children in them;
--           - too little: a child's triggers do not fire for a statement on its parent, and what a subscription
--             writes fires none at all;
--           - too early: a BEFORE trigger of the application that sorts after the one that sees what MERGE moves may
--             change the key once more;
--           - and cannot be balanced: MERGE moves rows between partitions without their seeing it. A key may
--             be noted twice, a whole row may not; and the trigger that sees it for keys comes before generated
--             columns have their values.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.choose_level(root regclass, mode text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return (
  select case when (c.relkind = 'p' and mode = 'row')
                or (c.relkind = 'p' and exists (
                      select from ibex.choose_key(root) k join pg_attribute a on a.attnum = any (k.attnums)
                       where a.attrelid = root and a.attgenerated <> ''))
                or (c.relkind = 'r' and exists (select from pg_inherits i where i.inhrelid = root or i.inhparent = root))
                or exists (select from pg_subscription_rel s join ibex.members(root) m on m = s.srrelid)
                or (c.relkind = 'p' and exists (select from pg_trigger t join ibex.members(root) m on m = t.tgrelid
                                                 where ibex.sorts_late(t)))
              then 'row' else 'statement' end
    from pg_class c where c.oid = root);
end
$$;

-- Function: ibex.sorts_late(trigger pg_trigger) returns boolean
-- Purpose:  whether it is a BEFORE UPDATE row trigger of somebody else that fires after ~ibex_move_.
create or replace function ibex.sorts_late(trigger pg_catalog.pg_trigger) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select trigger.tgname > '~ibex_move_' and (trigger.tgtype & 19) = 19 and trigger.tgname !~ '^~ibex_move_[0-9]+$'
$$;

-- Function: ibex.follow_shape(root oid) returns boolean
-- Purpose:  after DDL: true when the table still has the key that its delta tables note, and its triggers see
--           what they have to see. Renamed columns are followed at once, by new trigger functions: until then they
--           note that something changed, and not what. A name that has gone over to another column is not followed:
--           it may have been noted for the key.
-- Writes:   ibex.captured, the trigger functions, who may read the deltas. Locks: none on the application's table.
create or replace function ibex.follow_shape(root oid) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  known ibex.captured;
  chosen record;
begin
  select * into strict known from ibex.captured c where c.relid = root for update;
  select * into strict chosen from ibex.choose_key(root);
  if (known.mode, known.types, known.attnums) is distinct from (chosen.mode, chosen.types, chosen.attnums)
     or (known.level = 'statement' and ibex.choose_level(root, known.mode) = 'row')
     or exists (select from unnest(known.columns, known.attnums) k(name, attnum)
                  join pg_attribute a on a.attrelid = root and a.attname = k.name and a.attnum <> k.attnum) then
    return false;
  end if;
  if known.columns is distinct from chosen.columns then
    update ibex.captured c set columns = chosen.columns where c.relid = root;
    perform ibex.write_functions(root);
  end if;
  update ibex.captured c set schema_name = n.nspname, table_name = t.relname
    from pg_class t join pg_namespace n on n.oid = t.relnamespace
   where c.relid = root and t.oid = root and (c.schema_name, c.table_name) is distinct from (n.nspname::text, t.relname::text);
  perform ibex.share(root);
  perform ibex.admit_owners(root);
  return true;
end
$$;

-- Function: ibex.mend(root oid) returns boolean
-- Purpose:  makes good for what somebody dropped of ours: delta tables, trigger functions. True when the table can be
--           armed then; false when its key is another one now, or it is muted: first it is to be disarmed and
--           captured anew.
-- Writes:   ibex.generation, ibex.captured, delta tables, the trigger functions. For a table that is copied anyway:
--           the deltas that were dropped are lost.
create or replace function ibex.mend(root oid) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  fresh integer;
begin
  if exists (select from ibex.captured c where c.relid = root and c.muted_at is not null)
     or not ibex.follow_shape(root) then
    return false;
  end if;
  if exists (select from ibex.lost_deltas(root)) then
    fresh := ibex.add_generation(root);
    update ibex.captured c set generation = fresh where c.relid = root;
    delete from ibex.generation g where g.relid = root and g.n in (select ibex.lost_deltas(root));
    perform ibex.write_functions(root);
  elsif exists (select from unnest(array['insert', 'update', 'delete', 'truncate']
                                         || case when ibex.wants_move(root) then array['move'] else '{}' end) f
                 where to_regproc(format('ibex.%I', f || '_' || root)) is null) then
    perform ibex.write_functions(root);
  end if;
  return true;
end
$$;

-- Function: ibex.lost_deltas(root oid) returns setof integer
-- Purpose:  the generations of a table whose delta table is gone.
create or replace function ibex.lost_deltas(root oid) returns setof integer
language sql stable set search_path = pg_catalog, pg_temp as $$
  select g.n from ibex.generation g
   where g.relid = root and to_regclass(format('ibex.delta_%s_%s', g.relid, g.n)) is null
$$;
