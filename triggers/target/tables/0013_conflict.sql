-- What was decided where both sides had changed a row, or an incoming row and one of ours could not both stand. Written in
-- the transaction of the batch that met it; `aborted` alone in one of its own, since the batch is gone.
create table ibex.conflict (
  id            bigint primary key generated always as identity,
  at            timestamptz not null default clock_timestamp(),
  sync          text not null,       -- the lane that brought the incoming row
  schema_name   text not null,
  table_name    text not null,
  type          text not null,       -- PostgreSQL 18's names, see core/conflict.ts
  key           text[] not null,     -- of the incoming row, in the order of the table's key
  columns       text[] not null,     -- of the rows below
  local_node    text not null,
  incoming_node text not null,
  local_row     text[],              -- null: gone, or the sync keeps no values
  incoming_row  text[],
  local_at      timestamptz,         -- when the row was changed there last; null: not known
  incoming_at   timestamptz,
  strategy      text not null,
  winner        text not null check (winner in ('local', 'incoming', 'new', 'none')),
  new_row       text[],              -- what a function made of the two
  batch         text not null,
  state         text not null check (state in ('resolved', 'held', 'aborted', 'closed')),
  reason        text                 -- why it is held or aborted; how it was closed
);
create index conflict_of_table on ibex.conflict (schema_name, table_name, at);
create index conflict_open on ibex.conflict (sync, id) where state in ('held', 'aborted');

-- How many there were since the sync was set up; the records themselves are kept for a while only.
create table ibex.conflict_count (
  sync        text not null references ibex.checkpoint on delete cascade,
  schema_name text not null,
  table_name  text not null,
  type        text not null,
  n           bigint not null,
  primary key (sync, schema_name, table_name, type)
);

-- Keys that wait for a person: what the lane brings of them is left out. Once somebody has said what is to become of the
-- conflict, `decision` is how the next one of the key is decided, and the row goes with it.
create table ibex.held_key (
  sync        text not null references ibex.checkpoint on delete cascade,
  schema_name text not null,
  table_name  text not null,
  key         text[] not null,
  conflict    bigint not null,       -- ibex.conflict.id
  decision    text check (decision in ('local', 'incoming')),
  primary key (sync, schema_name, table_name, key)
);

-- Keys that ended as resolved: what came of them was left out, with a record, for what this side had. And as held.
alter table ibex.target_table
  add column resolved bigint not null default 0,
  add column held bigint not null default 0;
