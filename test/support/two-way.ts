/** A sync between two nodes, a and b, over the fresh pair of databases of a test, run by the real daemon in this process. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { pino } from 'pino';
import { afterEach, beforeEach } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { Daemon } from '../../src/engine/daemon.ts';
import { createLog } from '../../src/observe/log.ts';
import { readStatus, type SyncStatus } from '../../src/observe/status.ts';
import { waitForTarget } from '../../src/observe/wait.ts';
import { Session } from '../../src/postgres/session.ts';
import {
  compareTables,
  type DatabaseOptions,
  type Databases,
  freshDatabases,
  type Servers,
  waitFor,
} from './servers.ts';
import { TEST_PAUSES } from './sync.ts';

export const LANES = ['pair', 'pair.back'] as const;

export type Conflict = Record<string, unknown> & { readonly sync: string; readonly winner: string };

export class TwoWay {
  #databases: Databases | undefined;
  #stop: AbortController | undefined;
  #running: Promise<unknown> | undefined;

  get databases(): Databases {
    if (this.#databases === undefined) throw new Error('there are databases inside of a test only');
    return this.#databases;
  }

  get a(): pg.Client {
    return this.databases.source;
  }

  get b(): pg.Client {
    return this.databases.target;
  }

  async open(servers: Servers, options: DatabaseOptions): Promise<void> {
    this.#databases = await freshDatabases(servers, options);
  }

  async close(): Promise<void> {
    try {
      await this.stop();
    } finally {
      await this.#databases?.dropAll();
      this.#databases = undefined;
    }
  }

  async onBoth(sql: string): Promise<void> {
    await this.a.query(sql);
    await this.b.query(sql);
  }

  /** Starts the daemon with this section `conflicts`, and more flags. */
  start(conflicts: object = {}, flags: Record<string, string> = {}, logTo?: (line: string) => void): void {
    const directory = mkdtempSync(join(tmpdir(), 'ibex-two-way-'));
    const { sourceUrl, targetUrl } = this.databases;
    const file = {
      nodes: { a: sourceUrl, b: targetUrl },
      syncs: [{ name: 'pair', between: ['a', 'b'], conflicts }],
    };
    writeFileSync(join(directory, 'ibex.yaml'), JSON.stringify(file, null, 2));
    const level = process.env.TEST_LOG_LEVEL ?? 'error';
    const config = loadConfig({
      flags: { ...flags, logLevel: level, logFormat: 'json' },
      env: {},
      cwd: directory,
    });
    rmSync(directory, { recursive: true });
    const log =
      logTo === undefined
        ? createLog({ level: config.logLevel, format: config.logFormat })
        : pino({ level: 'info' }, { write: logTo });
    this.#stop = new AbortController();
    const daemon = new Daemon({ config, log, until: { kind: 'forever' }, pauses: TEST_PAUSES });
    this.#running = daemon.run(this.#stop.signal);
    this.#running.catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stop?.abort();
    await this.#running;
    this.#stop = undefined;
    this.#running = undefined;
  }

  /** Both sides with these tables, in step. */
  async inStep(
    schema: string,
    rows = '',
    conflicts: object = {},
    flags: Record<string, string> = {},
  ): Promise<void> {
    await this.onBoth(schema);
    if (rows !== '') await this.a.query(rows);
    this.start(conflicts, flags);
    await this.equal();
  }

  /** Runs `work` while no batch is applied on either side: what it writes there is in conflict. */
  async apart(work: () => Promise<void>): Promise<void> {
    const set = (to: string) =>
      Promise.all(
        [this.a, this.b].map((side) =>
          side.query(`insert into ibex.restraint (sync, paused_at) select sync, ${to} from ibex.checkpoint
                      on conflict (sync) do update set paused_at = excluded.paused_at`),
        ),
      );
    await this.settled();
    await set('clock_timestamp()');
    // A lane that was reading ends that batch; what is looked for afterwards is not in it.
    await waitFor(
      async () => (await this.#idle()) && (await this.status()).every((one) => one.paused !== null),
      {
        what: 'both lanes to pause',
      },
    );
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await work();
    await set('null');
  }

  async #idle(): Promise<boolean> {
    return (await this.status()).every(({ lag }) => lag.keys === 0);
  }

  /** Waits until nothing is on its way in either direction. */
  async settled(): Promise<void> {
    for (let quiet = 0; quiet < 2; quiet++) {
      for (const lane of LANES) await this.caughtUp(lane);
      if (!(await this.#idle())) quiet = -1;
    }
  }

  async caughtUp(lane: (typeof LANES)[number]): Promise<void> {
    const failed = this.#running?.then(() => Promise.reject(new Error('the daemon ended')));
    const waiting = this.#with(lane, async (source, target) => {
      const { signal } = new AbortController();
      const options = { sync: lane, filter: () => true, timeoutMs: 60_000, signal };
      await waitFor(async () => (await installed(source)) && (await installed(target)), {
        what: 'the setup',
      });
      return waitForTarget(source, target, options);
    });
    waiting.catch(() => undefined);
    const result = await Promise.race([waiting, ...(failed === undefined ? [] : [failed])]);
    const { missing } = result as Awaited<typeof waiting>;
    if (missing.length > 0) {
      throw new Error(`${lane}: ${missing.map(({ table, reason }) => `${table} (${reason})`).join(', ')}`);
    }
  }

  /** Waits until nothing is on its way, then expects both sides to be equal, and all accounts to add up. */
  async equal(): Promise<void> {
    await this.settled();
    const differences = await compareTables(this.a, this.b);
    if (differences.length > 0) throw new Error(`a and b differ: ${differences.join('; ')}`);
    for (const { sync, tables } of await this.status()) {
      for (const { table, captured, applied, coalesced, resolved, held } of tables) {
        if (captured === applied + coalesced + resolved + held) continue;
        throw new Error(`${sync} ${table}: ${captured} <> ${applied} + ${coalesced} + ${resolved} + ${held}`);
      }
    }
  }

  status(): Promise<SyncStatus[]> {
    return Promise.all(
      LANES.map((lane) => this.#with(lane, (source, target) => readStatus(source, target, lane, () => true))),
    );
  }

  /** The records of both nodes. */
  async conflicts(): Promise<Conflict[]> {
    const read = (side: pg.Client) => side.query<Conflict>('select * from ibex.conflict order by id');
    return [...(await read(this.a)).rows, ...(await read(this.b)).rows];
  }

  async #with<T>(lane: string, work: (source: Session, target: Session) => Promise<T>): Promise<T> {
    const { sourceUrl, targetUrl } = this.databases;
    const urls = lane === 'pair' ? [sourceUrl, targetUrl] : [targetUrl, sourceUrl];
    await using source = await Session.open({ url: urls[0] as string, name: 'test' });
    await using target = await Session.open({ url: urls[1] as string, name: 'test' });
    return await work(source, target);
  }
}

async function installed(session: Session): Promise<boolean> {
  const { there } = await session.row<{ there: boolean }>(
    `select to_regclass('ibex.checkpoint') is not null and to_regclass('ibex.source_sync') is not null as there`,
  );
  return there && (await session.rows('select from ibex.checkpoint')).length > 0;
}

/** Fresh databases before each test of the suite in which this is called; the daemon and they are gone after it. */
export function useTwoWay(servers: Servers, options: DatabaseOptions = {}): TwoWay {
  const twoWay = new TwoWay();
  beforeEach(() => twoWay.open(servers, options));
  afterEach(() => twoWay.close());
  return twoWay;
}
