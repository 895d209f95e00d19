/** Two syncs that carry the same table to two targets: what one of them answers is not lost for the other. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { Daemon } from '../../src/engine/daemon.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { TEST_PAUSES } from '../support/sync.ts';

const servers = await useServers();
let one: Databases;
let two: Databases;
let stop: AbortController;
let running: Promise<unknown>;
let log: string[];

beforeEach(async () => {
  log = [];
  [one, two] = [await freshDatabases(servers), await freshDatabases(servers)];
});

afterEach(async () => {
  stop.abort();
  await running;
  await one.dropAll();
  await two.dropAll();
});

function start(): void {
  const directory = mkdtempSync(join(tmpdir(), 'ibex-syncs-'));
  const file = {
    nodes: { a: one.sourceUrl, b: one.targetUrl, c: two.targetUrl },
    syncs: [
      { name: 'one', from: 'a', to: 'b' },
      { name: 'two', from: 'a', to: 'c' },
    ],
  };
  writeFileSync(join(directory, 'ibex.yaml'), JSON.stringify(file));
  const config = loadConfig({ flags: { logLevel: 'error', logFormat: 'json' }, env: {}, cwd: directory });
  rmSync(directory, { recursive: true });
  stop = new AbortController();
  const warnings = pino({ level: 'warn' }, { write: (line: string) => void log.push(line) });
  running = new Daemon({ config, log: warnings, until: { kind: 'forever' }, pauses: TEST_PAUSES }).run(
    stop.signal,
  );
}

async function everywhere(sql: string): Promise<void> {
  for (const client of [one.target, two.target, one.source]) await client.query(sql);
}

async function bothBecomeEqual(what: string): Promise<void> {
  const differences = async () => [
    ...(await compareTables(one.source, one.target)),
    ...(await compareTables(one.source, two.target)),
  ];
  await waitFor(async () => (await differences()).length === 0, { what }).catch(async () => {
    expect(await differences(), what).toEqual([]);
  });
}

test('a change that no trigger tells is answered by every sync that carries the table', async () => {
  await everywhere(`
    create table t (id int primary key, v int);
    create table p (id int primary key) partition by range (id);
    create table p_1 partition of p for values from (0) to (100)`);
  await one.source.query(
    'insert into t select i, i from generate_series(1, 200) i; insert into p select generate_series(1, 50)',
  );
  start();
  await bothBecomeEqual('the copy');
  for (let round = 1; round <= 2; round++) {
    await one.source.query(
      `begin; alter table t disable trigger user; update t set v = -v; alter table t enable trigger user; commit`,
    );
    await bothBecomeEqual(`rows behind disabled triggers, ${round}`);
    await everywhere(`alter table t add column added_${round} int default ${round}`);
    await one.source.query(`update t set added_${round} = 0 where id = ${round}`);
    await bothBecomeEqual(`a column with a default, ${round}`);
    await one.source.query(`alter table t alter v type int using v + ${round}`);
    await bothBecomeEqual(`a rewrite, ${round}`);
    await everywhere(
      `create table p_${round + 1} partition of p for values from (${round}00) to (${round + 1}00)`,
    );
    await one.source.query(`insert into p select generate_series(${round}00, ${round}50)`);
    await bothBecomeEqual(`a partition that came, ${round}`);
    await one.source.query(`alter table p detach partition p_${round}; drop table p_${round}`);
    await bothBecomeEqual(`a partition that went, ${round}`);
  }
  await everywhere('alter table t drop constraint t_pkey; alter table t add column key serial primary key');
  await one.source.query('update t set v = 7 where id = 7');
  await bothBecomeEqual('another key');
});

test('a TRUNCATE that one sync has seen does not stop the other', async () => {
  await everywhere('create table t (id int primary key)');
  await one.source.query('insert into t select generate_series(1, 200)');
  start();
  await bothBecomeEqual('the copy');
  const seen = async () => {
    const { rowCount } = await one.source.query(
      `select from ibex.captured c, ibex.signatures(array[c.relid]) s where c.storage is distinct from s.storage
       union all select from ibex.source_table where missed is not null`,
    );
    return rowCount === 0;
  };
  for (let round = 1; round <= 3; round++) {
    await one.source.query('truncate t; insert into t select generate_series(1, 100)');
    await bothBecomeEqual(`a truncate, ${round}`);
    await waitFor(seen, { what: 'both syncs to have looked at the catalogs' });
  }
  expect(log).toEqual([]);
});
