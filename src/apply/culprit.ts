/**
 * Finds the row about which a merge failed, so that a person is told more than the table: servers name a constraint,
 * and not always the row. Costs a few more tries of the same statements, of a transaction that is lost anyway.
 */
import { IbexError } from '../core/errors.ts';
import { rowLabel, type TablePlan, tableLabel } from '../core/plan.ts';
import { type ServerError, serverError } from '../postgres/errors.ts';
import { ident, tableIdent } from '../postgres/quote.ts';
import type { Session } from '../postgres/session.ts';
import type { ForeignKey } from './foreign-keys.ts';
import * as sql from './statements.ts';
import type { TargetFacts } from './target-table.ts';

/** Tries until it is given up. */
const MOST_TRIES = 100;
/** Violations of which the server says between which values they are. */
const WITH_VALUES = new Set(['23503', '23001', '23505', '23P01']);

/** The error with the key of the row in it, where that can be found out. Needs the savepoint `staged`. */
export async function nameRow(
  error: unknown,
  session: Session,
  tables: readonly SearchedTable[],
  foreignKeys: readonly ForeignKey[],
): Promise<unknown> {
  const server = serverError(error);
  if (!(error instanceof IbexError) || error.table === undefined || server === undefined) return error;
  const table = tables.find(({ plan }) => tableLabel(plan) === error.table);
  let row: string | undefined;
  if (table?.plan.mode === 'key') {
    const keys = foreignKeys.filter(
      (key) =>
        key.name !== server.constraint &&
        [key.child, key.parent].some((end) => tableLabel(end) === error.table),
    );
    row = await new Search(session, table, keys, server).find(0, table.present).catch(() => undefined);
  }
  const where = row ?? (WITH_VALUES.has(server.state) ? server.detail : undefined);
  if (where === undefined) return error;
  return new IbexError(error.kind, `${error.message} (${where})`, {
    hint: error.hint,
    cause: error.cause,
    table: error.table,
  });
}

interface SearchedTable {
  readonly plan: TablePlan;
  readonly facts: TargetFacts;
  readonly present: number;
}

class Search {
  readonly #session: Session;
  readonly #table: SearchedTable;
  /** What would speak about other rows than the one that is looked for. */
  readonly #inTheWay: readonly ForeignKey[];
  readonly #error: ServerError;
  #tries = 0;

  constructor(session: Session, table: SearchedTable, inTheWay: readonly ForeignKey[], error: ServerError) {
    this.#session = session;
    this.#table = table;
    this.#inTheWay = inTheWay;
    this.#error = error;
  }

  /** The row's name, if it is one of `count` present ones from `first` on. */
  async find(first: number, count: number): Promise<string | undefined> {
    const found = count === 0 ? 'fine' : await this.#try(first, count);
    if (found === 'fine' || (count === 1 && found === 'other')) return undefined;
    if (count === 1) return this.#name(first);
    const half = Math.floor(count / 2);
    return (await this.find(first, half)) ?? (await this.find(first + half, count - half));
  }

  /** Writes a part of the rows anew where none of the staged ones is any more. */
  async #try(first: number, count: number): Promise<'fine' | 'same' | 'other'> {
    if (++this.#tries > MOST_TRIES) return 'fine';
    const { plan, facts } = this.#table;
    await this.#session.run('rollback to savepoint staged');
    await this.#session.run('set constraints all immediate');
    for (const key of this.#inTheWay) {
      await this.#session.run(`alter table ${tableIdent(key.relation)} drop constraint ${ident(key.name)}`);
    }
    await this.#session.run(sql.deleteStaged(plan));
    await this.#session.run(sql.keepStaged(plan, first, count));
    try {
      await this.#session.run(sql.insertMissing(plan, facts));
      return 'fine';
    } catch (error) {
      const found = serverError(error);
      const same = found?.state === this.#error.state && found.constraint === this.#error.constraint;
      return same ? 'same' : 'other';
    }
  }

  async #name(at: number): Promise<string | undefined> {
    const { plan } = this.#table;
    await this.#session.run('rollback to savepoint staged');
    const [row] = await this.#session.rows<{ key: string[] }>(sql.readKey(plan, at));
    return row && rowLabel(plan, row.key);
  }
}
