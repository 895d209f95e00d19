-- The shop of `ibex demo`: a schema as applications have it, made on both sides. Ids come from the database,
-- deletions cascade, orders are partitioned by month, and one table has no key at all.

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
  customer_id bigint not null references shop.customer on delete cascade on update cascade,
  lines       text[] not null,
  country     char(2) not null,
  location    point
);
create index on shop.address (customer_id);

create table shop.category (
  id        integer primary key,
  parent_id integer references shop.category on delete cascade,
  name      text not null
);
create index on shop.category (parent_id);

create table shop.product (
  code        text primary key,
  category_id integer references shop.category on delete set null,
  name        text not null,
  search      text generated always as (lower(name)) stored,
  price       numeric(10, 2) not null check (price > 0),
  weight      double precision,
  attributes  jsonb not null default '{}',
  thumbnail   bytea,
  public_id   uuid not null unique default gen_random_uuid(),
  updated_at  timestamptz not null default now()
);
create index on shop.product (category_id);

create table shop.stock (
  product_code text references shop.product on update cascade on delete cascade,
  warehouse    smallint,
  on_hand      integer not null check (on_hand >= 0),
  counted_at   timestamptz,
  primary key (product_code, warehouse)
);

create table shop.orders (
  id          bigint generated always as identity,
  placed_at   timestamptz not null default now(),
  customer_id bigint not null references shop.customer on delete cascade on update cascade,
  state       shop.order_state not null default 'placed',
  total       numeric(12, 2) not null default 0,
  delivery    tstzrange,
  note        text,
  primary key (id, placed_at)
) partition by range (placed_at);
create index on shop.orders (customer_id);

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
  product_code text not null references shop.product on update cascade,
  quantity     integer not null,
  price        numeric(10, 2) not null,
  amount       numeric(12, 2) generated always as (quantity * price) stored,
  primary key (order_id, placed_at, line_no),
  foreign key (order_id, placed_at) references shop.orders on update cascade on delete cascade
);
create index on shop.order_line (product_code);

create table shop.payment (
  id        uuid primary key default gen_random_uuid(),
  number    bigint generated always as identity unique,
  order_id  bigint not null,
  placed_at timestamptz not null,
  method    shop.payment_method not null,
  amount    numeric(12, 2) not null,
  receipt   bytea,
  paid_at   timestamptz not null default now(),
  foreign key (order_id, placed_at) references shop.orders on update cascade on delete cascade
);
create index on shop.payment (order_id, placed_at);

create table shop.refund (
  payment_id uuid primary key references shop.payment on delete cascade,
  amount     numeric(12, 2) not null,
  reason     text
);

create table shop.review (
  customer_id  bigint references shop.customer on update cascade on delete cascade,
  product_code text references shop.product on update cascade on delete cascade,
  rating       smallint not null check (rating between 1 and 5),
  body         text,
  reading_time interval,
  written_on   date not null default current_date,
  primary key (customer_id, product_code)
);
create index on shop.review (product_code);

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

create function shop.touch() returns trigger language plpgsql as $$
begin
  new.updated_at := clock_timestamp();
  return new;
end $$;
create trigger touch before update on shop.customer for each row execute function shop.touch();
create trigger touch before update on shop.product for each row execute function shop.touch();

create function audit.note() returns trigger language plpgsql as $$
begin
  insert into audit.entry (action, subject, detail)
  values (lower(tg_op), 'customer ' || old.id,
          case tg_op when 'UPDATE' then jsonb_build_object('was', old.email, 'is', new.email) end);
  return null;
end $$;
create trigger note after update of id, email or delete on shop.customer for each row execute function audit.note();
