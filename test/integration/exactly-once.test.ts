/**
 * What makes a batch happen once: rows and checkpoint in one transaction, the three-way rule, the epoch, and a
 * source whose log is flushed before its position is believed.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Applier } from '../../src/apply/applier.ts';
import { requestCopyOf } from '../../src/apply/state.ts';
import type { BatchHeader, BatchPart } from '../../src/core/batch.ts';
import type { IncomingBatch } from '../../src/core/ports.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { Session } from '../../src/postgres/session.ts';
import { recordBatch } from '../support/recorded.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';

// Real flushing, and a log writer that sleeps: what nobody flushed is lost in a crash.
const servers = await useServers({ fsync: 'on', wal_writer_delay: '10s', synchronous_commit: 'on' });
let databases: Databases;
let sync: RunningSync | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
});

afterEach(async () => {
  await sync?.stop();
  sync = undefined;
  await databases.dropAll();
});

const HISTORY = 'create table account (id int primary key, v int); create table history (id int, v int)';

test('a batch whose checkpoint cannot move leaves no row behind, and is applied once in the end', async () => {
  await onBoth(databases, HISTORY);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  await databases.targetAdmin.query(`
    create sequence public.refused; grant all on sequence public.refused to public;
    create function public.refuse() returns trigger language plpgsql as $$ begin
      if new.position is distinct from old.position then perform nextval('public.refused'); raise exception 'not now' using errcode = '40001'; end if; return new; end $$;
    create trigger refuse before update on ibex.checkpoint for each row execute function public.refuse()`);
  await databases.source.query(
    'insert into account select i, i from generate_series(1, 100) i; insert into history select i, i from generate_series(1, 100) i',
  );
  const tries = async () =>
    Number((await databases.target.query('select last_value from public.refused')).rows[0].last_value);
  await waitFor(async () => (await tries()) > 2, { what: 'the checkpoint to be refused twice' });
  const { rows } = await databases.target.query(
    'select (select count(*) from account)::int as a, (select count(*) from history)::int as h',
  );
  expect(rows[0]).toEqual({ a: 0, h: 0 });
  await databases.targetAdmin.query('drop trigger refuse on ibex.checkpoint');
  await expectEqual(databases, sync);
});

describe('one batch, delivered as queues deliver', () => {
  let parts: readonly BatchPart[];
  let header: BatchHeader;
  let applier: Applier;
  let target: Session;

  const deliver = (overrides: Partial<BatchHeader> = {}): IncomingBatch => ({
    header: { ...header, ...overrides },
    async *parts() {
      yield* parts;
    },
  });

  const historyRows = async () =>
    (await databases.target.query('select count(*)::int as n from history')).rows[0].n;

  beforeEach(async () => {
    await onBoth(databases, HISTORY);
    const first = startSync(databases);
    await expectEqual(databases, first);
    await first.stop();
    await databases.source.query(
      'insert into history select i, i from generate_series(1, 50) i; insert into account values (1, 1)',
    );
    target = await Session.open({ url: databases.targetUrl, name: 'test' });
    applier = new Applier({ session: target, origin: 'source', replica: false, onApplied: () => undefined });
    ({ header, parts } = await recordBatch(databases));
  });

  afterEach(async () => {
    await target.close();
  });

  test('twice: applied once, skipped the second time', async () => {
    await applier.apply(deliver());
    await applier.apply(deliver());
    expect(await historyRows()).toBe(50);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
  });

  test('by a worker whose lane was taken over: refused, nothing written', async () => {
    await databases.targetAdmin.query('update ibex.checkpoint set epoch = epoch + 1');
    await expect(applier.apply(deliver())).rejects.toMatchObject({ kind: 'taken' });
    expect(await historyRows()).toBe(0);
  });

  test('after a batch that never came: a gap, nothing written', async () => {
    await expect(applier.apply(deliver({ from: '3:3:' }))).rejects.toMatchObject({ kind: 'gap' });
    expect(await historyRows()).toBe(0);
  });

  test('read without a table that is in step: a gap, nothing written', async () => {
    const inStep = header.inStep.slice(1);
    await expect(applier.apply(deliver({ inStep }))).rejects.toMatchObject({ kind: 'gap' });
    const joins = header.tables.map((table) => ({ ...table, floor: header.from }));
    const none = { tables: joins, inStep: [] };
    await expect(applier.apply(deliver(none))).rejects.toMatchObject({ kind: 'gap' });
    expect(await historyRows()).toBe(0);
  });

  test('from another database: refused', async () => {
    const other = { ...header.source, system: '1' };
    await expect(applier.apply(deliver({ source: other }))).rejects.toMatchObject({ kind: 'identity' });
    expect(await historyRows()).toBe(0);
  });

  /** What was recorded of one table, as a piece of a large backlog. */
  const pieceOf = (name: string, overrides: Partial<BatchHeader> = {}): IncomingBatch => {
    const index = header.tables.findIndex(({ plan }) => plan.name === name);
    const range = { after: header.from, upto: header.to, generation: 1, first: 0, end: 1 };
    const piece = { n: 1, lower: header.from, plan: 'a plan', ...range };
    return {
      header: { ...header, tables: header.tables.slice(index, index + 1), piece, ...overrides },
      async *parts() {
        for (const part of parts) if (part.table === index) yield { ...part, table: 0 };
      },
    };
  };
  const staged = async () =>
    (await databases.target.query('select n, deltas::int from ibex.piece order by n')).rows;

  test('a piece of a large backlog, twice: staged once, and nothing else written', async () => {
    await applier.apply(pieceOf('history'));
    await applier.apply(pieceOf('history'));
    expect(await staged()).toEqual([{ n: 1, deltas: 50 }]);
    const { rows } = await databases.target.query('select id from ibex.stage');
    const kept = await databases.target.query(`select count(*)::int as n from ibex.stage_${rows[0].id}`);
    expect(kept.rows).toEqual([{ n: 50 }]);
    expect(await historyRows()).toBe(0);
  });

  test('a piece by a worker whose lane was taken over, or for another position: refused, nothing staged', async () => {
    await expect(applier.apply(pieceOf('history', { from: '3:3:' }))).rejects.toMatchObject({ kind: 'gap' });
    await databases.targetAdmin.query('update ibex.checkpoint set epoch = epoch + 1');
    await expect(applier.apply(pieceOf('history'))).rejects.toMatchObject({ kind: 'taken' });
    expect(await staged()).toEqual([]);
  });

  test('a batch that relies on pieces which are not there: a gap, nothing written', async () => {
    await applier.apply(pieceOf('history'));
    const part = { upto: header.to, pieces: 2, lower: header.from, plan: 'a plan' };
    const tables = header.tables.map((table) =>
      table.plan.name === 'history' ? { ...table, staged: part } : table,
    );
    await expect(applier.apply(deliver({ tables }))).rejects.toMatchObject({ kind: 'gap' });
    expect(await historyRows()).toBe(0);
    expect(await staged()).toHaveLength(1);
  });

  test('broken off half-way: nothing written', async () => {
    const broken: IncomingBatch = {
      header,
      async *parts() {
        yield parts[0] as BatchPart;
        throw new Error('cut');
      },
    };
    await expect(applier.apply(broken)).rejects.toThrow();
    await target.close();
    expect(await historyRows()).toBe(0);
  });
});

/** `npm run crashes` has a hundred. */
const CRASHES = Number(process.env.CRASHES ?? 5);

test('a crash of the source takes back nothing that the target has, and its reused transaction ids hide nothing', {
  timeout: 120_000 + CRASHES * 30_000,
}, async () => {
  await onBoth(databases, HISTORY);
  sync = startSync(databases);
  await expectEqual(databases, sync);
  const own = databases.source;
  const arrives = (id: number, what: string) =>
    waitFor(
      async () => (await databases.target.query('select from account where id = $1', [id])).rowCount === 1,
      { what },
    );
  const xid = async () => BigInt((await own.query('select txid_current() as xid')).rows[0].xid);
  let reused = 0;
  for (let round = 1; round <= CRASHES; round++) {
    await own.query('set synchronous_commit = off');
    await own.query('insert into account values ($1, $1)', [round]);
    await arrives(round, 'the row to arrive');
    // Transaction ids that only the memory of the server knows, aborted and committed.
    for (let i = 0; i < 20; i++) await own.query('begin; insert into history values (-1, -1); rollback');
    await own.query('insert into history values ($1, -2)', [round]);
    const last = await xid();
    await crashSource();
    const first = await xid();
    if (first <= last) reused += Number(last - first) + 1;
    const { rowCount } = await own.query('select from account where id = $1', [round]);
    expect(rowCount, 'a phantom on the target').toBe(1);
    await own.query('insert into account values ($1, $1)', [1000 + round]);
    await arrives(1000 + round, 'a row with a reused transaction id to arrive');
  }
  await expectEqual(databases, sync);
  console.log(`${CRASHES} crashes of the source, ${reused} transaction ids given out twice`);
});

/** As `pg_ctl -m immediate` and a start; the connection of the tables' owner is another one then. */
async function crashSource(): Promise<void> {
  const { source, sourceUrl } = databases;
  await servers.source.stop('immediate');
  await servers.source.start();
  await source.end().catch(() => undefined);
  const again = await reconnect(sourceUrl);
  Object.assign(source, { query: again.query.bind(again), end: again.end.bind(again) });
}

/** A trigger on a table of ours on the target waits for advisory locks until they are let go. */
async function gate(on: string, wait: string, ...locks: number[]): Promise<void> {
  await databases.target.query(`
    create function public.gate() returns trigger language plpgsql as $$ begin ${wait} return new; end $$;
    create trigger gate before ${on} for each row execute function public.gate()`);
  for (const lock of locks) await databases.target.query('select pg_advisory_lock($1)', [lock]);
}

const unlock = (lock: number) => databases.target.query('select pg_advisory_unlock($1)', [lock]);

describe('a crash of the source takes back nothing that was copied', () => {
  test.each([
    ['alone', ['account']],
    ['together', ['account', 'history']],
  ])('%s', { timeout: 300_000 }, async (_, tables) => {
    await onBoth(databases, HISTORY);
    await databases.source.query('insert into history values (1, 1)');
    sync = startSync(databases);
    await expectEqual(databases, sync);
    const floors = async () => {
      const { rows } = await databases.sourceAdmin.query(
        'select floor from ibex.source_table where relid = any ($1::regclass[]::oid[])',
        [tables],
      );
      return rows.map(({ floor }) => floor);
    };
    const before = await floors();
    // The row comes, and is not flushed, after the copy has begun and before its chunk is read.
    await gate('insert on ibex.chunk', 'perform pg_advisory_xact_lock(4711);', 4711);
    const target = await Session.open({ url: databases.targetUrl, name: 'test' });
    await target.transaction('', async () => {
      for (const table of tables) await requestCopyOf(target, 'main', `public.${table}`);
    });
    await target.close();
    const haveBegun = async () => !(await floors()).some((floor) => before.includes(floor));
    await waitFor(haveBegun, { what: 'the copies to begin' });
    await databases.source.query('set synchronous_commit = off; insert into account values (1, 1)');
    await unlock(4711);
    await databases.target.query('drop function public.gate cascade');
    const isThere = async () => (await databases.target.query('select from account')).rowCount === 1;
    await waitFor(isThere, { what: 'the row to be copied' });
    const { rows } = await databases.target.query(
      'select (select xmin from account) = (select xmin from history) as together',
    );
    expect(rows).toEqual([{ together: tables.length > 1 }]);
    await crashSource();
    await expectEqual(databases, sync);
  });
});

test('a crash of the source takes back nothing that the first position of a sync has seen', {
  timeout: 300_000,
}, async () => {
  await onBoth(databases, HISTORY);
  const target = await Session.open({ url: databases.targetUrl, name: 'test' });
  await migrate(target, 'target');
  await target.close();
  // First when its epoch begins, and then with the position in hand.
  await gate(
    'update on ibex.checkpoint',
    `if old.position is null then
       perform pg_advisory_xact_lock(case when new.position is null then 4711 else 4712 end);
     end if;`,
    ...[4711, 4712],
  );
  const comesTo = (lock: number) =>
    waitFor(
      async () =>
        (await databases.target.query('select from pg_locks where objid = $1 and not granted', [lock]))
          .rowCount === 1,
      { what: `the gate ${lock}` },
    );
  sync = startSync(databases);
  await comesTo(4711);
  // Transaction ids that only the memory of the server knows, and that the position is to have.
  const own = databases.source;
  await own.query('set synchronous_commit = off');
  for (let i = 0; i < 20; i++) await own.query('begin; insert into history values (-1, -1); rollback');
  await own.query('insert into account values (1, 1)');
  await unlock(4711);
  await comesTo(4712);
  await crashSource();
  await unlock(4712);
  await databases.target.query('drop function public.gate cascade');
  await databases.source.query('insert into account values (2, 2); insert into history values (2, 2)');
  await expectEqual(databases, sync);
});

async function reconnect(url: string) {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
