-- A small column beside 20 kB out of line, which stay as they are; one update in ten writes those as well.
\set id random(1, :rows)
\set whole random(1, 10)
\if :whole = 1
  update wide set counter = counter + 1, body = reverse(body) where id = :id;
\else
  update wide set counter = counter + 1 where id = :id;
\endif
