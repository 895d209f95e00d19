-- The source's witness (ibex.source_sync.witness there) as of the position.
alter table ibex.checkpoint add column witness bigint not null default 0;
