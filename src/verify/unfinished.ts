/**
 * What a comparison has found equal so far, kept on the target until it comes to its end (`ibex.comparison`): one that was
 * killed is gone on with. Kept are ranges of which every row was found equal, and no other; one counts only while all is the
 * same that it rests on: which databases these are, how the table is carried, and the copy of it on the target.
 */
import { createHash, randomUUID } from 'node:crypto';
import type { SourceIdentity } from '../core/position.ts';
import type { RosterTable } from '../engine/roster.ts';
import { readIdentity } from '../postgres/catalog.ts';
import { migrate } from '../postgres/migrate.ts';
import type { Session } from '../postgres/session.ts';
import type { RangeResult, Sum } from './findings.ts';
import type { Continued } from './report.ts';
import type { Key, Range } from './statements.ts';

/** What was found equal longer ago is compared again. */
const KEPT_HOURS = 24;

export interface Keeping {
  /** What was asked for: only a comparison of the same is gone on with. */
  readonly asked: object;
  /** Forget what an earlier call has kept. */
  readonly restart: boolean;
  /** Told when there is something to go on with. */
  readonly onContinued: (continued: Continued) => void;
}

/** How a table is divided, and what is known of its ranges. */
export interface Division {
  readonly id: string;
  readonly relid: number;
  readonly basis: string;
  /** How many ranges there are; of a sample not all of them are listed. */
  readonly all: number;
  readonly ranges: readonly KnownRange[];
}

export interface KnownRange {
  readonly n: number;
  readonly range: Range;
  /** Null: it was not found equal yet. */
  readonly equal: { readonly at: Date; readonly result: RangeResult } | null;
}

export function divisionInto(
  ranges: readonly Range[],
  of: Pick<Division, 'relid' | 'basis' | 'all'>,
): Division {
  return { ...of, id: randomUUID(), ranges: ranges.map((range, n) => ({ n, range, equal: null })) };
}

/** Differs once anything is not as it was that the comparison of a table's rows rests on. */
export function basisOf({ plan, carries }: RosterTable, since: string, recoded: boolean): string {
  return createHash('sha256')
    .update(JSON.stringify([plan, carries, since, recoded]))
    .digest('hex');
}

/** By table: since when it is in step with its lane. As `Standing` has it of one. */
export async function readSince(target: Session, sync: string): Promise<Map<number, string>> {
  const rows = await target.rows<{ relid: string; since: string }>(
    'select relid::text, changed_at::text as since from ibex.target_table where sync = $1',
    [sync],
  );
  return new Map(rows.map(({ relid, since }) => [Number(relid), since]));
}

export class Unfinished {
  readonly #target: Session;
  readonly #id: string;
  readonly #known: ReadonlyMap<number, Division>;
  /** When the first of its calls began. */
  readonly started: Date;

  private constructor(target: Session, id: string, started: Date, known: ReadonlyMap<number, Division>) {
    this.#target = target;
    this.#id = id;
    this.started = started;
    this.#known = known;
  }

  /** Finds the comparison to go on with, or begins one. */
  static async open(
    source: Session,
    target: Session,
    sync: string,
    { asked, restart }: Omit<Keeping, 'onContinued'>,
    now: Date,
  ): Promise<Unfinished> {
    await migrate(target, 'target');
    const what = whatOf(asked, await readIdentity(source), await readIdentity(target));
    await forget(target, sync, restart ? what : null);
    const [last] = await target.rows<{ id: string; started: Date }>(
      `select id, started_at as started from ibex.comparison
        where sync = $1 and what = $2 order by started_at desc limit 1`,
      [sync, what],
    );
    if (last !== undefined)
      return new Unfinished(target, last.id, last.started, await readDivisions(target, last.id));
    const id = randomUUID();
    await target.run('insert into ibex.comparison (id, sync, what, started_at) values ($1, $2, $3, $4)', [
      id,
      sync,
      what,
      now,
    ]);
    return new Unfinished(target, id, now, new Map());
  }

  /** How the table was divided by an earlier call, if it is still what was compared then. */
  find(relid: number, basis: string): Division | undefined {
    const known = this.#known.get(relid);
    return known?.basis === basis ? known : undefined;
  }

  /** Keeps how tables were divided, in the place of what was known of them. */
  async add(divisions: readonly Division[]): Promise<void> {
    await this.#target.transaction('', async () => {
      // Somebody else may have begun anew meanwhile: then nothing is kept.
      const there = await this.#target.rows('select from ibex.comparison where id = $1 for key share', [
        this.#id,
      ]);
      if (there.length === 0) return;
      await this.#target.run(
        'delete from ibex.compared_table where comparison = $1 and relid = any ($2::int8[])',
        [this.#id, divisions.map(({ relid }) => relid)],
      );
      await this.#target.run(
        `insert into ibex.compared_table (id, comparison, relid, basis, ranges)
         select id, $1, relid, basis, "all" from json_to_recordset($2) d(id uuid, relid int8, basis text, "all" int)`,
        [this.#id, JSON.stringify(divisions.map(({ ranges: _, ...rest }) => rest))],
      );
      const ranges = divisions.flatMap(({ id, ranges }) =>
        ranges.map(({ n, range }) => ({ id, n, ...range })),
      );
      await this.#target.run(ADD_RANGES, [JSON.stringify(ranges)]);
    });
  }

  /** Forgets it: it has come to its end. */
  async end(): Promise<void> {
    await this.#target.run('delete from ibex.comparison where id = $1', [this.#id]);
  }
}

const ADD_RANGES = `
  insert into ibex.compared_range (compared, n, lower_bound, upper_bound)
  select id, n, "from", "to" from json_to_recordset($1) r(id uuid, n int, "from" text[], "to" text[])`;

/**
 * Keeps that all rows of a range were found equal. A crash of the server may lose that, and it is compared again: nobody
 * waits for its disk.
 */
export async function keepEqual(
  session: Session,
  division: string,
  n: number,
  result: RangeResult,
): Promise<void> {
  const { source, target, looked, repaired } = result;
  const text = JSON.stringify({ source: sumText(source), target: sumText(target), looked, repaired });
  await session.run(
    `with lazily as (select set_config('synchronous_commit', 'off', true))
     update ibex.compared_range set compared_at = clock_timestamp(), result = $3
       from lazily where compared = $1 and n = $2`,
    [division, n, text],
  );
}

function sumText({ rows, sum }: Sum) {
  return { rows: String(rows), sum: String(sum) };
}

function whatOf(asked: object, source: SourceIdentity, target: SourceIdentity): string {
  return JSON.stringify({ ...asked, source, target });
}

/** Forgets what nobody goes on with any more, and all comparisons of `what`. */
async function forget(target: Session, sync: string, what: string | null): Promise<void> {
  await target.run(
    `delete from ibex.comparison c
      where c.sync = $1 and (c.what = $2
         or c.started_at < clock_timestamp() - $3 * interval '1 hour'
            and not exists (select from ibex.compared_table t join ibex.compared_range r on r.compared = t.id
                             where t.comparison = c.id and r.compared_at > clock_timestamp() - $3 * interval '1 hour'))`,
    [sync, what, KEPT_HOURS],
  );
}

interface KnownRow {
  readonly relid: string;
  readonly id: string;
  readonly basis: string;
  readonly all: number;
  readonly n: number;
  readonly from: Key | null;
  readonly to: Key | null;
  readonly at: Date | null;
  readonly result: Kept | null;
}

interface Kept {
  readonly source: Record<keyof Sum, string>;
  readonly target: Record<keyof Sum, string>;
  readonly looked: number;
  readonly repaired: number;
}

async function readDivisions(target: Session, comparison: string): Promise<Map<number, Division>> {
  const rows = await target.rows<KnownRow>(
    `select t.relid::text, t.id, t.basis, t.ranges as "all", r.n, r.lower_bound as "from", r.upper_bound as "to",
            k.compared_at as at, k.result
       from ibex.compared_table t join ibex.compared_range r on r.compared = t.id
       left join ibex.compared_range k
         on (k.compared, k.n) = (r.compared, r.n) and k.compared_at > clock_timestamp() - $2 * interval '1 hour'
      where t.comparison = $1 order by t.id, r.n`,
    [comparison, KEPT_HOURS],
  );
  const divisions = new Map<number, Division & { ranges: KnownRange[] }>();
  for (const { relid, id, basis, all, n, from, to, at, result } of rows) {
    const division = divisions.get(Number(relid)) ?? { id, relid: Number(relid), basis, all, ranges: [] };
    const equal = at === null || result === null ? null : { at, result: resultOf(result) };
    division.ranges.push({ n, range: { from, to }, equal });
    divisions.set(Number(relid), division);
  }
  return divisions;
}

function resultOf({ source, target, looked, repaired }: Kept): RangeResult {
  return { source: sumOf(source), target: sumOf(target), looked, repaired, counts: {}, rows: [] };
}

function sumOf({ rows, sum }: Record<keyof Sum, string>): Sum {
  return { rows: BigInt(rows), sum: BigInt(sum) };
}
