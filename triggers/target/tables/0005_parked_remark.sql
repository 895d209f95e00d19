-- What is dropped to be set aside loses its comment.
alter table ibex.parked add column remark text;  -- the statement that puts the comment back; null without one
