#!/bin/sh
# A hook for `ibex cutover` and `ibex rollback` of an application that runs on Heroku: once the application can write to the
# other side, its DATABASE_URL leads there, and Heroku starts its dynos anew. See docs/hooks.md.
#
#   HEROKU_APP        the application
#   HEROKU_ADDON      the name of its database there, such as postgresql-round-12345
#   NEW_DATABASE_URL  the URL of the new database, with the application's role and password
set -eu

case $IBEX_PHASE in
  after_switch)
    case $IBEX_NEW_SIDE in
      target)
        # The name OLD_DATABASE keeps the add-on with the application.
        heroku addons:attach "$HEROKU_ADDON" --as OLD_DATABASE --app "$HEROKU_APP" --confirm "$HEROKU_APP"
        heroku addons:detach DATABASE --app "$HEROKU_APP"
        heroku config:set "DATABASE_URL=$NEW_DATABASE_URL" --app "$HEROKU_APP"
        ;;
      source)
        heroku config:unset DATABASE_URL --app "$HEROKU_APP"
        heroku addons:attach "$HEROKU_ADDON" --as DATABASE --app "$HEROKU_APP"
        heroku addons:detach OLD_DATABASE --app "$HEROKU_APP"
        ;;
    esac
    ;;
esac
