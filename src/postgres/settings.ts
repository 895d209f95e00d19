/** What every session pins, and how. Neighbour: session.ts, which does it. */

/**
 * Session settings: what changes the text of values, what a statement may see or do, what a provider or role may
 * have set against long statements, and what keeps ours from taking more of a server than one core at a time.
 */
export const SETTINGS: Readonly<Record<string, string>> = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO, YMD',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  extra_float_digits: '3',
  bytea_output: 'hex',
  lc_monetary: 'C',
  xmloption: 'content',
  standard_conforming_strings: 'on',
  array_nulls: 'on',
  quote_all_identifiers: 'off',
  transform_null_equals: 'off',
  search_path: 'pg_catalog, pg_temp',
  row_security: 'off',
  synchronous_commit: 'on',
  default_transaction_isolation: 'read committed',
  default_transaction_read_only: 'off',
  default_transaction_deferrable: 'off',
  session_replication_role: 'origin',
  statement_timeout: '0',
  lock_timeout: '0',
  // What the network took from us holds no lock and no snapshot for ever: between two statements nothing of ours takes so long.
  idle_in_transaction_session_timeout: '10min',
  idle_session_timeout: '0',
  transaction_timeout: '0',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
};

/** A database without an encoding has bytes for text: they go as they are. */
export const NO_ENCODING = 'SQL_ASCII';

/** Setting it to its own value needs a right that most roles lack. */
export const ONLY_IF_DIFFERENT = ['session_replication_role'];

export const PIN_SETTINGS = `
  select set_config(s.name, case when s.name = 'client_encoding' and current_setting('server_encoding') = $3
                                 then $3 else v.value end, false)
    from json_each_text($1) v(name, value) join pg_settings s on lower(s.name) = lower(v.name)
   where not (s.name = any ($2) and s.setting = v.value)`;
