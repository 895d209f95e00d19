-- How closely a table's changes are noted, and which partitions it had when it was armed.
--   statement - by statement triggers with transition tables, the cheap way
--   row       - by row triggers, where statement triggers see too much or too little: see ibex.choose_level
alter table ibex.captured add column level text not null default 'statement' check (level in ('statement', 'row'));
-- The links of the partition tree, see ibex.signatures; and its leaves, see ibex.leaves, each with the
-- snapshot `since` from which on its rows are in the copy or in the deltas.
alter table ibex.captured add column tree text;
alter table ibex.captured add column leaves jsonb;
