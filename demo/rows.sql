-- What the shop of `ibex demo` has in stock and in its books when the move begins: about 300,000 rows. The same
-- every time but for dates, uuids and what hangs on the order of evaluation.

insert into shop.category (id, parent_id, name)
select n, case when n > 10 then (n - 1) / 10 end, 'Category ' || n
  from generate_series(1, 400) n;

insert into shop.customer (email, name, "birthDate", tags, preferences, points, created_at)
select format('customer%s@example.com', n), 'Customer ' || n || case when n % 50 = 0 then E' "the\t50th" Ünal' else '' end,
       case when n % 3 > 0 then date '1950-01-01' + n % 20000 end,
       (array['{}', '{new}', '{loyal,"two words"}', '{NULL,"",x}'])[1 + n % 4]::text[],
       jsonb_build_object('newsletter', n % 2 = 0, 'sizes', jsonb_build_array(n % 7, null, 'M')), n % 1000,
       now() - n * interval '7 minutes'
  from generate_series(1, 20000) n;

insert into shop.address (customer_id, lines, country, location)
select 1 + n % 20000, array['Street ' || n, (10000 + n % 90000) || ' Town'],
       (array['AT', 'FR', 'ES', 'PT'])[1 + n % 4], case when n % 5 > 0 then point(n % 180 - 90, n / 1000.0) end
  from generate_series(1, 30000) n;

insert into shop.product (code, category_id, name, price, weight, attributes, thumbnail)
select 'P' || lpad(n::text, 5, '0'), case when n % 20 > 0 then 1 + n % 400 end, 'Product ' || n,
       (100 + n * 37 % 90000) / 100.0, n / 3.0,
       jsonb_build_object('colour', (array['red', 'green', 'blue'])[1 + n % 3], 'size', jsonb_build_object('cm', n % 200)),
       case when n % 4 = 0 then decode(repeat(md5(n::text), 1 + n % 60), 'hex') end
  from generate_series(1, 5000) n;

insert into shop.stock (product_code, warehouse, on_hand)
select 'P' || lpad(n::text, 5, '0'), w, n % 500 + 100
  from generate_series(1, 5000) n, generate_series(1, 3) w;

insert into shop.orders (placed_at, customer_id, state, total, delivery, note)
select at, 1 + n * 31 % 20000, (enum_range(null::shop.order_state))[1 + n % 4], n % 900,
       case when n % 2 = 0 then tstzrange(at + interval '1 day', at + interval '3 days') end,
       case n % 10 when 0 then repeat('Please ring twice. ', n % 30) when 1 then '' end
  from generate_series(1, 50000) n, lateral (select now() - n * interval '5 minutes' as at) placed;

insert into shop.order_line (order_id, placed_at, line_no, product_code, quantity, price)
select o.id, o.placed_at, l, 'P' || lpad((1 + (o.id * 7 + l * 13) % 5000)::text, 5, '0'), 1 + l % 3, 1 + (o.id + l) % 99
  from shop.orders o, generate_series(1, 3) l;

insert into shop.payment (order_id, placed_at, method, amount, receipt, paid_at)
select o.id, o.placed_at, (enum_range(null::shop.payment_method))[1 + o.id % 3], o.total,
       case when o.id % 8 = 0 then sha256(o.id::text::bytea) end, o.placed_at + interval '1 hour'
  from shop.orders o
 where o.state <> 'placed';

insert into shop.refund (payment_id, amount, reason)
select id, amount / 2, case when number % 3 = 0 then 'broken' end
  from shop.payment
 where number % 10 = 0;

insert into shop.review (customer_id, product_code, rating, body, reading_time)
select 1 + n % 20000, 'P' || lpad((1 + n / 4)::text, 5, '0'), 1 + n % 5,
       case when n % 100 = 0 then repeat('Not as good as it was, but who is? ', 200) else 'Review ' || n end,
       n % 90 * interval '1 second'
  from generate_series(1, 15000) n;

insert into audit.entry (at, action, subject, detail)
select now() - n * interval '1 minute', 'import', 'customer ' || n % 5000, case when n % 3 > 0 then '{"by": "import"}'::jsonb end
  from generate_series(1, 10000) n;

analyze;
