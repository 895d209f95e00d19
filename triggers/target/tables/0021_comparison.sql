-- Comparisons that have not come to their end: what they have found equal so far, so that the next call goes on there.
create table ibex.comparison (
  id         uuid primary key,
  sync       text not null references ibex.checkpoint on delete cascade,
  -- What is compared: the patterns and the share that were asked for, and which two databases these are.
  what       text not null,
  started_at timestamptz not null
);

-- How a table was divided. A table that was divided anew has another id: what is still under way by the former one is kept
-- nowhere.
create table ibex.compared_table (
  id         uuid primary key,
  comparison uuid not null references ibex.comparison on delete cascade,
  relid      bigint not null,       -- on the source, as in ibex.target_table
  basis      text not null,         -- what its ranges rest on: how it is carried, and the copy on the target
  ranges     integer not null       -- how many it has; of a sample not all of them have a row below
);
create index compared_table_of on ibex.compared_table (comparison);

create table ibex.compared_range (
  compared    uuid not null references ibex.compared_table on delete cascade,
  n           integer not null,
  lower_bound text[],                -- of the key, included; null: none
  upper_bound text[],                -- excluded
  -- When all of its rows had been found equal, and what was read; null: that is still to be seen.
  compared_at timestamptz,
  result      jsonb,
  primary key (compared, n)
);
