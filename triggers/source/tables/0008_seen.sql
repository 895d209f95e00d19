-- Of a sync whose target is written by others too: how far the target's own changes were known there when the last batch
-- that came from it was read. What is not visible in it may still turn out to be in conflict with what comes, so it is kept,
-- see ibex.forget. Null for a sync that goes one way.
alter table ibex.source_sync add column seen txid_snapshot;
