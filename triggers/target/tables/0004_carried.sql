-- What the rows on the target stand for: which columns of the source's table they were carried from, into which
-- columns of which table. Null until the first copy under this version. See core/carried.ts.
alter table ibex.target_table add column carried jsonb;
-- Columns of the source that rows there have and rows here do not yet, by number, each with the value of those rows
-- that were there before the column was.
alter table ibex.target_table add column ahead jsonb not null default '{}';
-- The columns that are to be filled with such a value before the copy goes on: [{"name": .., "type": .., "value": ..}].
alter table ibex.target_table add column fill jsonb;

--   dropped    the source has it no more; what was carried stays       moved on by: nobody
alter table ibex.target_table drop constraint target_table_state_check;
alter table ibex.target_table add constraint target_table_state_check
  check (state in ('pending', 'copying', 'joining', 'streaming', 'held', 'dropped'));

-- Tables that were taken out of a sync by name: its patterns do not bring them back.
create table ibex.left_out (
  sync        text not null references ibex.checkpoint on delete cascade,
  schema_name text not null,
  table_name  text not null,
  primary key (sync, schema_name, table_name)
);
