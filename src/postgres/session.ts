/**
 * One connection to a server, with everything pinned that would change how values read or what is visible.
 * All other code reaches a database through this class, so that every error carries a kind and a server's name.
 */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type pg from 'pg';
import { concerningTable, IbexError } from '../core/errors.ts';
import { answered, type Connected, connect, end } from './connecting.ts';
import { type CopyIn, type CopyPiece, copyIn, copyOutTogether, type Load, loadTogether } from './copy.ts';
import { serverError, toIbexError } from './errors.ts';
import { type Piped, pipeCopy, type Throttle } from './pipe.ts';
import { sharedBackends } from './pooler.ts';
import { NO_ENCODING, ONLY_IF_DIFFERENT, PIN_SETTINGS, SETTINGS } from './settings.ts';
import type { Peer } from './tls.ts';
import { FailedAt, PreparedStatements, runTogether, type Statement } from './together.ts';

/** Before this version a hashed aggregate cannot go to disk: a backlog of keys would take the server's memory. */
const HASHED_AGGREGATES_SPILL = 130_000;

export interface SessionOptions {
  /** Connection URL; read anew for every session, since providers rotate credentials. */
  readonly url: string;
  /** `application_name`, `ibex:<sync>:<part>`, by which a person finds the session in pg_stat_activity. */
  readonly name: string;
}

/** What a connection shows from this end. */
export interface Motion {
  /** The server's process for it. */
  readonly pid: number;
  /** Something is awaited of the other end: an answer, or that it takes what was sent. */
  readonly awaits: boolean;
  /** Differs once anything was sent or received. */
  readonly mark: string;
}

/** What is done in a transaction, with what its opening gave. */
type Body<T> = (answers: readonly pg.QueryResult[]) => Promise<T>;

/** How long pinning the settings may take on a connection that has just come about. */
const PIN_MS = 15_000;
/** A setting of our own, by which a session behind a pooler knows its backend. */
const MARK = 'ibex.session';
/** A pooler hands the backend of a session that is over to somebody else, and need not clean up itself. */
const CLEAN_UP = 'discard all';
/** SQLSTATE of a setting that nobody has made. */
const NOT_SET = '42704';

/** What `pg` has below its surface. */
interface Driver {
  readonly connection: {
    readonly stream: Socket;
    query(text: string): void;
  };
  readonly readyForQuery: boolean;
}

export class Session {
  /** `host:port/database`, for messages. */
  readonly server: string;
  /** What TLS makes sure of. */
  readonly peer: Peer;
  readonly #client: pg.Client;
  /** Behind a pooler: what the setting `ibex.session` says as long as the backend is ours. */
  readonly #mark: string | null;
  #version = 0;
  /** The server's process for this session. */
  #pid = 0;
  /** Of a COPY that we feed: how much had come before it. Once more has, it is the other end that waits. */
  #feeding: number | null = null;
  /** The transaction that is under way; null while there is none. */
  #transaction: Promise<unknown> | null = null;
  /** Settles once the driver has nothing more to do. */
  #turn: Promise<unknown> = Promise.resolve();
  #broken: IbexError | null = null;
  readonly #prepared = new PreparedStatements();

  private constructor({ client, server, peer, pooled }: Connected) {
    this.#client = client;
    this.server = server;
    this.peer = peer;
    this.#mark = pooled ? randomUUID() : null;
    client.on('error', (error) => {
      this.#broken ??= toIbexError(error, server);
    });
    client.on('end', () => {
      this.#broken ??= new IbexError('connection', `${server}: the connection ended`);
    });
  }

  /** Connects and pins the settings. Errors: kinds `connection`, `authentication`, `unknown_database`, `unsupported`. */
  static async open(options: SessionOptions): Promise<Session> {
    const session = new Session(await connect(options.url, options.name));
    try {
      await answered(session.#pin(), session.server, PIN_MS);
      return session;
    } catch (error) {
      session.abandon();
      throw error;
    }
  }

  async #pin(): Promise<void> {
    await this.run(PIN_SETTINGS, [JSON.stringify(SETTINGS), ONLY_IF_DIFFERENT, NO_ENCODING]);
    const { version, pid } = await this.row<{ version: number; pid: number }>(
      `select current_setting('server_version_num')::int as version, pg_backend_pid() as pid`,
    );
    this.#version = version;
    this.#pid = pid;
    if (version < HASHED_AGGREGATES_SPILL) await this.run('set enable_hashagg = off');
    if (this.#mark !== null) await this.run('select set_config($1, $2, false)', [MARK, this.#mark]);
  }

  /** `server_version_num`, e.g. 180004. */
  get version(): number {
    return this.#version;
  }

  /** A pooler stands before the server. */
  get pooled(): boolean {
    return this.#mark !== null;
  }

  get #stream(): Socket {
    return (this.#client as unknown as Driver).connection.stream;
  }

  /** What the connection shows of itself from here. One that we do not read from at the moment awaits nothing. */
  get motion(): Motion {
    const { readyForQuery } = this.#client as unknown as Driver;
    const stream = this.#stream;
    const isFed = this.#feeding !== null && stream.bytesRead > this.#feeding;
    const awaits = isFed ? stream.writableLength > 0 : !readyForQuery;
    const mark = `${stream.bytesRead} ${stream.bytesWritten} ${stream.writableLength}`;
    const holdsBack =
      stream.readableLength > 0 || (stream.isPaused() && stream.listenerCount('readable') === 0);
    return { pid: this.#pid, awaits: awaits && !holdsBack, mark };
  }

  /** The error that ended the connection, null while it lives. */
  get broken(): IbexError | null {
    return this.#broken;
  }

  async rows<T extends object>(text: string, values: readonly unknown[] = []): Promise<T[]> {
    return (await this.#query(text, values)).rows as T[];
  }

  /** The only row of the result. */
  async row<T extends object>(text: string, values: readonly unknown[] = []): Promise<T> {
    return onlyRow<T>(await this.rows<T>(text, values), text);
  }

  /** As `rows`, of a statement that comes again, word for word: see `Statement`. */
  async prepared<T extends object>(text: string, values: readonly unknown[]): Promise<T[]> {
    const [answer] = await this.together([{ text, values, prepared: true }]);
    return answer?.rows as T[];
  }

  /** The only row of what `prepared` gives. */
  async preparedRow<T extends object>(text: string, values: readonly unknown[]): Promise<T> {
    return onlyRow<T>(await this.prepared<T>(text, values), text);
  }

  /**
   * Runs statements in one go; resolves to what each of them gave. One that fails keeps those behind it from running, and
   * names its table.
   */
  async together(statements: readonly Statement[]): Promise<pg.QueryResult[]> {
    if (statements.length === 0) return [];
    // A pooler need not know of statements that have names.
    const sent = this.pooled ? statements.map((one) => ({ ...one, prepared: false })) : statements;
    const answer = this.#inTurn(() => runTogether(this.#client, sent, this.#prepared));
    return this.#naming(statements, answer);
  }

  /** Runs COPYs of what is there already, and statements after them, in one go; resolves and fails as `together` does. */
  async load(
    loads: readonly (Load & { readonly table: string })[],
    then: readonly string[],
  ): Promise<pg.QueryResult[]> {
    return this.#naming(
      loads,
      this.#inTurn(() => loadTogether(this.#client, loads, then)),
    );
  }

  async #naming<T>(statements: readonly { readonly table?: string }[], answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof FailedAt)) throw this.#explain(error);
      const label = statements[error.place]?.table;
      const explained = this.#explain(error.cause);
      throw label === undefined ? explained : concerningTable(explained, label);
    }
  }

  /** Runs a statement; resolves to the number of rows it touched. */
  async run(text: string, values: readonly unknown[] = []): Promise<number> {
    return (await this.#query(text, values)).rowCount ?? 0;
  }

  /**
   * Runs the body in a transaction; `mode` follows BEGIN. Rolls back when the body throws. What it is to begin with goes
   * with BEGIN in one go, and the body gets what that gave.
   */
  async transaction<T>(mode: string, body: Body<T>, opening: readonly Statement[] = []): Promise<T> {
    const running = this.#transact(mode, body, opening);
    this.#transaction = running;
    try {
      return await running;
    } finally {
      if (this.#transaction === running) this.#transaction = null;
    }
  }

  /**
   * Resolves once no transaction is under way. For whoever has single statements for a session that others use: one that
   * comes into a transaction of theirs fails if that has failed.
   */
  async rest(): Promise<void> {
    while (this.#transaction !== null) await this.#transaction.catch(() => undefined);
  }

  async #transact<T>(mode: string, body: Body<T>, opening: readonly Statement[]): Promise<T> {
    const answers = await this.#begin(mode, opening);
    try {
      const result = await body(answers);
      const { command } = await this.#query('commit', []);
      // COMMIT of a failed transaction succeeds with the tag ROLLBACK.
      if (command !== 'COMMIT')
        throw new IbexError('transient', `${this.server}: the transaction was rolled back`);
      return result;
    } catch (error) {
      if (this.#broken === null) await this.run('rollback').catch(() => this.abandon());
      throw error;
    }
  }

  /** Runs the body in a transaction that is rolled back whatever it comes to. */
  async rehearse<T>(body: () => Promise<T>): Promise<T> {
    await this.#begin('');
    try {
      return await body();
    } finally {
      if (this.#broken === null) await this.run('rollback').catch(() => this.abandon());
    }
  }

  /** Behind a pooler no transaction begins on a backend that is not ours. SHOW takes no snapshot, as SELECT would. */
  async #begin(mode: string, opening: readonly Statement[] = []): Promise<readonly pg.QueryResult[]> {
    if (this.#mark !== null) await this.#beginMarked(mode);
    else if (opening.length === 0) await this.run(`begin ${mode}`);
    const begin = this.#mark === null && opening.length > 0 ? [{ text: `begin ${mode}` }] : [];
    try {
      return (await this.together([...begin, ...opening])).slice(begin.length);
    } catch (error) {
      if (this.#broken === null) await this.run('rollback').catch(() => this.abandon());
      throw error;
    }
  }

  async #beginMarked(mode: string): Promise<void> {
    const answers = await this.#query(`begin ${mode}; show ${MARK}`, null).catch((error) => {
      if (serverError(error)?.state !== NOT_SET) throw error;
    });
    const mark = (answers as unknown as pg.QueryResult[] | undefined)?.[1]?.rows[0]?.[MARK];
    if (mark === this.#mark) return;
    this.abandon();
    throw sharedBackends(this.server);
  }

  /**
   * Several `COPY .. TO STDOUT` in one go, one after the other; one that fails is a `FailedAt` around the error, unless the
   * connection is gone. A reader
   * that stops before the end costs the session: a COPY cannot be left half-way.
   */
  async *copyOutTogether(statements: readonly string[]): AsyncGenerator<CopyPiece> {
    if (this.#broken !== null) throw this.#broken;
    let settled = false;
    try {
      yield* copyOutTogether(this.#client, statements);
      settled = true;
    } catch (error) {
      settled = true;
      if (!(error instanceof FailedAt)) throw this.#explain(error);
      const explained = this.#explain(error.cause);
      // What ended the connection is the fault of none of them.
      throw this.#broken === null ? new FailedAt(error.place, explained) : explained;
    } finally {
      if (!settled) this.abandon();
    }
  }

  copyIn(statement: string): CopyIn {
    const inner = copyIn(this.#client, statement);
    this.#feeding = this.#stream.bytesRead;
    const fed = <T>(ending: () => Promise<T>) => {
      this.#feeding = null;
      return mapped(ending());
    };
    const mapped = async <T>(action: Promise<T>) => {
      try {
        return await action;
      } catch (error) {
        throw this.#explain(error);
      }
    };
    return {
      write: (bytes) => mapped(inner.write(bytes)),
      end: () => fed(() => inner.end()),
      fail: (reason) => fed(() => inner.fail(reason)),
    };
  }

  /**
   * Runs each of `reads`, a COPY TO STDOUT, here and that of `writes`, a COPY FROM STDIN, there, the one into the other.
   * The signal closes both connections, and what was written is undone; it fails with the signal's reason.
   */
  async pipe(
    reads: readonly string[],
    into: Session,
    writes: readonly string[],
    { throttle, signal }: { readonly throttle: Throttle | null; readonly signal: AbortSignal },
  ): Promise<Piped[]> {
    const abandon = () => {
      this.abandon();
      into.abandon();
    };
    signal.throwIfAborted();
    signal.addEventListener('abort', abandon, { once: true });
    try {
      const onSent = () => {
        into.#feeding = null;
      };
      into.#feeding = into.#stream.bytesRead;
      return await pipeCopy(this.#end(reads), into.#end(writes), throttle, onSent);
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      signal.removeEventListener('abort', abandon);
    }
  }

  #end(statements: readonly string[]) {
    return { client: this.#client, statements, explain: (error: unknown) => this.#explain(error) };
  }

  /** What ended the connection is the reason for whatever failed with it. */
  #explain(error: unknown): IbexError {
    return this.#broken ?? toIbexError(error, this.server);
  }

  /** Closes the connection at once, whatever it is doing: that fails with `reason`. */
  abandon(reason?: IbexError): void {
    const { connection, readyForQuery } = this.#client as unknown as Driver;
    // A pooler closes a backend whose client goes away in the middle of something; one that rests, with all that we have
    // set, it may hand to somebody else.
    const rests = this.#mark !== null && this.#broken === null && readyForQuery;
    this.#broken ??= reason ?? new IbexError('connection', `${this.server}: the connection was closed`);
    if (rests) connection.query(CLEAN_UP);
    if (rests) connection.stream.destroySoon();
    else connection.stream.destroy();
  }

  async close(): Promise<void> {
    if (this.#broken !== null) return;
    if (this.#mark !== null) await this.run(CLEAN_UP).catch(() => undefined);
    await end(this.#client);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Several statements in one text go without values only. */
  async #query(text: string, values: readonly unknown[] | null): Promise<pg.QueryResult> {
    const ask = () =>
      values === null ? this.#client.query(text) : this.#client.query(text, values as unknown[]);
    return this.#naming([], this.#inTurn(ask));
  }

  /** For those who share a session: the driver is to be given one thing after the other. */
  #inTurn<T>(ask: () => Promise<T>): Promise<T> {
    const answer = this.#turn.then(() => {
      if (this.#broken !== null) throw this.#broken;
      return ask();
    });
    this.#turn = answer.catch(() => undefined);
    return answer;
  }
}

function onlyRow<T>(rows: readonly T[], text: string): T {
  if (rows.length !== 1) throw new IbexError('internal', `expected one row, got ${rows.length}: ${text}`);
  return rows[0] as T;
}
