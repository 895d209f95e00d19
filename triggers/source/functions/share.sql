-- Function: ibex.share(root oid) returns void
-- Purpose:  lets every role that may read a captured table read its delta tables and our registry too: whoever
--           could pg_dump this database before must be able to after, and a dump locks every table it finds.
-- Writes:   privileges on the schema ibex and its tables. What they show are keys of rows that the role can read.
create or replace function ibex.share(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  reader text;
  shared text;
begin
  select string_agg(format('ibex.%I', c.relname), ', ') into shared
    from pg_class c
   where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r'
     and (c.relname !~ '^delta_[0-9]+_[0-9]+$' or c.relname ~ ('^delta_' || root || '_[0-9]+$'));
  for reader in
    select distinct case a.grantee when 0 then 'public' else quote_ident(r.rolname) end
      from pg_class c
      cross join lateral aclexplode(c.relacl) a
      left join pg_roles r on r.oid = a.grantee
     where c.oid = root and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
       and (a.grantee = 0 or r.rolname is not null)
  loop
    execute format('grant usage on schema ibex to %s', reader);
    execute format('grant select on %s to %s', shared, reader);
  end loop;
end
$$;
