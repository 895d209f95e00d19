/**
 * Random DDL and DML by the application on a captured database, and on a twin without capture: a statement that fails
 * on one fails in the same way on the other. What the application does to its schema is done on the target too, and
 * every table then becomes equal, or is named with the reason why it cannot be.
 */
import fc from 'fast-check';
import type pg from 'pg';
import { expect, test } from 'vitest';
import type { TableStatus } from '../../src/observe/status.ts';
import { randomFrom } from '../support/random.ts';
import { type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { type RunningSync, startSync } from '../support/sync.ts';
import { type Action, actions, stepOf } from './application.ts';
import { type Relation, readCatalog } from './catalog.ts';
import { compareRows } from './equal.ts';
import type { Step } from './picks.ts';
import { patience, runSeeds } from './seeds.ts';
import { Twins } from './twins.ts';

const servers = await useServers();

/** The application starts with tables of each kind. */
const SCHEMA = `
  create schema other;
  create function public.nothing() returns trigger language plpgsql as $$ begin return null; end $$;
  create table a (id int primary key, v text, n int, w numeric, at timestamptz);
  create table b (x int, y varchar(10), v text, n int8, primary key (x, y));
  create table keyless (v text, n int, ok bool);
  create table indexed (id int not null unique, v text, n int);
  create table numbered (id int generated always as identity primary key, v text, n int);
  create table child (id int primary key, parent int references a on delete cascade on update cascade, v text);
  create table list (k int, v text, n int, primary key (k)) partition by list (k);
  create table list_1 partition of list for values in (0, 1, 2);
  create table list_2 partition of list for values in (3, 4);
  create table parts (k int, id int, v text, n int, primary key (id, k)) partition by hash (k);
  create table parts_0 partition of parts for values with (modulus 2, remainder 0);
  create table parts_1 partition of parts for values with (modulus 2, remainder 1);
  create table "Quoted Name" (id int primary key, "Some Value" text, n int, double int generated always as (n * 2) stored);
  create table range (k int, v text, n int, primary key (k)) partition by range (k);
  create table range_low partition of range for values from (minvalue) to (0);
  create table range_rest partition of range default;`;

/** Seeds that the test suite runs. */
const SHORT = 5;

interface State {
  readonly table: string;
  readonly is: 'equal' | 'held' | 'new' | 'unsettled';
  readonly why: string;
}

type Transaction = readonly Action[];

interface Story {
  readonly replica: boolean;
  readonly rounds: readonly (readonly Transaction[])[];
}

const stories: fc.Arbitrary<Story> = fc.record({
  replica: fc.boolean(),
  rounds: fc.array(
    fc.array(fc.array(actions, { minLength: 1, maxLength: 4, size: 'max' }), {
      minLength: 6,
      maxLength: 16,
      size: 'max',
    }),
    { minLength: 3, maxLength: 3 },
  ),
});

/** What became of the tables of all rounds: a test in which most are held would show little. */
const tally = { equal: 0, held: 0, new: 0, reasons: new Set<string>() };

test('an application that changes its schema notices nothing, and its tables are equal or held by name', {
  timeout: patience(SHORT),
}, async () => {
  const failures = await runSeeds({ name: 'undisturbed', short: SHORT, values: stories, check: play });
  const { equal, held, reasons } = tally;
  console.log(`tables at the end of rounds: ${equal} equal, ${held} held, ${tally.new} new ones not carried`);
  if (process.env.PROPERTY_REASONS) console.log([...reasons].join('\n'));
  expect(failures).toEqual([]);
  expect(held).toBeLessThan(equal);
});

async function play({ replica, rounds }: Story): Promise<string | null> {
  const databases = await freshDatabases(servers, { replica });
  const twin = await freshDatabases(servers);
  const stage = new Stage(databases, twin.source);
  try {
    for (const side of [databases.source, databases.target, twin.source]) await side.query(SCHEMA);
    await stage.start();
    for (const round of rounds) await stage.round(round);
    return null;
  } catch (error) {
    return [(error as Error).message, `replica ${replica}`, ...stage.transcript].join('\n');
  } finally {
    await stage.stop();
    await databases.dropAll();
    await twin.dropAll();
  }
}

class Stage {
  readonly #databases: Databases;
  readonly #twin: pg.Client;
  readonly #twins: Twins;
  #sync: RunningSync | undefined;
  /** Tables that were there when the sync started. */
  #original: readonly number[] = [];

  constructor(databases: Databases, twin: pg.Client) {
    this.#databases = databases;
    this.#twin = twin;
    this.#twins = new Twins(databases.source, twin);
  }

  get transcript(): readonly string[] {
    return this.#twins.transcript;
  }

  async start(): Promise<void> {
    const { rows } = await this.#databases.source.query<{ oid: number }>(
      `select oid::int8::int4 from pg_class where relkind in ('r', 'p') and not relispartition
          and relnamespace in ('public'::regnamespace, 'other'::regnamespace)`,
    );
    this.#original = rows.map(({ oid }) => oid);
    this.#sync = startSync(this.#databases);
    await this.#sync.caughtUp();
  }

  async stop(): Promise<void> {
    await this.#sync?.stop().catch(() => undefined);
  }

  async round(transactions: readonly Transaction[]): Promise<void> {
    for (const transaction of transactions) {
      const steps = await this.#transact(transaction);
      await this.#followOnTarget(steps.filter((step) => step.ddl));
    }
    this.#twins.transcript.push('-- pause');
    await this.#settled();
  }

  async #transact(actions: Transaction): Promise<Step[]> {
    const rest = [...actions];
    const relations = await readCatalog(this.#twin);
    const favourite = relations[(actions[0]?.dice ?? 0) % relations.length]?.oid ?? 0;
    const next = async (): Promise<Step | null> => {
      for (let action = rest.shift(); action !== undefined; action = rest.shift()) {
        const step = await this.#stepOf(action, favourite);
        if (step === null || step.alone) continue;
        return step;
      }
      return null;
    };
    const first = actions.length === 1 ? await this.#stepOf(actions[0] as Action, favourite) : null;
    return first?.alone ? this.#twins.alone(first) : this.#twins.transaction(next);
  }

  async #stepOf(action: Action, favourite: number): Promise<Step | null> {
    const random = randomFrom(action.dice);
    const relations = await readCatalog(this.#twin);
    return stepOf(action, { relations, favourite, dice: { roll: (sides) => Math.floor(random() * sides) } });
  }

  /** What the target refuses stays as it is there: its tables are to be held, by name. */
  async #followOnTarget(steps: readonly Step[]): Promise<void> {
    for (const { sql } of steps) {
      const failed = await this.#databases.target.query(sql).then(
        () => null,
        (error: pg.DatabaseError) => `${error.code} ${error.message}`,
      );
      if (failed !== null) this.#twins.transcript.push(`-- the target: ${failed}`);
    }
  }

  async #settled(): Promise<void> {
    let states: State[] = [];
    const unsettled = () => states.filter(({ is }) => is === 'unsettled');
    await waitFor(
      async () => {
        states = await this.#states();
        return unsettled().length === 0;
      },
      { what: 'every table' },
    ).catch((error) => {
      const lines = unsettled().map(({ table, why }) => `${table}: ${why}`);
      throw new Error([`neither equal nor held: ${lines.join('; ')}`, String(error.cause ?? '')].join('\n'));
    });
    for (const { is, why } of states) {
      if (is !== 'unsettled') tally[is]++;
      if (is === 'held') tally.reasons.add(why);
    }
  }

  async #states(): Promise<State[]> {
    const { source, target } = this.#databases;
    const [here, there] = [await readCatalog(source), await readCatalog(target)];
    const { tables } = await (this.#sync as RunningSync).status();
    const counterparts = new Map(there.map((table) => [table.sql, table]));
    const roots = here.filter(({ partitionOf }) => partitionOf === null);
    const states: State[] = [];
    for (const table of roots) {
      const status = tables.find((one) => one.table === `${table.schema}.${table.name}`);
      states.push({ table: table.sql, ...(await this.#stateOf(table, counterparts.get(table.sql), status)) });
    }
    return states;
  }

  async #stateOf(
    table: Relation,
    counterpart: Relation | undefined,
    status: TableStatus | undefined,
  ): Promise<Omit<State, 'table'>> {
    const unsettled = (why: string) => ({ is: 'unsettled' as const, why });
    const { sourceAdmin, targetAdmin } = this.#databases;
    if (status === undefined) {
      return (await this.#isNew(table)) ? { is: 'new', why: '' } : unsettled('status does not know it');
    }
    // Waiting for a lock passes by itself.
    if (status.reason?.startsWith('waiting')) return unsettled(status.reason);
    if (status.reason !== null) return { is: 'held', why: status.reason };
    if (status.state !== 'streaming' || status.pending > 0) return unsettled(`it is ${status.state}`);
    if (counterpart === undefined) return unsettled('it streams to no table');
    const columns = table.columns.filter((column) => !column.generated).map(({ name }) => name);
    const only = table.partitioned ? table.sql : `only ${table.sql}`;
    const there = counterpart.partitioned ? counterpart.sql : `only ${counterpart.sql}`;
    const difference = await compareRows([sourceAdmin, only], [targetAdmin, there], columns);
    return difference === null ? { is: 'equal', why: '' } : unsettled(difference);
  }

  /** A running daemon adopts no tables. */
  async #isNew({ sql }: Relation): Promise<boolean> {
    const { rows } = await this.#databases.source.query<{ oid: number }>(
      'select $1::regclass::oid::int8::int4 as oid',
      [sql],
    );
    return !this.#original.includes(rows[0]?.oid as number);
  }
}
