/** How much there is to copy, how fast it can go, how fast it changes, and what room it needs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type TableName, tableLabel } from '../../core/plan.ts';
import { bytesText, countText, timeText } from '../../observe/units.ts';
import type { Piped } from '../../postgres/pipe.ts';
import type { Session } from '../../postgres/session.ts';
import { type Finding, info } from './finding.ts';
import { tryOut } from './patient.ts';

const SIZES = `
  select w.schema, w.name, sum(pg_table_size(m.relid))::float8 as bytes,
         sum(pg_total_relation_size(m.relid))::float8 as whole
    from json_to_recordset($1) w(schema text, name text)
    join pg_namespace n on n.nspname = w.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = w.name
    cross join lateral (select c.oid as relid where c.relkind = 'r'
                        union all select p.relid from pg_partition_tree(c.oid) p where p.isleaf and c.relkind = 'p') m
   group by 1, 2 order by 3 desc`;

interface Size extends TableName {
  /** Of the rows, and with the indexes. */
  readonly bytes: number;
  readonly whole: number;
}

/** How many of the largest tables are named. */
const LARGEST = 3;

/** ACCESS SHARE on each table for a moment, as any query takes. `trial`: whether test rows may be sent to the target. */
export async function probeSizes(
  source: Session,
  target: Session,
  tables: readonly TableName[],
  trial: boolean,
): Promise<Finding[]> {
  const names = JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
  const sizes = await tryOut(source, () => source.rows<Size>(SIZES, [names]));
  const sum = (part: 'bytes' | 'whole') => sizes.reduce((total, size) => total + size[part], 0);
  const largest = sizes.slice(0, LARGEST).map((size) => `${tableLabel(size)} ${bytesText(size.bytes)}`);
  const speed = trial ? `; ${speedText(sum('bytes'), await measureRate(source, target))}` : '';
  const { bytes: used } = await target.row<{ bytes: number }>(
    'select pg_database_size(current_database())::float8 as bytes',
  );
  return [
    info(
      'size',
      'source',
      `${sizes.length} tables of ${bytesText(sum('bytes'))}, ${bytesText(sum('whole'))} with indexes ` +
        `(${largest.join(', ') || 'none'})${speed}`,
    ),
    info(
      'disk',
      'target',
      `the target holds ${bytesText(used)} and will hold up to ${bytesText(sum('whole'))} more; how much is free there ` +
        'no SQL tells without superuser: look at the provider, and leave as much again for building indexes and for WAL',
    ),
  ];
}

function speedText(bytes: number, rate: number): string {
  const atBest = timeText(bytes / rate);
  return `test rows went from server to server at ${bytesText(rate)} a second: one session copies that in ${atBest} at best`;
}

const ROWS = 4_000;
const ROW_BYTES = 1_000;

/** Bytes a second of rows that are made on the source and vanish on the target, by the way that all rows go. */
async function measureRate(source: Session, target: Session): Promise<number> {
  return tryOut(target, async () => {
    await target.run('create temporary table ibex_doctor_rate (v text) on commit drop');
    const began = performance.now();
    const [piped] = await source.pipe(
      [`copy (select repeat('x', ${ROW_BYTES}) from generate_series(1, ${ROWS})) to stdout`],
      target,
      ['copy pg_temp.ibex_doctor_rate from stdin'],
      { throttle: null, signal: new AbortController().signal },
    );
    return ((piped as Piped).bytes / (performance.now() - began)) * 1_000;
  });
}

/** A row of a delta table with a key of eight bytes: header, key, transaction, time, operation. */
const DELTA_BYTES = 64;

const COUNT_CHANGES = `
  select coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::float8 as changes
    from json_to_recordset($1) w(schema text, name text)
    join pg_namespace n on n.nspname = w.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = w.name
    cross join lateral (select c.oid as relid union select p.relid from pg_partition_tree(c.oid) p) m
    join pg_stat_all_tables s on s.relid = m.relid`;

/** Counts the changes of the tables from here on, until it is asked. */
export class ChangeCounter {
  readonly #source: Session;
  readonly #names: string;
  readonly #since: number;
  readonly #before: number;

  private constructor(source: Session, names: string, before: number) {
    this.#source = source;
    this.#names = names;
    this.#since = performance.now();
    this.#before = before;
  }

  static async start(source: Session, tables: readonly TableName[]): Promise<ChangeCounter> {
    const names = JSON.stringify(tables.map(({ schema, name }) => ({ schema, name })));
    return new ChangeCounter(source, names, await countChanges(source, names));
  }

  /** After so many milliseconds at least: servers write these counts down about once a second. */
  async finding(leastMs: number): Promise<Finding> {
    await sleep(Math.max(0, leastMs - (performance.now() - this.#since)));
    const seconds = (performance.now() - this.#since) / 1_000;
    const rate = Math.max(0, (await countChanges(this.#source, this.#names)) - this.#before) / seconds;
    return info(
      'changes',
      'source',
      `${countText(rate)} changed rows a second (over ${seconds.toFixed(1)} s): while the target takes nothing, deltas grow by ` +
        `about ${bytesText(rate * DELTA_BYTES * 3_600)} an hour; --max-delta-bytes bounds them`,
    );
  }
}

async function countChanges(source: Session, names: string): Promise<number> {
  return (await source.row<{ changes: number }>(COUNT_CHANGES, [names])).changes;
}
