-- Large backlogs are staged here before the batch that takes them in: the rows in a table ibex.stage_<id> (piece, n,
-- present, then the columns of the plan), and here for what they are good.
create table ibex.stage (
  id        integer primary key generated always as identity,
  sync      text not null,
  relid     bigint not null,
  lower     text not null,       -- the position from which the table is carried; what is staged counts from there only
  plan      text not null,       -- fingerprint of the plan by which the pieces were read
  unique (sync, relid),
  foreign key (sync, relid) references ibex.target_table on delete cascade
);

-- One row a piece, committed with its rows: the deltas in these blocks of a delta table of the source that are visible
-- in `upto` and not in `after`. Where two pieces have the same key, the later one is right.
create table ibex.piece (
  stage     integer not null references ibex.stage on delete cascade,
  n         integer not null,
  after     text not null,
  upto      text not null,
  generation  integer not null,
  first_block bigint not null,
  end_block   bigint not null,   -- left out
  deltas    bigint not null,
  staged_at timestamptz not null default clock_timestamp(),
  primary key (stage, n)
);
