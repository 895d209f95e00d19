-- Function: ibex.set_budget(sync text, bytes text, age interval) returns void
-- Purpose:  records what the deltas of a sync may take of this server's disk, and how old they may get.
-- Input:    bytes - a number, 'none', or 'auto': a quarter of the size that the database has without them, and 256 MiB at
--           least. age - null: as old as they like.
create or replace function ibex.set_budget(sync text, bytes text, age interval) returns void
language sql set search_path = pg_catalog, pg_temp as $$
  update ibex.source_sync s
     set beat_at = clock_timestamp(), max_delta_age = set_budget.age,
         max_delta_bytes = case set_budget.bytes
           when 'none' then null
           when 'auto' then greatest(268435456, (pg_database_size(current_database())
                              - (select coalesce(sum(ibex.delta_bytes(c.relid)), 0) from ibex.captured c)) / 4)::bigint
           else set_budget.bytes::bigint end
   where s.name = set_budget.sync
$$;

-- Function: ibex.delta_bytes(root oid) returns bigint
-- Purpose:  what the delta tables of a captured table take of the disk.
create or replace function ibex.delta_bytes(root oid) returns bigint
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select coalesce(sum(pg_total_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n)))), 0)::bigint
    from ibex.generation g where g.relid = root
$$;

-- Function: ibex.waiting_deltas(root oid, acknowledged txid_snapshot) returns (bytes bigint, oldest timestamptz)
-- Purpose:  what the deltas of a table that this position does not cover take of the disk, and when the oldest of them was
--           noted; 0 and null when there is none.
-- Why:      a delta table is only ever written at its end, so the first that is found is the oldest, but for those of
--           transactions that ran side by side. What comes before it is read, what comes after it is not.
create or replace function ibex.waiting_deltas(root oid, acknowledged txid_snapshot,
                                               out bytes bigint, out oldest timestamptz)
language plpgsql volatile set search_path = pg_catalog, pg_temp set synchronize_seqscans = off as $$
declare
  delta text;
  noted_at timestamptz;
  page bigint;
begin
  bytes := 0;
  for delta in
    select format('ibex.delta_%s_%s', g.relid, g.n) from ibex.generation g
     where g.relid = root and pg_relation_size(to_regclass(format('ibex.delta_%s_%s', g.relid, g.n))) > 0
  loop
    execute format('select d.at, (d.ctid::text::point)[0]::bigint from %s d '
                   'where d.xid >= %s and not txid_visible_in_snapshot(d.xid, $1) limit 1',
                   delta, txid_snapshot_xmin(acknowledged)) into noted_at, page using acknowledged;
    if noted_at is not null then
      oldest := least(oldest, noted_at);
      bytes := bytes + pg_total_relation_size(delta::regclass) - page * current_setting('block_size')::bigint;
    end if;
  end loop;
end
$$;

-- Function: ibex.delta_usage(wanted text, aged boolean) returns table (..)
-- Purpose:  what there is of deltas, one row a sync and table: how many bytes, how old the oldest is that the sync has not
--           acknowledged (null: all are), the budgets of the sync, how long nobody has looked after it, since when the
--           deltas are given up.
-- Input:    wanted - one sync; null: all. aged - whether to look for the oldest, for which deltas have to be read.
create or replace function ibex.delta_usage(wanted text default null, aged boolean default true)
returns table (sync text, relid oid, table_name text, bytes bigint, oldest interval, max_delta_bytes bigint,
               max_delta_age interval, silent interval, given_up_at timestamptz)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select s.name, t.relid, format('%I.%I', c.schema_name, c.table_name), ibex.delta_bytes(t.relid),
         case when aged and t.given_up_at is null
              then clock_timestamp() - (ibex.waiting_deltas(t.relid, coalesce(t.floor, s.position))).oldest end,
         s.max_delta_bytes, s.max_delta_age, clock_timestamp() - s.beat_at, t.given_up_at
    from ibex.source_sync s
    join ibex.source_table t on t.sync = s.name
    join ibex.captured c on c.relid = t.relid
   where wanted is null or s.name = wanted
$$;

-- Function: ibex.over_budget(wanted text, everything boolean) returns table (sync text, relid oid, why text)
-- Purpose:  the tables whose deltas are to be given up, and for which sync.
-- Input:    wanted     - the sync to look at; null: those that nobody has looked after for five minutes.
--           everything - all of its tables, whatever they take.
-- Why:      the largest go first, until what is left fits. What several syncs wait for is charged to those that are
--           furthest behind, and what is acknowledged and only waits to be forgotten to nobody.
create or replace function ibex.over_budget(wanted text, everything boolean)
returns table (sync text, relid oid, why text)
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with waiting as materialized (
    select t.sync, t.relid, s.max_delta_bytes, s.max_delta_age, s.beat_at,
           coalesce(t.floor, s.position) as position,
           rank() over (partition by t.relid order by txid_snapshot_xmax(coalesce(t.floor, s.position))) as place
      from ibex.source_table t join ibex.source_sync s on s.name = t.sync
     where t.given_up_at is null
  ), chosen as materialized (
    select w.*, d.bytes, d.oldest
      from waiting w cross join lateral ibex.waiting_deltas(w.relid, w.position) d
     where case when wanted is null then w.beat_at < clock_timestamp() - interval '5 minutes' else w.sync = wanted end
  ), charged as (
    select c.*, sum(case when c.place = 1 then c.bytes end) over (partition by c.sync order by c.bytes, c.relid) as up_to
      from chosen c
  )
  select c.sync, c.relid,
         case when everything then 'somebody asked for it'
              when c.place = 1 and c.up_to > c.max_delta_bytes
                then format('the deltas had grown over the budget of %s', pg_size_pretty(c.max_delta_bytes))
              else format('the oldest change had waited for %s', date_trunc('second', clock_timestamp() - c.oldest)) end
    from charged c
   where everything
      or (c.oldest is not null and c.place = 1 and c.up_to > c.max_delta_bytes)
      or c.oldest < clock_timestamp() - c.max_delta_age
$$;
