-- Grows while a daemon runs the sync. The target keeps the number that its last batch saw: a source that has a lower one
-- is a copy from before.
alter table ibex.source_sync add column witness bigint not null default 0;
