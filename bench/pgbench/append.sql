-- Insert only, as events and journals are written.
\set amount random(-5000, 5000)
insert into append (amount, note) values (:amount, 'one event of many, about as long as this');
