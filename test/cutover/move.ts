/** What the tests of cutover and rollback share: a shop that is in step, moves of it, and what holds after each. */
import type pg from 'pg';
import { expect } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import type { MoveEvent, MoveOptions, MoveResult } from '../../src/cutover/move/move.ts';
import { abandon, move } from '../../src/cutover/move/procedure.ts';
import type { Pair } from '../support/pair.ts';
import { compareTables, waitFor } from '../support/servers.ts';

export const SCHEMA = `
  create schema shop;
  create table goods (id serial primary key, name text not null unique, stock int not null default 0);
  create table shop.orders (id int generated always as identity primary key, good int references goods, at timestamptz default now());
  create table events (id bigserial, kind text, primary key (id, kind)) partition by list (kind);
  create table events_a partition of events for values in ('a');
  create table events_b partition of events for values in ('b');
  create table bare (note text);
  create sequence tickets increment by -1;
  create table audit (id serial primary key, what text);
  create function audited() returns trigger language plpgsql as
    'begin insert into public.audit (what) values (tg_op); return null; end';
  create trigger audited after insert on goods for each row execute function audited()`;

export const ROWS = `
  insert into goods (name) select 'good ' || i from generate_series(1, 20) i;
  insert into shop.orders (good) select i from generate_series(1, 10) i;
  insert into events (kind) select case i % 2 when 0 then 'a' else 'b' end from generate_series(1, 20) i;
  insert into bare values ('one'), ('two'), ('two');
  select nextval('tickets')`;

/** Some writes of every kind. */
export async function write(client: pg.Client): Promise<void> {
  await client.query(`
    insert into goods (name, stock) values ('new ' || clock_timestamp(), 1);
    update goods set stock = stock + 1 where id <= 5;
    delete from shop.orders where id = (select min(id) from shop.orders);
    insert into shop.orders (good) values (1), (2);
    update events set kind = 'b' where id = (select min(id) from events where kind = 'a');
    insert into events (kind) values ('a'), ('b');
    insert into bare values ('three'); delete from bare where note = 'two';
    select nextval('tickets')`);
}

export interface Moved extends MoveResult {
  readonly events: readonly MoveEvent[];
}

export type Wish = Partial<Omit<MoveOptions, 'sync' | 'to' | 'say'>>;

export function options(
  pair: Pair,
  to: 'source' | 'target',
  wish: Wish = {},
): MoveOptions & { events: MoveEvent[] } {
  const { sourceUrl, targetUrl } = pair.databases;
  const flags = { source: sourceUrl, target: targetUrl, logLevel: 'error' };
  const [sync] = loadConfig({ flags, env: {}, cwd: '/' }).syncs;
  if (sync === undefined) throw new Error('there is one sync');
  const events: MoveEvent[] = [];
  return {
    sync,
    to,
    dryRun: false,
    scratch: null,
    graceMs: 30_000,
    terminate: false,
    unverified: true,
    hooks: {},
    jobs: 1,
    lockTimeoutMs: 100,
    armTimeoutMs: 30_000,
    timeoutMs: 60_000,
    signal: new AbortController().signal,
    say: (event) => void events.push(event),
    events,
    ...wish,
  };
}

async function run(
  pair: Pair,
  to: 'source' | 'target',
  wish: Wish | undefined,
  what: typeof move,
): Promise<Moved> {
  const given = options(pair, to, wish);
  return { ...(await what(given)), events: given.events };
}

export const cutover = (pair: Pair, wish?: Wish) => run(pair, 'target', wish, move);
export const rollback = (pair: Pair, wish?: Wish) => run(pair, 'source', wish, move);
export const abort = (pair: Pair, to: 'source' | 'target') => run(pair, to, {}, abandon);

export const FENCED = { code: '25006' };

/** Expects that this side takes writes, and the other one refuses them. */
export async function expectLive(pair: Pair, live: 'source' | 'target'): Promise<void> {
  const [here, there] = live === 'source' ? [pair.source, pair.target] : [pair.target, pair.source];
  await write(here);
  await expect(write(there)).rejects.toMatchObject(FENCED);
}

/** Waits until both sides are equal, sequences left aside. */
export async function expectSame(pair: Pair): Promise<void> {
  let differences: string[] = [];
  await waitFor(
    async () => {
      differences = await compareTables(pair.source, pair.target);
      return differences.length === 0;
    },
    { what: 'both sides to be equal' },
  ).catch((error) => {
    throw new Error([error.message, ...differences].join('\n'));
  });
}
