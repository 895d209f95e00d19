-- What threw the lane back last, and when: the daemon tries again by itself. Null: it has gone on since.
alter table ibex.holder add column trouble text;
alter table ibex.holder add column trouble_at timestamptz;
