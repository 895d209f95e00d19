-- One row of one table of many. The number becomes part of the name, which only the simple protocol allows.
\set n random(1, :tables)
\set id random(1, 100)
update small_:n set value = value + 1 where id = :id;
