-- What the deltas of a sync may take of this server's disk, so that ibex.relieve() knows it without a daemon; and when
-- somebody who looks after the sync was here last.
alter table ibex.source_sync
  add column max_delta_bytes bigint,    -- null: no limit
  add column max_delta_age   interval,  -- null: no limit
  add column beat_at         timestamptz not null default clock_timestamp();

-- Deltas that were given up for a sync, since when and why: the table needs a new backfill there, which a person asks for.
alter table ibex.source_table
  add column given_up_at  timestamptz,
  add column given_up_why text;

-- Since when the trigger functions of a table note nothing, because no sync wants its deltas any more. Such a table is
-- captured anew before it is armed again: see ibex.mend.
alter table ibex.captured add column muted_at timestamptz;
