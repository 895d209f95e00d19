-- Function: ibex.arm(relation regclass, root oid) returns void
-- Purpose:  puts the capture triggers of a table on one relation: the table itself or one of its partitions.
--           Repeatable: what is there and enabled stays untouched.
-- Locks:    SHARE ROW EXCLUSIVE on the relation, waited for at most `lock_timeout`, which the caller sets well
--           below `deadlock_timeout`: a longer wait makes the application the victim of a deadlock, and
--           everybody else queue behind us. For the row trigger of a partitioned table also on every partition.
-- Why:      ENABLE ALWAYS, so that session_replication_role = replica does not hide writes. Names carry the
--           root's oid, so that ATTACH PARTITION meets no trigger of the same name. UPDATE declares both
--           transition tables always: with only one, PostgreSQL 12 crashes when a row changes its partition.
create or replace function ibex.arm(relation regclass, root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  wanted record;
  enable text[] := '{}';
  moves text;
begin
  execute format('lock table only %s in share row exclusive mode', relation);
  for wanted in
    select w.name || '_' || root as name, w.event,
           (select t.tgenabled from pg_trigger t
             where t.tgrelid = relation and t.tgname = 'ibex_' || w.name || '_' || root) as enabled
      from ibex.wanted_triggers(relation, root) w
  loop
    if wanted.enabled is null then
      execute format('create trigger %I after ' || wanted.event || ' execute function ibex.%I()',
                     'ibex_' || wanted.name, relation, wanted.name);
    end if;
    if wanted.enabled is distinct from 'A' then
      enable := enable || format('enable always trigger %I', 'ibex_' || wanted.name);
    end if;
  end loop;
  if enable <> '{}' then
    execute format('alter table only %s %s', relation, array_to_string(enable, ', '));
  end if;

  if relation = root and ibex.wants_move(root)
     and not ibex.sees_moves(root) then
    perform ibex.lock_members(root, 'share row exclusive');
    select format('row(%s)::record operator(pg_catalog.*<>) row(%s)::record',
                  string_agg(format('old.%I', k), ', '), string_agg(format('new.%I', k), ', ')) into moves
      from ibex.partition_columns(root) k;
    execute format('create or replace trigger %I before update on %s for each row when (%s) execute function ibex.%I()',
                   '~ibex_move_' || root, relation, moves, 'move_' || root);
    execute format('alter table %s enable always trigger %I', relation, '~ibex_move_' || root);
  end if;
end
$$;

-- Function: ibex.lock_members(root oid, mode text) returns void
-- Purpose:  locks a partitioned table with all its partitions, as a trigger that is cloned to them does.
-- Locks:    these, waited for at most `lock_timeout` all together, the locks before included: whoever waits for the
--           first of them waits as long as we do for all.
create or replace function ibex.lock_members(root oid, mode text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  patience int8 := (select s.setting::int8 from pg_settings s where s.name = 'lock_timeout');
  member regclass;
begin
  for member in select root union all select m from ibex.members(root) m where m <> root loop
    perform set_config('lock_timeout', greatest(1,
      patience - (extract(epoch from clock_timestamp() - statement_timestamp()) * 1000)::int8)::text, true);
    execute format('lock table only %s in %s mode', member, mode);
  end loop;
end
$$;

-- Procedure: ibex.arm_free(roots oid[])
-- Purpose:  arms those of the tables that are not partitioned and that nobody is writing to just now, each in a
--           transaction of its own. Whatever stands against a table leaves it as it is: whoever arms it alone, and waits,
--           meets the same and says so.
-- Locks:    SHARE ROW EXCLUSIVE on one table at a time, NOWAIT: nobody has to queue behind us.
-- Why:      of thousands of tables most are idle, and a round trip a step would be most of the time. These commits are not
--           waited for: the one that records that tables are armed comes after them, and takes them to disk with it. A
--           crash before that leaves some tables to be armed once more.
-- No SET clause: PostgreSQL allows no COMMIT in a procedure that has one.
create or replace procedure ibex.arm_free(roots oid[])
language plpgsql as $$
declare
  root oid;
  relation regclass;
begin
  foreach root in array array(select c.oid from pg_catalog.pg_class c where c.oid = any (roots) and c.relkind = 'r') loop
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    begin
      if ibex.mend(root) then
        for relation in select u from ibex.unarmed(root) u loop
          execute pg_catalog.format('lock table only %s in share row exclusive mode nowait', relation);
          perform ibex.arm(relation, root);
        end loop;
      end if;
    exception when others then
      null;
    end;
    commit;
  end loop;
end
$$;

-- Function: ibex.wanted_triggers(relation oid, root oid) returns table (name text, event text)
-- Purpose:  the triggers that a relation of a captured table carries. Row triggers stand on what holds rows, one
--           by one: on a partitioned table they would be cloned, and PostgreSQL 12 lets nobody enable a clone.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.wanted_triggers(relation oid, root oid) returns table (name text, event text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  select w.name, w.event
    from ibex.captured c
    join pg_class r on r.oid = relation
    cross join (values
      ('statement', 'insert', 'insert on %s referencing new table as n for each statement'),
      ('statement', 'update', 'update on %s referencing old table as o new table as n for each statement'),
      ('statement', 'delete', 'delete on %s referencing old table as o for each statement'),
      ('row', 'insert', 'insert on %s for each row'),
      ('row', 'update', 'update on %s for each row'),
      ('row', 'delete', 'delete on %s for each row'),
      (null, 'truncate', 'truncate on %s for each statement')) w(level, name, event)
   where c.relid = root
     and (w.level is null or (w.level = c.level and (w.level = 'statement' or r.relkind = 'r')));
end
$$;

-- Function: ibex.wants_move(root oid) returns boolean
-- Purpose:  whether the table carries the row trigger that sees what MERGE moves between partitions.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.wants_move(root oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return (
  select r.relkind = 'p' and c.level = 'statement' and current_setting('server_version_num')::int >= 150000
    from ibex.captured c join pg_class r on r.oid = c.relid where c.relid = root);
end
$$;

-- Function: ibex.sees_moves(root oid) returns boolean
-- Purpose:  whether the table has its row trigger for moved rows, and that one looks at every column that can move
--           one: a partition that came later may itself be partitioned, by others.
create or replace function ibex.sees_moves(root oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from pg_trigger t
     where t.tgrelid = root and t.tgname = '~ibex_move_' || root and t.tgenabled = 'A'
       and not exists (
             select from ibex.partition_columns(root) k
              where not exists (select from pg_depend d
                                  join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                                 where d.classid = 'pg_trigger'::regclass and d.objid = t.oid
                                   and d.refclassid = 'pg_class'::regclass and d.refobjid = root and a.attname = k)))
$$;

-- Function: ibex.partition_columns(root oid) returns setof name
-- Purpose:  the columns that decide in which partition a row lies, at any level. Only when one of them changes can
--           a row move, and that one changes is seen by its bytes.
-- Reads:    also pg_depend, where a column in an expression of the partition key depends on its table.
-- Why:      a trigger that names a column keeps the application from altering its type or dropping it; of these
--           columns PostgreSQL allows neither anyway.
create or replace function ibex.partition_columns(root oid) returns setof name
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct a.attname
    from ibex.members(root) m
    join pg_partitioned_table p on p.partrelid = m
    join pg_attribute a on a.attrelid = m and a.attnum > 0
   where a.attnum = any (p.partattrs::int2[])
      or exists (select from pg_depend d
                  where d.classid = 'pg_class'::regclass and d.objid = m and d.objsubid = a.attnum and d.deptype = 'i'
                    and d.refclassid = 'pg_class'::regclass and d.refobjid = m and d.refobjsubid = 0)
$$;
