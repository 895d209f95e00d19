-- Function: ibex.forget(root oid, generation integer) returns boolean
-- Purpose:  empties one delta table when no sync needs anything in it.
-- Returns:  true when it did, false when something in it is needed, null when somebody has it open.
-- Locks:    ACCESS EXCLUSIVE on the delta table, NOWAIT: nobody has to queue behind us.
-- Writes:   the delta table, ibex.captured.forgotten, in one transaction.
-- Why:      whether a generation may be emptied is decided by its rows alone, read in a statement of its own
--           after the lock (this function is volatile: under READ COMMITTED each statement has a new
--           snapshot). By xid, by time or by "it was replaced" loses rows of statements that started before.
--           TRUNCATE, never DELETE: a delta table has no dead rows and no vacuum.
create or replace function ibex.forget(root oid, generation integer) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  delta text := format('ibex.delta_%s_%s', root, generation);
  needed txid_snapshot[];
  wanted boolean;
begin
  begin
    execute format('lock table %s in access exclusive mode nowait', delta);
  exception when lock_not_available then
    return null;
  end;
  select array_agg(distinct n.position::text)::txid_snapshot[] into needed
    from ibex.source_table st join ibex.source_sync s on s.name = st.sync
    cross join lateral (values (coalesce(st.floor, s.position)), (s.seen)) n(position)
   where st.relid = root and st.given_up_at is null and n.position is not null;
  execute format(
    'select exists (select from %s d, unnest($1) n(position) where not txid_visible_in_snapshot(d.xid, n.position))',
    delta) into wanted using needed;
  if wanted then
    return false;
  end if;
  execute format('truncate %s', delta);
  -- Never back: a sync that acknowledges less than before (its target was restored) brings no delta back.
  update ibex.captured c set forgotten = f.position
    from (select coalesce((select n.position from unnest(needed) n(position)
                            order by txid_snapshot_xmax(n.position), txid_snapshot_xmin(n.position) limit 1),
                          txid_current_snapshot()) as position) f
   where c.relid = root
     and (c.forgotten is null
          or (txid_snapshot_xmax(c.forgotten), txid_snapshot_xmin(c.forgotten))
             < (txid_snapshot_xmax(f.position), txid_snapshot_xmin(f.position)));
  return true;
end
$$;
