-- Function: ibex.share(root oid) returns void
-- Purpose:  lets every role that may read a captured table read its delta tables and our registry too: whoever
--           could pg_dump this database before must be able to after, and a dump locks every table it finds. Who may not
--           read the table any more may not read its deltas either.
-- Writes:   privileges on the schema ibex and its tables. What they show are keys of rows that the role can read.
-- Why:      Row level security hides rows of a table from some of its readers. Its delta tables have it too, without
--           any policy: those readers can lock and dump them, and see nothing. It is switched on when a delta table is
--           made; later that would lock a table that every write needs, so one without it is not shared.
create or replace function ibex.share(root oid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  delta record;
  reader text;
begin
  for reader in select * from ibex.readers(root) loop
    execute format('grant usage on schema ibex to %s', reader);
    execute (select format('grant select on %s to %s', string_agg(format('ibex.%I', c.relname), ', '), reader)
               from pg_class c
              where c.relnamespace = 'ibex'::regnamespace and c.relkind = 'r' and c.relname !~ '^delta_[0-9]+_[0-9]+$');
  end loop;
  for delta in
    select c.oid, c.relname, c.relrowsecurity or not r.relrowsecurity as may_be_shared
      from ibex.generation g
      join pg_class c on c.oid = to_regclass(format('ibex.delta_%s_%s', root, g.n))
      join pg_class r on r.oid = root
     where g.relid = root
  loop
    for reader in select * from ibex.readers(delta.oid)
                  except select * from ibex.readers(root) where delta.may_be_shared loop
      execute format('revoke select on ibex.%I from %s', delta.relname, reader);
    end loop;
    for reader in select * from ibex.readers(root) where delta.may_be_shared loop
      execute format('grant select on ibex.%I to %s', delta.relname, reader);
    end loop;
  end loop;
end
$$;

-- Function: ibex.readers(relation oid) returns setof text
-- Purpose:  the roles that were granted to read a relation, beside its owner, as GRANT takes them.
-- Language: PL/pgSQL, see ibex.choose_key.
create or replace function ibex.readers(relation oid) returns setof text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  select distinct case a.grantee when 0 then 'public' else quote_ident(r.rolname) end
    from pg_class c
    cross join lateral aclexplode(c.relacl) a
    left join pg_roles r on r.oid = a.grantee
   where c.oid = relation and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
     and (a.grantee = 0 or r.rolname is not null);
end
$$;
