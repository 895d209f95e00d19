-- Function: ibex.make_fence(sync text) returns integer
-- Purpose:  the number of the sync's fence, which is made, down, where there is none yet.
-- Writes:   ibex.fence, function ibex.fence_<n>.
create or replace function ibex.make_fence(sync text) returns integer
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  number integer := (select f.n from ibex.fence f where f.sync = make_fence.sync);
begin
  if number is null then
    insert into ibex.fence (sync, lifts) values (make_fence.sync, '') returning n into number;
    update ibex.fence f set lifts = ibex.fence_statement(number, null) where f.n = number;
  end if;
  if to_regprocedure(format('ibex.fence_%s()', number)) is null then
    execute ibex.fence_statement(number, null);
    execute format('revoke execute on function ibex.%I() from public', 'fence_' || number);
  end if;
  return number;
end
$$;

-- Function: ibex.fence_statement(n integer, nodes text[]) returns text
-- Purpose:  the statement that raises a fence, but for sessions that carry changes from one of these nodes; with null the
--           one that lifts it.
-- Why:      replacing a function takes no lock on any table of the application: a fence goes up, and down, at once, whoever
--           is busy on them. 25006 is what a server says that is read only: applications and pools know it, and try again.
--           The body runs in sessions of the application, whatever their search_path: every name in it is qualified. Of
--           those that name a node only roles are believed that could lift the fence anyway.
create or replace function ibex.fence_statement(n integer, nodes text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('create or replace function ibex.fence_%s() returns trigger language plpgsql %sas %L', n,
    case when nodes is not null then 'security definer ' else '' end,
    case when nodes is null then 'begin return null; end' else format(
      'begin if pg_catalog.current_setting(''ibex.origin'', true) operator(pg_catalog.=) any (%L::pg_catalog.text[]) '
      'and pg_catalog.pg_has_role(session_user, current_user, ''member'') then return null; end if; '
      'raise exception using errcode = ''25006'', message = pg_catalog.concat(''ibex: '', tg_table_schema, ''.'', tg_table_name, '
      ''' is fenced: the database is being moved, or was''), hint = %L; end',
      nodes, 'Try again shortly, on the address that the application has by then. No write is taken here.') end)
$$;

-- Function: ibex.raise_fence(sync text, nodes text[]) returns void
-- Purpose:  raises the fence of a sync: from its commit on every statement that writes to one of the tables, and that has
--           no lock on it yet, fails. Who has one already is for ibex.writers to tell.
create or replace function ibex.raise_fence(sync text, nodes text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  execute ibex.fence_statement(ibex.make_fence(sync), nodes);
end
$$;

-- Function: ibex.fence_is_up(sync text) returns boolean
create or replace function ibex.fence_is_up(sync text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce((select p.prosrc like '%raise exception%' from ibex.fence f
                    join pg_proc p on p.oid = to_regprocedure(format('ibex.fence_%s()', f.n))
                   where f.sync = fence_is_up.sync), false)
$$;

-- Function: ibex.fence_mark(sync text) returns text
-- Purpose:  another text each time the fence was raised or lifted, by whomever.
create or replace function ibex.fence_mark(sync text) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select concat_ws(' ', p.oid, p.xmin, p.ctid) from ibex.fence f
    join pg_proc p on p.oid = to_regprocedure(format('ibex.fence_%s()', f.n)) where f.sync = fence_mark.sync
$$;

-- Function: ibex.fenced_relations(sync text) returns setof oid
-- Purpose:  the relations that have to carry the trigger of a sync's fence: its tables and every partition of them, since
--           a statement fires the statement triggers of the relation that it names, and of no other.
create or replace function ibex.fenced_relations(sync text) returns setof oid
language sql stable set search_path = pg_catalog, pg_temp as $$
  select m from ibex.source_table t join pg_class c on c.oid = t.relid cross join lateral ibex.members(t.relid) m
   where t.sync = fenced_relations.sync
$$;

-- Function: ibex.unfenced(sync text) returns setof regclass
-- Purpose:  those of them that lack the trigger, or have it disabled.
create or replace function ibex.unfenced(sync text) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select r::regclass from ibex.fenced_relations(sync) r
   where not exists (select from ibex.fence f join pg_trigger t on t.tgname = 'ibex_fence_' || f.n
                      where f.sync = unfenced.sync and t.tgrelid = r and t.tgenabled = 'A')
$$;

-- Function: ibex.place_fence(relation regclass, sync text) returns void
-- Purpose:  puts the trigger of a sync's fence on one relation. Repeatable.
-- Locks:    SHARE ROW EXCLUSIVE on the relation, waited for at most `lock_timeout`, as ibex.arm.
-- Why:      ENABLE ALWAYS, so that session_replication_role = replica is no way around it.
create or replace function ibex.place_fence(relation regclass, sync text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  number integer := ibex.make_fence(sync);
begin
  execute format('lock table only %s in share row exclusive mode', relation);
  if not exists (select from pg_trigger t where t.tgrelid = relation and t.tgname = 'ibex_fence_' || number) then
    execute format('create trigger %I before insert or update or delete or truncate on %s for each statement '
                   'execute function ibex.%I()', 'ibex_fence_' || number, relation, 'fence_' || number);
  end if;
  execute format('alter table only %s enable always trigger %I', relation, 'ibex_fence_' || number);
end
$$;

-- Function: ibex.fence_posts(sync text) returns setof regclass
-- Purpose:  every relation that carries the trigger of the sync's fence, whatever became of it.
create or replace function ibex.fence_posts(sync text) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select distinct t.tgrelid::regclass
    from ibex.fence f join pg_depend d on d.refclassid = 'pg_proc'::regclass
     and d.refobjid = to_regprocedure(format('ibex.fence_%s()', f.n)) and d.classid = 'pg_trigger'::regclass
    join pg_trigger t on t.oid = d.objid
   where f.sync = fence_posts.sync
$$;

-- Function: ibex.fence_strays(sync text) returns setof regclass
-- Purpose:  those of them that are no part of the sync any more.
create or replace function ibex.fence_strays(sync text) returns setof regclass
language sql stable set search_path = pg_catalog, pg_temp as $$
  select p from ibex.fence_posts(sync) p except select r::regclass from ibex.fenced_relations(sync) r
$$;

-- Function: ibex.pull_fence(relation regclass, sync text) returns void
-- Purpose:  takes the trigger of a sync's fence off one relation.
-- Locks:    ACCESS EXCLUSIVE on the relation, waited for at most `lock_timeout`.
create or replace function ibex.pull_fence(relation regclass, sync text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  ours name := (select 'ibex_fence_' || f.n from ibex.fence f where f.sync = pull_fence.sync);
begin
  execute format('drop trigger if exists %I on %s', ours, relation);
end
$$;

-- Function: ibex.drop_fence(sync text) returns void
-- Purpose:  drops what is left of a fence, unless it stands on some relation yet.
create or replace function ibex.drop_fence(sync text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  number integer;
begin
  delete from ibex.fence f where f.sync = drop_fence.sync and not exists (select from ibex.fence_posts(f.sync))
    returning f.n into number;
  if number is not null then
    execute format('drop function if exists ibex.%I()', 'fence_' || number);
  end if;
end
$$;

-- Function: ibex.writers(sync text) returns table (transaction text, pid integer, gid text, who text)
-- Purpose:  the transactions of others that have a lock on a table of the sync under which they may have written to it, or
--           may still write without meeting a fence that went up after they got the lock. A prepared one has a `gid` and
--           no `pid`. The sessions by which the sync itself carries changes, either way, are left out.
-- Why:      a statement locks the table that it writes before it calls the trigger, and whoever gets a lock learns first
--           what changed in the catalogs. So who got it after the fence was up meets it, prepared statements and cached
--           plans included; who had it before is listed here until the transaction ends.
create or replace function ibex.writers(sync text)
returns table (transaction text, pid integer, gid text, who text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select l.virtualtransaction, l.pid, p.gid,
         case when l.pid is null then format('prepared transaction %L of %s', p.gid, coalesce(p.owner::text, '?'))
              else format('pid %s (%s%s%s)', l.pid, coalesce(a.usename::text, a.backend_type, '?'),
                          ', ' || coalesce(a.state, 'working') || ' for '
                            || round(extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.query_start))) || ' s',
                          ', application ' || nullif(a.application_name, '')) end
    from (select distinct k.virtualtransaction, k.pid from pg_locks k
           where k.locktype = 'relation' and k.granted and k.pid is distinct from pg_backend_pid()
             and k.database = (select d.oid from pg_database d where d.datname = current_database())
             and k.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
             and k.relation in (select r from ibex.fenced_relations(sync) r)) l
    left join pg_stat_activity a on a.pid = l.pid
    left join pg_locks x on x.pid is null and l.pid is null and x.locktype = 'transactionid' and x.granted
                        and x.virtualtransaction = l.virtualtransaction
    left join pg_prepared_xacts p on p.transaction = x.transactionid
   where a.usename is distinct from current_user
      or split_part(a.application_name, ':', 1) <> 'ibex'
      or split_part(a.application_name, ':', 2) not in (regexp_replace(sync, '[.]back$', ''), regexp_replace(sync, '[.]back$', '') || '.back')
$$;
