-- Function: ibex.disable(relation regclass, root oid) returns void
-- Purpose:  first half of disarming one relation: its triggers stop firing.
-- Locks:    SHARE ROW EXCLUSIVE on the relation, at most `lock_timeout`; dropping them at once would need
--           ACCESS EXCLUSIVE, which also waits for readers and makes them wait.
create or replace function ibex.disable(relation regclass, root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
$$;

-- Function: ibex.disarm(relation regclass, root oid) returns void
-- Purpose:  second half: drops the triggers from one relation.
-- Locks:    ACCESS EXCLUSIVE on the relation, at most `lock_timeout`; for the row trigger of a partitioned table also on
--           every partition, within the same time.
-- Why:      the row trigger of a partitioned root is dropped with its clones, from the root only.
create or replace function ibex.disarm(relation regclass, root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  ours name;
begin
  if exists (select from pg_trigger t where t.tgrelid = relation and relation = root and t.tgname = '~ibex_move_' || root) then
    perform ibex.lock_members(root, 'access exclusive');
  end if;
  for ours in
    select t.tgname from pg_trigger t
     where t.tgrelid = relation
       and (t.tgname ~ ('^ibex_[a-z]+_' || root || '$') or (relation = root and t.tgname = '~ibex_move_' || root))
  loop
    execute format('drop trigger %I on %s', ours, relation);
  end loop;
end
$$;

-- Function: ibex.armed_relations(root oid) returns setof regclass
-- Purpose:  every relation that still carries a trigger of ours for this table, detached partitions included.
-- Why:      found by what depends on the trigger functions, of which there is an index; of triggers by name there is none.
create or replace function ibex.armed_relations(root oid) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct t.tgrelid::regclass
    from pg_depend d join pg_trigger t on t.oid = d.objid
   where d.classid = 'pg_trigger'::regclass and d.refclassid = 'pg_proc'::regclass
     and d.refobjid = any (array(select to_regproc(format('ibex.%I', f || '_' || root))::oid
                                   from unnest(array['insert', 'update', 'delete', 'truncate', 'move']) f))
$$;

-- Procedure: ibex.disarm_free(roots oid[])
-- Purpose:  disarms those of the tables that are not partitioned and that nobody uses just now, and drops what captured them: see
--           ibex.disarm and ibex.uncapture. Each step in a transaction of its own. Whatever stands against a table leaves
--           it as it is: whoever disarms it alone, and waits, meets the same and says so.
-- Locks:    ACCESS EXCLUSIVE on one table at a time, NOWAIT.
-- Why:      these commits are not waited for: the one that takes the tables out of the sync comes after them.
-- No SET clause: PostgreSQL allows no COMMIT in a procedure that has one.
create or replace procedure ibex.disarm_free(roots oid[])
language plpgsql as $$
declare
  root oid;
  relation regclass;
  free boolean;
begin
  foreach root in array array(select c.oid from pg_catalog.pg_class c where c.oid = any (roots) and c.relkind = 'r') loop
    free := true;
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    begin
      for relation in select a from ibex.armed_relations(root) a loop
        execute pg_catalog.format('lock table only %s in access exclusive mode nowait', relation);
        perform ibex.disarm(relation, root);
      end loop;
    exception when others then
      free := false;
    end;
    commit;
    if free then
      perform pg_catalog.set_config('synchronous_commit', 'off', true);
      perform ibex.uncapture(root);
      commit;
    end if;
  end loop;
end
$$;

-- Function: ibex.recapture(root regclass, sync text) returns text
-- Purpose:  prepares the capture of a table anew, whose key is another one now or that was muted, once no relation is
--           armed for it.
-- Returns:  null, or why the table cannot be captured any more.
-- Writes:   ibex.captured, ibex.generation; ibex.source_table: the other syncs that carry the table stay in it, and
--           find that they missed rows. `sync` is the one that calls, and knows. What was given up stays so.
create or replace function ibex.recapture(root regclass, sync text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  before ibex.source_table[] := array(select t from ibex.source_table t where t.relid = root);
  refusal text;
begin
  perform ibex.uncapture(root);
  refusal := ibex.capture(root);
  if refusal is null then
    insert into ibex.source_table (sync, relid, floor, missed, given_up_at, given_up_why)
      select b.sync, root, txid_current_snapshot(), case when b.sync <> recapture.sync then 'rows' end,
             b.given_up_at, b.given_up_why
        from unnest(before) b;
    perform ibex.heed_echoes(array[root::oid]);
  end if;
  return refusal;
end
$$;

-- Function: ibex.uncapture(root oid) returns void
-- Purpose:  drops functions and delta tables of a table that no relation is armed for any more, and its row.
-- Why:      never while armed: a write of the application would fail inside the trigger.
create or replace function ibex.uncapture(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
