insert into bank.account select i, 'owner ' || i, 1000, 0 from generate_series(1, 200) i;
insert into shop.category select i, nullif(i / 5, 0), 'category ' || i from generate_series(1, 60) i;
insert into shop.product (code, category, price, attributes, tags)
  select (array['p', 'P', 'ä', 'Ö', 'é', 'z-', 'Z '])[1 + i % 7] || i, 1 + i % 60, i % 97 + 0.5,
         jsonb_build_object('size', i % 9, 'name', repeat('n', i % 40)), array['t' || i % 7, null]
    from generate_series(1, 3000) i;
insert into shop.customer (name, email) select 'customer ' || i, 'c' || i || '@example.com' from generate_series(1, 500) i;
insert into shop.orders (operation, customer, valid)
  select md5(i::text)::uuid, 1 + i % 500, tstzrange(now(), now() + interval '1 day') from generate_series(1, 3000) i;
insert into shop.order_line
  select id, line, (select code from shop.product where category = 1 + id % 60 limit 1), 1 + line
    from shop.orders, generate_series(1, 3) line;
insert into shop.document
  select i, 'document ' || i, (select string_agg(md5(i::text || n), '') from generate_series(1, 400) n)
    from generate_series(1, 200) i;
insert into shop.note (tenant, body) select i % 10, 'note ' || i from generate_series(1, 500) i;
insert into jobs.job (ticket, payload) select nextval('jobs.ticket'), '{"a": 1,  "a": 2}' from generate_series(1, 2000) i;
insert into jobs.event (lane, job, body)
  select 1 + i % 4, 1 + i % 2000, decode(md5(i::text), 'hex') from generate_series(1, 5000) i;
insert into "Settings" values ('time', '{"zone": "Europe/Berlin"}'), ('Empty', null);
insert into public.schema_migrations select '2019' || lpad(i::text, 10, '0') from generate_series(1, 300) i;
do $$
begin
  for i in 1 .. 44 loop
    execute format('insert into "Archive".%I select n, %s, repeat(md5(n::text), 3), date ''2010-01-01'' + n
                      from generate_series(1, 200) n', 'Year ' || i, case when i > 1 then 'n' else 'null' end);
  end loop;
end $$;
