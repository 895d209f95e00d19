/**
 * Several statements in one go: none of them waits for the answer to the one before it, so all of them together cost one
 * round trip. After one that fails those behind it do not run, as if they had been sent one by one.
 *
 * The driver knows how a statement is sent and its answer read; here is said only what goes out at once, and whose answer
 * is whose.
 */
import type pg from 'pg';
import { driver } from './driver.ts';

/** One of several statements. */
export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  /** It comes again, word for word: the server parses it once for each session, and keeps its plan as it sees fit. */
  readonly prepared?: boolean;
  /** The label of the table whose rows or shape it is about, which its errors name. */
  readonly table?: string;
}

/** A statement as the driver has it; `name`: the server knows it by that from then on. */
interface Named extends Statement {
  readonly name: string | undefined;
}

/** What `pg` calls a query object, and its connection. */
interface DriverQuery {
  submit(connection: Connection): Error | null;
  handleRowDescription(message: object): void;
  handleDataRow(message: object): void;
  handleCommandComplete(message: object, connection: Connection): void;
  handleReadyForQuery(connection: Connection): void;
}

interface Connection {
  readonly stream: { cork(): void; uncork(): void };
  /** Prepared statements that were sent, by their names. */
  readonly submittedNamedStatements: Record<string, string>;
  sync(): void;
  close(what: { readonly type: 'S'; readonly name: string }): void;
}

/** The statement at this place failed; those before it ran, those behind it did not. */
export class FailedAt extends Error {
  readonly place: number;

  constructor(place: number, cause: unknown) {
    super((cause as Error).message, { cause });
    this.place = place;
  }
}

/** Text of prepared statements that a session keeps at most: those that were last used longest ago are let go for others. */
const KEPT_CHARACTERS = 1_000_000;

/** The prepared statements of one session. */
export class PreparedStatements {
  readonly #names = new Map<string, string>();
  readonly #dropped: string[] = [];
  #characters = 0;
  #count = 0;

  /** The name of a statement. One that was let go is never used again. */
  nameOf(text: string): string {
    const known = this.#names.get(text);
    if (known === undefined) this.#characters += text.length;
    const name = known ?? `ibex_${++this.#count}`;
    this.#names.delete(text);
    this.#names.set(text, name);
    for (const oldest of this.#names.keys()) {
      if (this.#characters <= KEPT_CHARACTERS || oldest === text) break;
      this.forget(oldest);
    }
    return name;
  }

  /** Lets go of a statement, which the server may know or not. */
  forget(text: string): void {
    const name = this.#names.get(text);
    if (name === undefined) return;
    this.#names.delete(text);
    this.#characters -= text.length;
    this.#dropped.push(name);
  }

  /** Names that the server need not know any more. */
  takeDropped(): string[] {
    return this.#dropped.splice(0);
  }
}

/** Runs the statements; resolves to what each of them gave. Rejects with `FailedAt`, or with what ended the connection. */
export async function runTogether(
  client: pg.Client,
  statements: readonly Statement[],
  known: PreparedStatements,
): Promise<pg.QueryResult[]> {
  const dropped = known.takeDropped();
  const named = statements.map((statement) => ({
    ...statement,
    name: statement.prepared === true ? known.nameOf(statement.text) : undefined,
  }));
  try {
    return await new Promise<pg.QueryResult[]>((resolve, reject) => {
      const together = new Together(named, dropped, resolve, reject);
      client.query(together as unknown as pg.Submittable);
    });
  } catch (error) {
    // Whether the server has come to know those behind the failure is not said.
    const place = error instanceof FailedAt ? error.place : 0;
    for (const { text, name } of named.slice(place)) if (name !== undefined) known.forget(text);
    throw error;
  }
}

class Together {
  readonly #queries: readonly DriverQuery[];
  readonly #dropped: readonly string[];
  readonly #results: pg.QueryResult[] = [];
  readonly #resolve: (results: pg.QueryResult[]) => void;
  readonly #reject: (error: unknown) => void;
  /** How many have been answered. */
  #answered = 0;

  constructor(
    statements: readonly Named[],
    dropped: readonly string[],
    resolve: (results: pg.QueryResult[]) => void,
    reject: (error: unknown) => void,
  ) {
    this.#dropped = dropped;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#queries = statements.map(({ text, values, name }) => {
      // Also without values: a statement of the simple protocol would be one by itself.
      const config = { text, values: [...(values ?? [])], queryMode: 'extended' };
      return new driver.Query(name === undefined ? config : { ...config, name }, (error, result) => {
        if (error) reject(error);
        else this.#results.push(result as pg.QueryResult);
      }) as unknown as DriverQuery;
    });
  }

  submit(connection: Connection): Error | null {
    // Each query would end with a sync of its own, which would let those behind a failed one run.
    const quiet = Object.create(connection, { sync: { value: () => undefined } }) as Connection;
    connection.stream.cork();
    for (const name of this.#dropped) {
      connection.close({ type: 'S', name });
      delete connection.submittedNamedStatements[name];
    }
    const failure = this.#queries.map((query) => query.submit(quiet)).find((error) => error !== null);
    connection.sync();
    connection.stream.uncork();
    return failure ?? null;
  }

  handleRowDescription(message: object): void {
    this.#queries[this.#answered]?.handleRowDescription(message);
  }

  handleDataRow(message: object): void {
    this.#queries[this.#answered]?.handleDataRow(message);
  }

  handleCommandComplete(message: object, connection: Connection): void {
    this.#queries[this.#answered++]?.handleCommandComplete(message, connection);
  }

  handleReadyForQuery(connection: Connection): void {
    for (const query of this.#queries) query.handleReadyForQuery(connection);
    this.#resolve(this.#results);
  }

  handleError(error: unknown): void {
    this.#reject(new FailedAt(this.#answered, error));
  }
}
