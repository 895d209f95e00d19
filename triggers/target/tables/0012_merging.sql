-- How far the merge of a large backlog is, as its daemon says every second from another session: what the merge's own
-- transaction wrote, nobody would see before its end. The fields of MergeStatus in src/core/backlog.ts; null: there is none.
alter table ibex.holder add column merging jsonb;
