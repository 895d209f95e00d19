-- Ten rows, updated for ever: every client waits for the others, and every key changes again and again.
\set id random(1, 10)
update hot set value = value + 1 where id = :id;
