#!/bin/sh
# A hook for `ibex cutover` and `ibex rollback` where the application connects by way of PgBouncer: it waits there for as long
# as nobody may write, meets no error, and goes on where the database has gone. See docs/hooks.md.
#
#   PGBOUNCER_ADMIN      how psql connects to the console, such as "host=127.0.0.1 port=6432 user=admin dbname=pgbouncer"
#   PGBOUNCER_DATABASE   the name that the application connects to there
#   PGBOUNCER_DATABASES  the file with the section [databases], which pgbouncer.ini takes in with %include
set -eu

console() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$PGBOUNCER_ADMIN" --command "$1"
}

lead_to() {
  printf '[databases]\n%s = host=%s port=%s dbname=%s\n' "$PGBOUNCER_DATABASE" "$1" "$2" "$3" >"$PGBOUNCER_DATABASES"
}

case $IBEX_PHASE in
  before_fence)
    console "PAUSE $PGBOUNCER_DATABASE"
    ;;
  after_switch)
    case $IBEX_NEW_SIDE in
      source) lead_to "$IBEX_SOURCE_HOST" "$IBEX_SOURCE_PORT" "$IBEX_SOURCE_DATABASE" ;;
      target) lead_to "$IBEX_TARGET_HOST" "$IBEX_TARGET_PORT" "$IBEX_TARGET_DATABASE" ;;
    esac
    console RELOAD
    console "RESUME $PGBOUNCER_DATABASE"
    ;;
  on_abort)
    # It is not paused when that was what failed.
    console "RESUME $PGBOUNCER_DATABASE" || true
    ;;
esac
