-- What the application's two other roles may do.
grant usage on schema bank, shop, jobs to web, worker;
grant select on all tables in schema bank, shop, jobs to web, worker;
grant insert on bank.operation, bank.trail, bank.transfer to web, worker;
grant update on bank.account to web, worker;
grant insert on shop.orders, shop.order_line, shop.note to web;
grant delete on shop.orders to web;
grant usage on all sequences in schema shop to web;
grant insert, update, delete on jobs.job, jobs.event to worker;
grant usage on all sequences in schema jobs to worker;
