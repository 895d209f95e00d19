-- What the user had chosen to carry of a table when it was copied: columns, expressions, rows. Null: all of it as
-- it is. Another choice than the present one means that the table has to be copied again.
alter table ibex.target_table add column choice text;
