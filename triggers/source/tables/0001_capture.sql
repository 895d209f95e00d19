-- Tables of the source: what is captured, by which delta tables, and who still needs it.
-- Positions are txid_snapshot and transaction ids bigint on every major: the same functions exist from
-- PostgreSQL 12 to 18, and pg_snapshot / xid8 have the same text.

-- Which history of which database these tables belong to. A restored copy finds another server's row here
-- and knows that it is a copy.
create table ibex.identity (
  only_row   boolean primary key default true check (only_row),
  system     text not null,      -- system_identifier, or 'hidden'
  database   text not null,      -- oid of the database
  timeline   integer not null,   -- 0 where the provider hides it
  created_at timestamptz not null default clock_timestamp()
);

-- One row a captured table (the root of a partitioned one).
create table ibex.captured (
  relid       oid primary key,
  schema_name text not null,
  table_name  text not null,
  mode        text not null check (mode in ('key', 'row')),
  columns     text[] not null,   -- columns noted in the delta tables, as k1 .. kn
  types       text[] not null,   -- their types there
  attnums     int2[] not null,   -- their numbers in the table, which survive a rename
  generation  integer not null,  -- the generation written now
  forgotten   txid_snapshot,     -- deltas visible in it may have been truncated
  shape       text,              -- columns and key when it was armed; see ibex.signatures
  storage     text,              -- files of the table and its leaves
  armour      text,              -- our triggers on the table and its leaves
  armed_at    timestamptz        -- null until every relation carries its triggers
);

-- The generations of a table's delta tables: ibex.delta_<relid>_<n>.
create table ibex.generation (
  relid oid not null references ibex.captured on delete cascade,
  n     integer not null,
  primary key (relid, n)
);

-- One row a sync that reads here.
create table ibex.source_sync (
  name       text primary key,
  position   txid_snapshot not null,  -- acknowledged: everything visible in it is on the target
  updated_at timestamptz not null default clock_timestamp()
);

-- The tables of each sync. A floor is a lower bound of its own, while the table is copied or held.
create table ibex.source_table (
  sync  text not null references ibex.source_sync on delete cascade,
  relid oid not null references ibex.captured on delete cascade,
  floor txid_snapshot,
  primary key (sync, relid)
);
