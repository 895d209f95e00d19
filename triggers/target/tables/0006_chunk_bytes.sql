-- How much a chunk is: bytes on the source's disk as it was planned, TOAST included, and bytes that were sent.
alter table ibex.chunk add column planned bigint not null default 0;
alter table ibex.chunk add column bytes bigint;  -- null until done
-- Rows that the target had when the copy began: how many, and how many of them the source had too.
alter table ibex.target_table add column found bigint;  -- null: not known
alter table ibex.target_table add column met bigint not null default 0;
