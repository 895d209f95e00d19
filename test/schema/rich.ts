/** A schema to copy, and how two of them are compared: by other questions than those that are tested. */
import type pg from 'pg';

/** A schema with one of everything that an application may have, for servers from PostgreSQL 12 on. */
export const RICH = `
  set check_function_bodies = off;
  create schema app; create schema "Größe 日本"; comment on schema app is 'it''s "ours"';
  create collation app.plain (locale = 'C');
  create collation app.root (provider = icu, locale = 'und', deterministic = false);
  create type app.mood as enum ('sad', 'o''k', 'happy'); create type app.no_mood as enum ();
  create type app.pair as (a int, "b c" text collate app.plain); comment on column app.pair.a is 'first';
  create domain app.percent as numeric(5,
    2) default 1.50 not null constraint in_range check (value between 0 and 100);
  comment on constraint in_range on domain app.percent is 'of a domain';
  create domain app.code as varchar(10) collate "C" check (value ~ '^[A-Z]+$');
  create type app.span as range (subtype = float8, subtype_diff = float8mi);
  create sequence app.unowned increment -5 minvalue -1000 maxvalue -1 start with -10 cache 3 cycle;
  create sequence app.small as smallint;
  create function app.twice(int default 2) returns int language sql immutable as 'select $1 * 2';
  create function app.stamp() returns trigger language plpgsql as $body$
  begin
    -- Name: not_a_header; Type: TABLE; Schema: app; Owner: -
    new.stamped := now(); return new;
  end $body$;
  create procedure app.tidy() language sql as $$delete from app.log where note = 'it''s; done'$$;
  create function app.odd("the arg" app.mood, variadic rest int[]) returns setof record language sql as 'select 1, 2';
  create aggregate app.total(int) (sfunc = int4pl, stype = int, initcond = '0');
  create aggregate app.every(*) (sfunc = int8inc, stype = int8, initcond = '0');
  create table app.customer (
    id bigint generated always as identity (start with 100 increment by 2) primary key, name text not null,
    mood app.mood default 'happy', share app.percent, "Odd ""name""" text collate app.root default 'a;b',
      code app.code,
    doubled int generated always as (app.twice(length(name))) stored, p app.pair, stamped timestamptz,
    constraint short check (length(name) < 100), tags text[] default '{}'::text[]) with (fillfactor = 70,
      toast.autovacuum_enabled = false);
  comment on table app.customer is E'line one\\nline two'; comment on column app.customer.name is '';
  comment on constraint short on app.customer is 'a check';
  alter table app.customer alter column name set statistics 500, alter column tags set storage external;
  alter table app.customer alter column name set (n_distinct = -0.5);
  create function app.richest(c app.customer) returns bool language sql stable as 'select c.id > 5';
  create table app.circle (id int, of_itself bool);
  create function app.of_circle(app.circle) returns bool language sql immutable as 'select true';
  alter table app.circle alter column of_itself set default app.of_circle(null);
  create table app.log (at timestamptz default clock_timestamp(), note text, seq serial,
    n int default nextval('app.unowned'));
  alter table app.log replica identity full; create unlogged table app.scratch (v jsonb);
  create table app.orders (id int not null, region text not null, customer bigint, total numeric, during tstzrange,
    constraint orders_pk primary key (id, region), constraint positive check (total >= 0)) partition by list (region);
  create table app.orders_eu (total numeric, region text not null, id int not null, customer bigint, during tstzrange,
    constraint positive check (total >= 0));
  alter table app.orders attach partition app.orders_eu for values in ('eu', 'it''s');
  create table app.orders_us partition of app.orders for values in ('us') partition by range (id);
  create table app.orders_us_1 partition of app.orders_us for values from (minvalue) to (100);
  create table app.orders_rest partition of app.orders default;
  create index orders_by_customer on app.orders (customer) include (total) where total > 5;
  create unique index orders_eu_only on app.orders_eu (id desc nulls last);
  alter table app.orders add constraint orders_customer
    foreign key (customer) references app.customer on delete cascade deferrable initially deferred;
  alter index app.orders_eu_customer_total_idx rename to "renamed by ""hand""";
  create table app.parent (id int primary key, v text);
  create table app.child (w int default 7) inherits (app.parent);
  alter table app.child alter column v set not null; alter table app.child alter column v set default 'of the child';
  alter table app.child add constraint w_positive check (w > 0); create table app.typed of app.pair;
  create table app.booking (room int, during tsrange, exclude using gist (during with &&));
  alter table app.booking add constraint late check (room > 0) not valid;
  create table "Größe 日本"."Zeit;raum" ("größe" int primary key, "Zeile.2" text unique, ref int);
  alter table "Größe 日本"."Zeit;raum" add constraint "it's me"
    foreign key (ref) references "Größe 日本"."Zeit;raum" not valid;
  create index "Zeit Index" on "Größe 日本"."Zeit;raum" (lower("Zeile.2") text_pattern_ops);
  comment on index "Größe 日本"."Zeit Index" is 'an index';
  create table app.identified (a int not null, b int); create unique index by_a on app.identified (a);
  alter table app.identified replica identity using index by_a; alter table app.identified cluster on by_a;
  create statistics app.ab (dependencies) on a, b from app.identified;
  create view app.happy with (security_barrier) as select * from app.customer where mood = 'happy';
  create view app.happier as select id, name from app.happy where id > 5 with local check option;
  alter view app.happier alter column name set default 'nobody';
  create view app.grouped as select c.id, c.name, count(*) as n
    from app.customer c join app.orders o on o.customer = c.id group by c.id;
  create view app.above as select * from app.grouped where n > 1; comment on view app.above is 'on a view';
  create materialized view app.stats as select mood, count(*) as n from app.customer group by mood;
  create unique index on app.stats (mood);
  create materialized view app.of_stats as select sum(n) as all_of_them from app.stats;
  create view app.on_stats as select * from app.stats;
  create view app.v1 as select 1 as x; create view app.v2 as select 2 as x; create view app.v3 as select 3 as x;
  create view app.v4 as select 4 as x; create or replace view app.v1 as select x from app.v2;
  create or replace view app.v2 as select x from app.v3; create or replace view app.v3 as select x from app.v4;
  create rule no_deletes as on delete to app.scratch do instead nothing;
  alter table app.scratch disable rule no_deletes;
  create trigger stamping before insert or update of name on app.customer for each row
    when (new.name <> '') execute function app.stamp();
  create trigger sleeping after insert on app.log execute function app.stamp();
  alter table app.log disable trigger sleeping;
  create trigger always_on after insert on app.log execute function app.stamp();
  alter table app.log enable always trigger always_on;
  create constraint trigger late_check after insert on app.identified deferrable initially deferred
    for each row execute function app.stamp();
  create trigger on_all before insert on app.orders_us_1 for each row execute function app.stamp();
  comment on trigger stamping on app.customer is 'a trigger';
  alter table app.customer enable row level security; alter table app.customer force row level security;
  create policy own on app.customer as restrictive for select to public using (name = current_user);
  create policy "all of it" on app.customer with check (id > 0); comment on policy own on app.customer is 'a policy';
  comment on function app.twice(int) is 'a function'; comment on view app.happy is 'a view';`;

const FINGERPRINT = `
  with own as (select oid, nspname from pg_namespace where nspname in ('app', 'Größe 日本'))
  select 'relation ' || concat_ws(' | ', c.oid::regclass, c.relkind, c.relpersistence, c.reloptions, c.relispartition,
           case c.relreplident when 'n' then '' else c.relreplident::text end, c.relrowsecurity,
             c.relforcerowsecurity,
           pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), case when c.relkind in ('v',
             'm') then pg_get_viewdef(c.oid) end,
           (select reloptions from pg_class t where t.oid = c.reltoastrelid), c.reloftype::regtype) as line
    from pg_class c join own on own.oid = c.relnamespace where c.relkind not in ('c', 'i', 'I')
  union all
  select 'column ' || concat_ws(' | ', c.oid::regclass, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod),
    a.attnotnull, a.attidentity, a.attgenerated,
           a.attstorage, a.attoptions,
             (select collname from pg_collation where oid = a.attcollation), a.attislocal, a.attinhcount,
           nullif(to_jsonb(a) ->> 'attstattarget', '-1'), pg_get_expr(f.adbin, f.adrelid))
    from pg_attribute a join pg_class c on c.oid = a.attrelid join own on own.oid = c.relnamespace
    left join pg_attrdef f on f.adrelid = a.attrelid and f.adnum = a.attnum where a.attnum > 0 and not a.attisdropped
  union all
  select 'constraint ' || concat_ws(' | ', k.conrelid::regclass, k.contypid::regtype, k.conname,
    pg_get_constraintdef(k.oid), k.convalidated, k.conislocal, k.coninhcount)
    from pg_constraint k join own on own.oid = k.connamespace where k.contype not in ('n', 't')
  union all
  select 'index ' || concat_ws(' | ', pg_get_indexdef(x.indexrelid), x.indisvalid, x.indisreplident, x.indisclustered,
           (select i.inhparent::regclass from pg_inherits i where i.inhrelid = x.indexrelid))
    from pg_index x join pg_class c on c.oid = x.indexrelid join own on own.oid = c.relnamespace
  union all
  select 'trigger ' || concat_ws(' | ', pg_get_triggerdef(t.oid), t.tgenabled)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid
    join own on own.oid = c.relnamespace where not t.tgisinternal
  union all
  select 'rule ' || concat_ws(' | ', pg_get_ruledef(r.oid), r.ev_enabled)
    from pg_rewrite r join pg_class c on c.oid = r.ev_class join own on own.oid = c.relnamespace
  union all
  select 'policy ' || concat_ws(' | ', schemaname, tablename, policyname, permissive, roles, cmd, qual,
    with_check) from pg_policies
  union all
  select 'sequence ' || concat_ws(' | ', sequencename, data_type, start_value, min_value, max_value, increment_by,
    cycle, cache_size,
           pg_get_userbyid(0), (select concat(d.refobjid::regclass, d.refobjsubid, d.deptype) from pg_depend d
             where d.objid = format('%I.%I', schemaname,
               sequencename)::regclass and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i')))
    from pg_sequences where schemaname in (select nspname from own)
  union all
  select 'function ' || pg_get_functiondef(p.oid)
    from pg_proc p join own on own.oid = p.pronamespace where p.prokind <> 'a'
  union all
  select 'aggregate ' || concat_ws(' | ', g.aggfnoid::regprocedure, g.aggtransfn, g.aggtranstype::regtype,
    g.agginitval)
    from pg_aggregate g join pg_proc p on p.oid = g.aggfnoid join own on own.oid = p.pronamespace
  union all
  select 'type ' || concat_ws(' | ', t.oid::regtype, t.typtype, t.typnotnull, format_type(t.typbasetype,
    t.typtypmod), t.typdefault,
           (select string_agg(e.enumlabel, ',' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
           (select concat_ws(',', r.rngsubtype::regtype, r.rngsubdiff) from pg_range r where r.rngtypid = t.oid))
    from pg_type t join own on own.oid = t.typnamespace where t.typtype in ('e', 'd', 'r', 'c')
  union all
  select 'collation ' || concat_ws(' | ', own.nspname, l.collname, l.collprovider, l.collisdeterministic,
           coalesce(l.collcollate, to_jsonb(l) ->> 'colliculocale', to_jsonb(l) ->> 'colllocale'))
             from pg_collation l join own on own.oid = l.collnamespace
  union all
  select 'statistics ' || pg_get_statisticsobjdef(s.oid) from pg_statistic_ext s
  union all
  select 'comment ' || concat_ws(' | ', i.type, i.identity, d.description) from pg_description d
    cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) i
      where d.objoid >= 16384 and i.schema is distinct from 'ibex'
  order by 1`;

/** All objects of the schemas above, a line each. */
export async function fingerprint(client: pg.Client): Promise<string[]> {
  await client.query('set search_path = pg_catalog');
  const { rows } = await client.query<{ line: string }>(FINGERPRINT);
  await client.query('reset search_path');
  return rows.map(({ line }) => line);
}
