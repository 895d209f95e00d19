-- Prints statements that set every sequence of this database to where it stands, never backwards; run it on the
-- source once writing has stopped, and its output on the target:
--   psql "$IBEX_SOURCE_URL" -Atf docs/sequences.sql | psql "$IBEX_TARGET_URL"
select format(
         'select setval(%1$L, %4$s(%2$s, (select last_value from %3$s)), true) where to_regclass(%1$L) is not null;',
         quoted, last_value, quoted, case when increment_by > 0 then 'greatest' else 'least' end)
  from (select format('%I.%I', schemaname, sequencename) as quoted, last_value, increment_by
          from pg_sequences
         where last_value is not null and schemaname !~ '^(pg_|information_schema$|ibex$)') s;
