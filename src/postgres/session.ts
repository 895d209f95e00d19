/**
 * One connection to a server, with everything pinned that would change how values read or what is visible.
 * All other code reaches a database through this class, so that every error carries a kind and a server's name.
 */
import pg from 'pg';
import { IbexError } from '../core/errors.ts';
import { type CopyIn, copyIn, copyOut } from './copy.ts';
import { toIbexError } from './errors.ts';
import { type Piped, pipeCopy, type Throttle } from './pipe.ts';
import { plainFallback } from './tls.ts';
import { describeServer, parseUrl, type ServerConfig } from './url.ts';

/**
 * Session settings: what changes the text of values, what a statement may see or do, what a provider or role may
 * have set against long statements, and what keeps ours from taking more of a server than one core at a time.
 */
const SETTINGS: Readonly<Record<string, string>> = {
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
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  transaction_timeout: '0',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
};

/** A database without an encoding has bytes for text: they go as they are. */
const NO_ENCODING = 'SQL_ASCII';

/** Setting it to its own value needs a right that most roles lack. */
const ONLY_IF_DIFFERENT = ['session_replication_role'];

const PIN_SETTINGS = `
  select set_config(s.name, case when s.name = 'client_encoding' and current_setting('server_encoding') = $3
                                 then $3 else v.value end, false)
    from json_each_text($1) v(name, value) join pg_settings s on lower(s.name) = lower(v.name)
   where not (s.name = any ($2) and s.setting = v.value)`;

/** Before this version a hashed aggregate cannot go to disk: a backlog of keys would take the server's memory. */
const HASHED_AGGREGATES_SPILL = 130_000;

export interface SessionOptions {
  /** Connection URL; read anew for every session, since providers rotate credentials. */
  readonly url: string;
  /** `application_name`, `ibex:<sync>:<part>`, by which a person finds the session in pg_stat_activity. */
  readonly name: string;
}

/** How many milliseconds a connection attempt may take when the URL does not say. */
const CONNECT_TIMEOUT = 10_000;

export class Session {
  /** `host:port/database`, for messages. */
  readonly server: string;
  readonly #client: pg.Client;
  #version = 0;
  #broken: IbexError | null = null;

  private constructor(client: pg.Client, server: string) {
    this.#client = client;
    this.server = server;
    client.on('error', (error) => {
      this.#broken ??= toIbexError(error, server);
    });
    client.on('end', () => {
      this.#broken ??= new IbexError('connection', `${server}: the connection ended`);
    });
  }

  /** Connects and pins the settings. Errors: kinds `connection`, `authentication`, `unknown_database`. */
  static async open(options: SessionOptions): Promise<Session> {
    const config = parseUrl(options.url);
    try {
      return await Session.#connect(config, options.name);
    } catch (error) {
      const plain = plainFallback(config, error);
      if (plain === undefined) throw toIbexError(error, describeServer(config));
      return Session.#connect(plain, options.name).catch((second) => {
        throw toIbexError(second, describeServer(config));
      });
    }
  }

  static async #connect(config: ServerConfig, name: string): Promise<Session> {
    const client = new pg.Client({
      connectionTimeoutMillis: CONNECT_TIMEOUT,
      ...config,
      application_name: name,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    });
    const session = new Session(client, describeServer(config));
    try {
      await client.connect();
      await client.query(PIN_SETTINGS, [JSON.stringify(SETTINGS), ONLY_IF_DIFFERENT, NO_ENCODING]);
      const { rows } = await client.query(`select current_setting('server_version_num')::int as version`);
      session.#version = rows[0].version;
      if (session.#version < HASHED_AGGREGATES_SPILL) await client.query('set enable_hashagg = off');
      return session;
    } catch (error) {
      await client.end().catch(() => undefined);
      throw error;
    }
  }

  /** `server_version_num`, e.g. 180004. */
  get version(): number {
    return this.#version;
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
    const rows = await this.rows<T>(text, values);
    if (rows.length !== 1) throw new IbexError('internal', `expected one row, got ${rows.length}: ${text}`);
    return rows[0] as T;
  }

  /** Runs a statement; resolves to the number of rows it touched. */
  async run(text: string, values: readonly unknown[] = []): Promise<number> {
    return (await this.#query(text, values)).rowCount ?? 0;
  }

  /** Runs the body in a transaction; `mode` follows BEGIN. Rolls back when the body throws. */
  async transaction<T>(mode: string, body: () => Promise<T>): Promise<T> {
    await this.run(`begin ${mode}`);
    try {
      const result = await body();
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

  /** A reader that stops before the end costs the session: a COPY cannot be left half-way. */
  async *copyOut(statement: string): AsyncGenerator<Buffer> {
    let settled = false;
    try {
      yield* copyOut(this.#client, statement);
      settled = true;
    } catch (error) {
      settled = true;
      throw toIbexError(error, this.server);
    } finally {
      if (!settled) this.abandon();
    }
  }

  copyIn(statement: string): CopyIn {
    const inner = copyIn(this.#client, statement);
    const mapped = async <T>(action: Promise<T>) => {
      try {
        return await action;
      } catch (error) {
        throw toIbexError(error, this.server);
      }
    };
    return {
      write: (bytes) => mapped(inner.write(bytes)),
      end: () => mapped(inner.end()),
      fail: (reason) => mapped(inner.fail(reason)),
    };
  }

  /**
   * Runs `read`, a COPY TO STDOUT, here and `write`, a COPY FROM STDIN, there, the one into the other. The signal closes
   * both connections, and what was written is undone; it fails with the signal's reason.
   */
  async pipe(
    read: string,
    into: Session,
    write: string,
    { throttle, signal }: { readonly throttle: Throttle | null; readonly signal: AbortSignal },
  ): Promise<Piped> {
    const abandon = () => {
      this.abandon();
      into.abandon();
    };
    signal.throwIfAborted();
    signal.addEventListener('abort', abandon, { once: true });
    try {
      return await pipeCopy(this.#end(read), into.#end(write), throttle);
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    } finally {
      signal.removeEventListener('abort', abandon);
    }
  }

  #end(statement: string) {
    const explain = (error: unknown) => toIbexError(error, this.server);
    return { client: this.#client, statement, explain };
  }

  /** Closes the connection at once, whatever it is doing. */
  abandon(): void {
    this.#broken ??= new IbexError('connection', `${this.server}: the connection was closed`);
    (this.#client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
  }

  async close(): Promise<void> {
    if (this.#broken === null) await this.#client.end().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #query(text: string, values: readonly unknown[]): Promise<pg.QueryResult> {
    if (this.#broken !== null) throw this.#broken;
    try {
      return await this.#client.query(text, values as unknown[]);
    } catch (error) {
      throw toIbexError(error, this.server);
    }
  }
}
