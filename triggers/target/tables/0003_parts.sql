-- Parts of a table that are to be copied again while all the rest of it stays: what a partition that came or went
-- leaves to do. They become chunks once the copy takes them up.
--   relation  - the partition whose rows are copied; null: the table's own rows that satisfy the predicate
--   predicate - rows that are removed on the target first; null: none
create table ibex.part (
  sync      text not null,
  relid     bigint not null,
  n         integer not null generated always as identity,
  relation  bigint,
  predicate text,
  primary key (sync, relid, n),
  foreign key (sync, relid) references ibex.target_table on delete cascade
);

-- Not blocks of one relation, but rows of the whole table: those that satisfy the predicate.
alter table ibex.chunk add column predicate text;
-- The rows are merged into what is there of the table.
alter table ibex.chunk add column part boolean not null default false;
