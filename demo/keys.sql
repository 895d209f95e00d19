-- Completes the tables of tables.sql, after the rows: foreign keys, the indexes they want, triggers. Row by row
-- the foreign keys would take most of the time.

alter table shop.address add foreign key (customer_id) references shop.customer on delete cascade on update cascade;
alter table shop.category add foreign key (parent_id) references shop.category on delete cascade;
alter table shop.product add foreign key (category_id) references shop.category on delete set null;
alter table shop.stock add foreign key (product_code) references shop.product on update cascade on delete cascade;
alter table shop.orders add foreign key (customer_id) references shop.customer on delete cascade on update cascade;
alter table shop.order_line add foreign key (product_code) references shop.product on update cascade;
alter table shop.order_line add foreign key (order_id, placed_at) references shop.orders on update cascade on delete cascade;
alter table shop.payment add foreign key (order_id, placed_at) references shop.orders on update cascade on delete cascade;
alter table shop.refund add foreign key (payment_id) references shop.payment on delete cascade;
alter table shop.review add foreign key (customer_id) references shop.customer on update cascade on delete cascade;
alter table shop.review add foreign key (product_code) references shop.product on update cascade on delete cascade;

create index on shop.address (customer_id);
create index on shop.category (parent_id);
create index on shop.product (category_id);
create index on shop.orders (customer_id);
create index on shop.order_line (product_code);
create index on shop.payment (order_id, placed_at);
create index on shop.review (product_code);

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
