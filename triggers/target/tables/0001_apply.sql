-- Tables of the target: how far each sync is, table by table, and what was set aside.

-- One row a sync. `epoch` and `position` are the checkpoint: they move in the transaction that writes the rows.
create table ibex.checkpoint (
  sync      text primary key,
  epoch     bigint not null default 0,
  position  text,                -- a snapshot of the source; null until the first lane starts
  system    text not null,       -- the source it belongs to
  database  text not null,
  timeline  integer not null,
  moved_at  timestamptz not null default clock_timestamp()
);

-- Who holds the lane of a sync, and when it was last seen alive. Apart from the checkpoint, whose row is
-- locked for as long as a batch takes.
create table ibex.holder (
  sync      text primary key references ibex.checkpoint on delete cascade,
  epoch     bigint not null,
  host      text not null,
  pid       integer not null,
  beat_at   timestamptz not null default clock_timestamp()
);

-- The tables of each sync.
--   pending    to be copied                          moved on by: the backfill
--   copying    chunks are being copied               moved on by: the backfill
--   joining    copied; the next batch takes it from `floor` on, and so into step
--   streaming  in step with the lane                 moved on by: the applier
--   held       waits for a person or a condition (`reason`); read again from `floor` on
create table ibex.target_table (
  sync      text not null references ibex.checkpoint on delete cascade,
  relid     bigint not null,     -- oid of the table on the source
  schema_name text not null,
  table_name  text not null,
  state     text not null check (state in ('pending', 'copying', 'joining', 'streaming', 'held')),
  replace   boolean not null default false,  -- empty the target's table before copying
  floor     text,                -- lower bound of its own while it is not streaming
  reason    text,
  copied    bigint not null default 0,       -- rows copied by finished chunks
  captured  bigint not null default 0,       -- deltas taken in by batches
  applied   bigint not null default 0,       -- keys (mode key) or rows (mode row) and truncates carried over
  coalesced bigint not null default 0,       -- deltas that another delta of the same key in its batch made needless
  changed_at timestamptz not null default clock_timestamp(),
  primary key (sync, relid)
);

-- The chunks of tables that are being copied: block ranges of one relation on the source.
create table ibex.chunk (
  sync      text not null,
  relid     bigint not null,
  n         integer not null,
  relation  bigint not null,     -- the table or one of its partitions
  filenode  bigint not null,     -- its file when the chunk was planned
  first_block bigint not null,
  last_block  bigint,            -- null: to the end
  rows      bigint,              -- null until done
  primary key (sync, relid, n),
  foreign key (sync, relid) references ibex.target_table on delete cascade
);

-- Constraints, triggers and rules of the target that were set aside, written down before they are touched.
create table ibex.parked (
  sync      text not null,
  kind      text not null check (kind in ('foreign_key', 'trigger', 'rule')),
  schema_name text not null,     -- the table it stands on
  table_name  text not null,
  name      text not null,
  referenced  text,              -- foreign_key: the referenced table, as schema.name
  restore   text not null,       -- the statements that put it back
  parked_at timestamptz not null default clock_timestamp(),
  primary key (kind, schema_name, table_name, name)
);
