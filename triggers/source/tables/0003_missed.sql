-- What another sync that carries the same table has recorded as answered since this one looked at it:
--   plan - its columns are others
--   rows - rows came, went or changed without a delta
alter table ibex.source_table add column missed text check (missed in ('plan', 'rows'));
