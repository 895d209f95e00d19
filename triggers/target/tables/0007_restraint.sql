-- What holds the flow of a sync back for a while. Apart from the checkpoint, whose row is locked for as long as a batch
-- takes, and from who holds the lane, since it outlives every holder.
create table ibex.restraint (
  sync      text primary key references ibex.checkpoint on delete cascade,
  paused_at timestamptz,         -- by `ibex pause`: no chunk and no batch is begun until `ibex resume`
  slowed_at timestamptz,         -- by the daemon, while it copies: the source is busy
  slowed_why text
);
