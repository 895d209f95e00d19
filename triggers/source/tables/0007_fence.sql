-- The fences of syncs that may be cut over: the trigger ibex_fence_<n> on every table of the sync calls ibex.fence_<n>(),
-- which does nothing while the fence is down. Whether it is up, the function alone says: see ibex.fence_is_up.
create table ibex.fence (
  n     integer primary key generated always as identity,
  sync  text not null unique,
  lifts text not null        -- the statement that lifts it, for whoever has nothing but psql
);
