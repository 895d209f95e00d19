-- The node to which a sync carries, where another lane brings changes from there: what that one writes here came from that
-- node, and is not carried back to it. Null for a sync that has no such counterpart.
alter table ibex.source_sync add column echo text;
