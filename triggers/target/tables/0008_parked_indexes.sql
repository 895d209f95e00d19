-- Indexes of a table that was empty when its copy began are set aside too, with the constraints that they serve.
alter table ibex.parked drop constraint parked_kind_check;
alter table ibex.parked add constraint parked_kind_check check (kind in ('foreign_key', 'trigger', 'rule', 'index'));
-- Lower ones are put back first: indexes of partitions before those of their tables, foreign keys last.
alter table ibex.parked add column turn integer not null default 0;
update ibex.parked set turn = 1 where kind = 'foreign_key';
-- Of the statements in `restore` the one that takes its time, which several sessions may run beside each other first.
alter table ibex.parked add column build text;
-- The table that an index stands on, whatever it is called by now.
alter table ibex.parked add column relation bigint;
-- Numbers of the table's columns that an index needs, and of those by which it tells the rows of the sync's key apart.
alter table ibex.parked add column needs int2[];
alter table ibex.parked add column key int2[];
-- Why it could not be put back when that was tried last.
alter table ibex.parked add column reason text;
