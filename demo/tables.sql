-- The shop of `ibex demo`: tables as applications have them, made on both sides. Ids come from the database,
-- deletions cascade, orders are partitioned by month, and one table has no key at all. keys.sql completes them.

create schema shop;
create schema audit;

create type shop.order_state as enum ('placed', 'paid', 'shipped', 'returned');
create type shop.payment_method as enum ('card', 'transfer', 'voucher');
create domain shop.email as text check (value ~ '^[^@\s]+@[^@\s]+$');

create table shop.customer (
  id          bigint generated always as identity primary key,
  email       shop.email not null unique,
  name        text not null,
  "birthDate" date,
  tags        text[] not null default '{}',
  preferences jsonb not null default '{}',
  points      integer not null default 0,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now()
);

create table shop.address (
  id          bigint generated always as identity primary key,
  customer_id bigint not null,
  lines       text[] not null,
  country     char(2) not null,
  location    point
);

create table shop.category (
  id        integer primary key,
  parent_id integer,
  name      text not null
);

create table shop.product (
  code        text primary key,
  category_id integer,
  name        text not null,
  search      text generated always as (lower(name)) stored,
  price       numeric(10, 2) not null check (price > 0),
  weight      double precision,
  attributes  jsonb not null default '{}',
  thumbnail   bytea,
  public_id   uuid not null unique default gen_random_uuid(),
  updated_at  timestamptz not null default now()
);

create table shop.stock (
  product_code text,
  warehouse    smallint,
  on_hand      integer not null check (on_hand >= 0),
  counted_at   timestamptz,
  primary key (product_code, warehouse)
);

create table shop.orders (
  id          bigint generated always as identity,
  placed_at   timestamptz not null default now(),
  customer_id bigint not null,
  state       shop.order_state not null default 'placed',
  total       numeric(12, 2) not null default 0,
  delivery    tstzrange,
  note        text,
  primary key (id, placed_at)
) partition by range (placed_at);

-- Half a year back, this month, the next one, and what lies beyond.
do $$
declare
  month timestamptz;
begin
  for month in select generate_series(date_trunc('month', now()) - interval '6 months',
                                      date_trunc('month', now()) + interval '1 month', '1 month') loop
    execute format('create table shop.%I partition of shop.orders for values from (%L) to (%L)',
                   'orders_' || to_char(month, 'YYYY_MM'), month, month + interval '1 month');
  end loop;
end $$;
create table shop.orders_other partition of shop.orders default;

create table shop.order_line (
  order_id     bigint,
  placed_at    timestamptz,
  line_no      smallint,
  product_code text not null,
  quantity     integer not null,
  price        numeric(10, 2) not null,
  amount       numeric(12, 2) generated always as (quantity * price) stored,
  primary key (order_id, placed_at, line_no)
);

create table shop.payment (
  id        uuid primary key default gen_random_uuid(),
  number    bigint generated always as identity unique,
  order_id  bigint not null,
  placed_at timestamptz not null,
  method    shop.payment_method not null,
  amount    numeric(12, 2) not null,
  receipt   bytea,
  paid_at   timestamptz not null default now()
);

create table shop.refund (
  payment_id uuid primary key,
  amount     numeric(12, 2) not null,
  reason     text
);

create table shop.review (
  customer_id  bigint,
  product_code text,
  rating       smallint not null check (rating between 1 and 5),
  body         text,
  reading_time interval,
  written_on   date not null default current_date,
  primary key (customer_id, product_code)
);

-- Emptied by TRUNCATE every now and then.
create table shop.session_cache (
  token uuid primary key,
  data  jsonb not null
);

-- One row at a time, by which the demo measures the lag.
create table shop.heartbeat (
  n  integer primary key,
  at timestamptz not null default clock_timestamp()
);

-- No key: rows may even be equal.
create table audit.entry (
  at      timestamptz not null default now(),
  actor   text not null default current_user,
  action  text not null,
  subject text not null,
  detail  jsonb
);
