-- Procedure: ibex.relieve(wanted text, everything boolean, lock_wait integer)
-- Purpose:   gives the application its disk back: where the deltas of a sync are over its budget, their capture ends, they
--            are truncated, and the tables are marked: they need a new backfill. For a daemon, a scheduler, or a person
--            with psql. Does nothing while all is within the budget. Repeatable: goes on where locks kept it from finishing.
-- Input:     wanted     - the sync to look at. Without it: those whose daemon has been silent for five minutes.
--            everything - give up all deltas of that sync, whatever they take.
--            lock_wait  - milliseconds to wait for each lock; the application waits behind it.
-- Locks:     none on the application's tables until the disk is free: the trigger functions are replaced by empty ones.
--            Then one relation a transaction, as ibex.disable and ibex.disarm.
-- Why:       a procedure, so that each step is a transaction. It may have no search_path of its own then, and so has no
--            operators in it.
create or replace procedure ibex.relieve(wanted text default null, everything boolean default false,
                                         lock_wait integer default 100)
language plpgsql as $$
declare
  one record;
  step record;
  round integer;
begin
  for one in select * from ibex.over_budget(wanted, everything) loop
    raise warning 'ibex: %', ibex.give_up(one.sync, one.relid, one.why);
    commit;
  end loop;
  foreach round in array array[1, 2, 3, 4, 5] loop
    for step in select * from ibex.relief_steps() loop
      perform ibex.take_step(step.kind, step.root, step.relation, step.generation, lock_wait);
      commit;
    end loop;
    exit when not exists (select from ibex.relief_steps());
    perform pg_catalog.pg_sleep(0.1);
  end loop;
end
$$;

-- Function: ibex.give_up(sync text, root oid, why text) returns text
-- Purpose:  marks a table: the sync needs a new backfill of it. With the last sync that wanted its deltas its capture ends.
--           Returns a sentence that says so.
-- Locks:    none on the application's table.
-- Why:      the mark is durable before the first delta is truncated, in a later transaction: whoever finds deltas gone
--           finds the mark.
create or replace function ibex.give_up(sync text, root oid, why text) returns text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  captured ibex.captured;
begin
  select * into strict captured from ibex.captured c where c.relid = root for update;
  update ibex.source_table t set given_up_at = clock_timestamp(), given_up_why = why
   where t.sync = give_up.sync and t.relid = root and t.given_up_at is null;
  if not exists (select from ibex.source_table t where t.relid = root and t.given_up_at is null) then
    perform ibex.mute(root);
  end if;
  return format('%I.%I needs a new backfill by sync %s: %s', captured.schema_name, captured.table_name, sync, why);
end
$$;

-- Function: ibex.mute(root oid) returns void
-- Purpose:  makes the trigger functions of a table do nothing.
-- Locks:    none on the application's table; running statements finish with the body they started with.
-- Why:      taking the triggers off needs a lock that an open transaction can keep from us for as long as it likes.
create or replace function ibex.mute(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  ours record;
begin
  update ibex.captured c set muted_at = coalesce(c.muted_at, clock_timestamp()), armed_at = null where c.relid = root;
  for ours in
    select f.name || '_' || root as name, f.result
      from (values ('insert', 'null'), ('update', 'null'), ('delete', 'null'), ('truncate', 'null'), ('move', 'new')) f(name, result)
     where to_regproc(format('ibex.%I', f.name || '_' || root)) is not null
  loop
    perform ibex.write_function(ours.name, null, 'null', ours.result, '');
  end loop;
end
$$;

-- Function: ibex.relief_steps() returns table (kind text, root oid, relation regclass, generation integer)
-- Purpose:  what is left to do for tables whose deltas are given up, in the order of its use:
--           forget  - the delta tables that have something in them and that nobody else wants
--           disable - triggers of muted tables that still fire, which costs the application a little
--           disarm  - those that are still there
create or replace function ibex.relief_steps()
returns table (kind text, root oid, relation regclass, generation integer)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select s.kind, s.root, s.relation, s.generation from (
    select 1 as place, 'forget' as kind, g.relid as root, null::regclass as relation, g.n as generation
      from ibex.generation g join ibex.captured c on c.relid = g.relid
     where (c.muted_at is not null or g.n <> c.generation)
       and exists (select from ibex.source_table t where t.relid = g.relid and t.given_up_at is not null)
       and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0
       and (c.muted_at is not null or not exists (
              select from ibex.source_table t join ibex.source_sync y on y.name = t.sync
               where t.relid = g.relid and t.given_up_at is null
                 and (ibex.waiting_deltas(g.relid, coalesce(t.floor, y.position))).oldest is not null))
    union all
    select 2, 'disable', c.relid, a.relation, null
      from ibex.captured c cross join lateral ibex.armed_relations(c.relid) a(relation)
     where c.muted_at is not null
       and exists (select from pg_trigger t where t.tgrelid = a.relation and t.tgenabled <> 'D'
                      and t.tgname ~ ('^ibex_[a-z]+_' || c.relid || '$'))
    union all
    select 3, 'disarm', c.relid, a.relation, null
      from ibex.captured c cross join lateral ibex.armed_relations(c.relid) a(relation)
     where c.muted_at is not null) s
   order by s.place, s.root, s.relation, s.generation
$$;

-- Function: ibex.take_step(kind text, root oid, relation regclass, generation integer, lock_wait integer) returns void
-- Purpose:  one of ibex.relief_steps, unless somebody has its lock for longer than `lock_wait` milliseconds.
create or replace function ibex.take_step(kind text, root oid, relation regclass, generation integer, lock_wait integer)
returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('lock_timeout', lock_wait || 'ms', true);
  case kind
    when 'forget' then perform ibex.forget(root, generation);
    when 'disable' then perform ibex.disable(relation, root);
    when 'disarm' then perform ibex.disarm(relation, root);
  end case;
exception when lock_not_available or deadlock_detected then
  null;
end
$$;
