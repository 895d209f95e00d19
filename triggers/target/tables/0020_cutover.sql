-- Which side of a sync is live: the source, until a cutover has made it the target. Kept in the database of the configured
-- target, whichever side is live, and moved in one transaction. No row: the source.
create table ibex.live (
  sync       text primary key,
  side       text not null default 'source' check (side in ('source', 'target')),
  turned_at  timestamptz,
  -- The daemon looks here far more often than else, and moves its checkpoint even when there is nothing to carry: somebody
  -- who keeps the application from writing waits for it.
  hurry_until timestamptz
);

-- What cutovers and rollbacks did, phase by phase; a phase that is under way, or in which its process died, has no end.
create table ibex.cutover (
  sync      text not null,
  run       integer not null,
  n         integer not null,       -- the place of the phase in its run
  live      text not null check (live in ('source', 'target')),  -- the side that the run makes live
  phase     text not null,
  began_at  timestamptz not null default clock_timestamp(),
  ended_at  timestamptz,
  what      jsonb,                  -- what came of it
  primary key (sync, run, n)
);

-- What `ibex verify` found of all tables of a lane, or of a sample of their rows.
create table ibex.verified (
  sync     text not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  sample   float8 not null,         -- the share of the ranges of each table; 1: all of them
  verdict  text not null check (verdict in ('equal', 'different', 'undecided')),
  primary key (sync, started_at)
);
