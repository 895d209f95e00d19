/**
 * A running sync between two fresh databases, for each test of a file: what fidelity tests stand on.
 */
import type pg from 'pg';
import { afterEach, beforeEach } from 'vitest';
import {
  compareTables,
  type DatabaseOptions,
  type Databases,
  freshDatabases,
  type Servers,
  waitFor,
} from './servers.ts';
import { expectEqual, onBoth, type RunningSync, type SyncOptions, startSync } from './sync.ts';

/** The two kinds of targets there are, for `describe.each`. */
export const MODES = [
  { mode: 'the role may set session_replication_role', replica: true },
  { mode: 'the role may not set session_replication_role', replica: false },
];

export class Pair {
  #databases: Databases | undefined;
  #sync: RunningSync | undefined;

  get databases(): Databases {
    if (this.#databases === undefined) throw new Error('there are databases inside of a test only');
    return this.#databases;
  }

  /** As the owner of the tables, who is no superuser. */
  get source(): pg.Client {
    return this.databases.source;
  }

  get target(): pg.Client {
    return this.databases.target;
  }

  get sync(): RunningSync {
    if (this.#sync === undefined) throw new Error('the sync was not started');
    return this.#sync;
  }

  async open(servers: Servers, options: DatabaseOptions): Promise<void> {
    this.#databases = await freshDatabases(servers, options);
  }

  async close(): Promise<void> {
    const [sync, databases] = [this.#sync, this.#databases];
    this.#sync = undefined;
    this.#databases = undefined;
    try {
      await sync?.stop();
    } finally {
      await databases?.dropAll();
    }
  }

  /** Starts the daemon on what both sides hold by now. */
  start(options: SyncOptions = {}): void {
    this.#sync = startSync(this.databases, options);
  }

  /** Sets both sides up, fills the source, and returns once the target is in step and equal. */
  async inStep(schema: string, rows = '', options: SyncOptions = {}): Promise<void> {
    await onBoth(this.databases, schema);
    if (rows !== '') await this.source.query(rows);
    this.start(options);
    await this.equal();
  }

  /** Waits until caught up, then expects both sides to be equal in every row, and all accounts to add up. */
  async equal(timeoutMs?: number): Promise<void> {
    await expectEqual(this.databases, this.sync, timeoutMs);
  }

  /** Waits until `status` has nothing to say against the target, to which it may come a moment after the rows. */
  async ready(): Promise<void> {
    let why: readonly string[] = [];
    const isReady = async () => {
      const status = await this.sync.status();
      why = status.why;
      return status.verdict === 'READY';
    };
    await waitFor(isReady, { what: 'the verdict READY' }).catch((error) => {
      throw new Error([error.message, ...why].join('\n'));
    });
  }

  /** Waits until the rows are equal, however often tables are copied again meanwhile. */
  async becomesEqual(tables?: string[]): Promise<void> {
    const differences = () => compareTables(this.source, this.target, tables);
    await waitFor(async () => (await differences()).length === 0, {
      what: 'both sides to be equal',
    }).catch(async (error) => {
      const { why } = await this.sync.status();
      throw new Error([error.message, ...(await differences()), ...why].join('\n'));
    });
  }
}

/** Fresh databases before each test of the suite in which this is called; the daemon and they are gone after it. */
export function usePair(servers: Servers, options: DatabaseOptions = {}): Pair {
  const pair = new Pair();
  beforeEach(() => pair.open(servers, options));
  afterEach(() => pair.close());
  return pair;
}
