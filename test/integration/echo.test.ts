/** What a lane of ours brought from the node to which a sync carries is not carried back to it. */
import pg from 'pg';
import { expect, test } from 'vitest';
import { setEcho } from '../../src/capture/trigger/registry.ts';
import { Session } from '../../src/postgres/session.ts';
import { usePair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { waitUntilCaughtUp } from '../support/sync.ts';

const servers = await useServers();
const pair = usePair(servers);

const SCHEMA = `
  create table t (id int primary key, v text);
  create table p (id int, k int, v text, primary key (id, k)) partition by list (k);
  create table p_1 partition of p for values in (1);
  create table p_2 partition of p for values in (2);
  create table bare (v text)`;

async function echo(node: string): Promise<void> {
  await using session = await Session.open({ url: pair.databases.sourceUrl, name: 'test' });
  await setEcho(session, 'main', node);
}

/** Changes of every kind that an applier makes for the node `origin`. */
async function applyFrom(origin: string, n: number): Promise<void> {
  await pair.source.query(`begin; set local ibex.origin = '${origin}';
    insert into t values (${n}, 'there'); update t set v = 'there' where id = 1; delete from t where id = 2;
    insert into p values (${n}, 1, 'there'); update p set k = 2 where id = 1; delete from p where id = 2;
    insert into bare values ('there'); delete from bare where v = 'here'; commit`);
}

async function deltas(): Promise<number> {
  const { rows } = await pair.source.query<{ n: number }>(
    `select coalesce(sum((xpath('/row/c/text()', query_to_xml(
              format('select count(*) as c from ibex.delta_%s_%s', relid, n), false, true, '')))[1]::text::int), 0)::int as n
       from ibex.generation`,
  );
  return rows[0]?.n ?? 0;
}

async function fill(): Promise<void> {
  await pair.inStep(
    SCHEMA,
    `insert into t values (1, 'here'), (2, 'here'), (3, 'here');
     insert into p values (1, 1, 'here'), (2, 1, 'here'), (3, 1, 'here'); insert into bare values ('here'), ('and here')`,
  );
}

/** As the source would be, had nobody brought anything from the target. */
const HERE = [
  { id: 1, v: 'here' },
  { id: 2, v: 'here' },
  { id: 3, v: 'here' },
];

test('changes from there are not even noted, all others are carried', async () => {
  await fill();
  await echo('target');
  const before = await deltas();
  await applyFrom('target', 10);
  expect(await deltas()).toBe(before);
  await pair.source.query(`insert into t values (11, 'here'); insert into bare values ('more')`);
  await waitUntilCaughtUp(pair.databases, 60_000);
  expect((await pair.target.query('select id, v from t order by id')).rows).toEqual([
    ...HERE,
    { id: 11, v: 'here' },
  ]);
  expect((await pair.target.query('select id, k from p order by id')).rows).toEqual([
    { id: 1, k: 1 },
    { id: 2, k: 1 },
    { id: 3, k: 1 },
  ]);
  expect((await pair.target.query('select v from bare order by v')).rows).toEqual([
    { v: 'and here' },
    { v: 'here' },
    { v: 'more' },
  ]);
});

test('where a third node is to have them they are noted, and left out of what goes back', async () => {
  await fill();
  await echo('target');
  await pair.source.query(
    `insert into ibex.source_sync (name, position) values ('onward', txid_current_snapshot());
     select ibex.capture_all(array(select relid from ibex.captured), 'onward')`,
  );
  const before = await deltas();
  await applyFrom('target', 10);
  expect(await deltas()).toBeGreaterThan(before);
  await pair.source.query(`update t set v = 'changed' where id = 3`);
  await waitUntilCaughtUp(pair.databases, 60_000);
  const { tables, lag } = await pair.sync.status();
  expect(lag.keys).toBe(0);
  // The old row's key and the new one's: those of ten more from there do not count.
  expect(tables.find(({ table }) => table === 'public.t')?.captured).toBe(2);
  expect((await pair.target.query('select id, v from t order by id')).rows).toEqual([
    HERE[0],
    HERE[1],
    { id: 3, v: 'changed' },
  ]);
});

test('what is not marked, or marked as from another node, is carried', async () => {
  await fill();
  await echo('target');
  await applyFrom('third', 10);
  await pair.equal();
});

test('a role of the application that claims to be of there hides nothing', async () => {
  await fill();
  await echo('target');
  const { sourceAdmin, sourceUrl } = pair.databases;
  const url = new URL(sourceUrl);
  const name = `w_${url.pathname.slice(1)}`;
  await sourceAdmin.query(
    `create role ${name} login password 'w'; grant all on all tables in schema public to ${name}`,
  );
  const client = new pg.Client({
    connectionString: Object.assign(url, { username: name, password: 'w' }).href,
  });
  await client.connect();
  await client.query(
    `set ibex.origin = 'target'; insert into t values (10, 'hidden'); delete from t where id = 2`,
  );
  await pair.source.query(
    `insert into ibex.source_sync (name, position) values ('onward', txid_current_snapshot());
     select ibex.capture_all(array(select relid from ibex.captured), 'onward')`,
  );
  await client.query(`update t set v = 'hidden' where id = 3; insert into bare values ('hidden')`);
  await client.end();
  await pair.equal();
  await sourceAdmin.query(`drop owned by ${name}; drop role ${name}`);
});

test('of two syncs that take in a table at once neither fails, and what one leaves out is noted for the other', async () => {
  await fill();
  await pair.source.query(
    `create table late (id int primary key);
     insert into ibex.source_sync (name, position, echo)
       values ('one', txid_current_snapshot(), 'node of one'), ('two', txid_current_snapshot(), 'node of two')`,
  );
  const takeIn = (client: pg.Client, sync: string) =>
    client.query(`select refusal from ibex.capture_all(array['late'::regclass::oid], $1)`, [sync]);
  const other = new pg.Client({ connectionString: pair.databases.sourceUrl });
  await other.connect();
  try {
    const { pid } = (await other.query<{ pid: number }>('select pg_backend_pid() as pid')).rows[0] ?? {};
    await pair.source.query('begin');
    await takeIn(pair.source, 'one');
    const second = takeIn(other, 'two');
    const waits = async () =>
      (await pair.source.query('select from pg_locks where pid = $1 and not granted', [pid])).rowCount;
    await waitFor(waits, { what: 'the second to wait for the first' });
    await pair.source.query('commit');
    expect((await second).rows).toEqual([]);
  } finally {
    await other.end();
  }
  const { rows } = await pair.source.query(
    `select (select count(*)::int from ibex.source_table where relid = 'late'::regclass) as readers,
            (select prosrc like '%node of%' from pg_proc where proname = 'insert_' || 'late'::regclass::oid) as "leavesOut"`,
  );
  expect(rows).toEqual([{ readers: 2, leavesOut: false }]);
});
