/**
 * The application: processes of three roles that write without pause, one that keeps transactions open, one that only
 * reads. It shares nothing with Ibex. When a transaction is refused or its connection breaks it looks where it is to
 * connect to, and does the same operation again until it is confirmed.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { OutOfPatience } from '../support/patience.ts';
import { randomFrom } from '../support/random.ts';
import { type Deed, dawdle, deedOf, type Pick } from './deeds.ts';
import { ALL_MONEY, type Drawn, Ledger, MONEY } from './ledger.ts';
import type { Role, Side, Stage } from './stage.ts';

/** Processes of each role. */
const PROCESSES: readonly Role[] = ['web', 'web', 'web', 'worker', 'worker', 'app'];
const PAUSE_MS = 50;
/** Between two transactions that dawdle: without it no table that they write to could ever be armed. */
const BREATH_MS = 500;
/** As long as it goes on trying. */
const PATIENCE_MS = 60_000;
/** So many of what it was promised it looks for on every side that it comes to. */
const LOOKS_BACK = 100;

export class Application {
  readonly ledger = new Ledger();
  readonly #stage: Stage;
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;

  constructor(stage: Stage, seed: number) {
    this.#stage = stage;
    const processes = [
      ...PROCESSES.map((role, i) => {
        const random = randomFrom(seed + i);
        return this.#work(role, random, (pick) => deedOf(role, pick), PAUSE_MS);
      }),
      this.#work('worker', randomFrom(seed + PROCESSES.length), dawdle, BREATH_MS),
      this.#read(),
    ];
    this.#running = Promise.all(processes);
    // Whoever asks for it hears of it by `stop`.
    this.#running.catch(() => this.#stop.abort());
  }

  /** Operations confirmed so far. */
  get done(): number {
    return this.ledger.confirmed.size;
  }

  /** Resolves once each process has its last operation confirmed. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #work(role: Role, random: () => number, next: (pick: Pick) => Deed, pauseMs: number): Promise<void> {
    const pick: Pick = (below) => Math.floor(random() * below);
    const connection = new Connection(this.#stage, role, this.ledger);
    try {
      while (!this.#stop.signal.aborted) {
        await this.#insist(connection, next(pick));
        await sleep(random() * 2 * pauseMs);
      }
    } finally {
      await connection.leave();
    }
  }

  async #insist(connection: Connection, deed: Deed): Promise<void> {
    const id = randomUUID();
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        const drawn = await once(await connection.get(), id, deed);
        this.ledger.confirm(id, connection.side, drawn);
        return;
      } catch (error) {
        this.ledger.refuse(deed.role, connection.side, error);
        await connection.leave();
        if (performance.now() > deadline)
          throw new OutOfPatience(PATIENCE_MS, `a confirmation: ${(error as Error).message}`);
        await sleep(30);
      }
    }
  }

  /** A report that takes long: what it reads has to be right and to stay the same. */
  async #read(): Promise<void> {
    const connection = new Connection(this.#stage, 'web', this.ledger);
    try {
      while (!this.#stop.signal.aborted) {
        const client = await connection.get();
        await client.query('begin isolation level repeatable read read only');
        for (const _ of [1, 2]) {
          const { rows } = await client.query(MONEY);
          if (rows[0].sum !== ALL_MONEY)
            this.ledger.wrong.push(`${rows[0].sum} was seen on the ${connection.side}`);
          await sleep(300);
        }
        await client.query('commit');
      }
    } catch (error) {
      this.ledger.refuse('web', connection.side, error);
    } finally {
      await connection.leave();
    }
  }
}

/** Whoever asks again whether it was done finds it by its id: an answer may get lost on the way. */
async function once(client: pg.Client, id: string, { role, kind, run }: Deed): Promise<Drawn> {
  await client.query('begin');
  const { rowCount } = await client.query(
    'insert into bank.operation (id, role, kind) values ($1, $2, $3) on conflict do nothing',
    [id, role, kind],
  );
  if (rowCount === 0) {
    await client.query('rollback');
    return [];
  }
  await client.query('insert into bank.trail values ($1, $2)', [id, kind]);
  const drawn = await run(client, id);
  await client.query('commit');
  return drawn;
}

/** A connection to the side that is live. */
class Connection {
  side: Side = 'source';
  readonly #stage: Stage;
  readonly #role: Role;
  readonly #ledger: Ledger;
  #client: pg.Client | undefined;

  constructor(stage: Stage, role: Role, ledger: Ledger) {
    this.#stage = stage;
    this.#role = role;
    this.#ledger = ledger;
  }

  async get(): Promise<pg.Client> {
    if (this.#client !== undefined && this.side === this.#stage.live) return this.#client;
    await this.leave();
    this.side = this.#stage.live;
    const promised = this.#ledger.last(LOOKS_BACK);
    this.#client = await this.#stage.connect(this.side, this.#role);
    const { rows } = await this.#client.query(
      'select count(*)::int as there from bank.operation where id = any ($1)',
      [promised],
    );
    const missing = promised.length - rows[0].there;
    if (missing > 0) this.#ledger.wrong.push(`${missing} of the last operations are not on the ${this.side}`);
    return this.#client;
  }

  async leave(): Promise<void> {
    await this.#client?.end().catch(() => undefined);
    this.#client = undefined;
  }
}
