/**
 * What could explain a difference, and what was not compared: neither is taken for a difference, and none of it passes.
 * No daemon runs meanwhile, so every outcome is certain.
 */
import { beforeEach, describe, expect, test } from 'vitest';
import { Session } from '../../src/postgres/session.ts';
import type { VerifyOptions } from '../../src/verify/verify.ts';
import { usePair } from '../support/pair.ts';
import { useServers } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { interrupted, runVerify, tableOf } from './support.ts';

const servers = await useServers();
const pair = usePair(servers);

/** Rows that differ are looked at once, and locks are waited for no longer. */
const ONCE = { settleMs: 0 };

/** `t` is compared by key, `k` row by row. */
const SCHEMA = 'create table t (id int primary key, v int); create table k (v int)';
const ROWS =
  'insert into t select i, i from generate_series(1, 50) i; insert into k select generate_series(1, 50)';

beforeEach(async () => {
  await pair.inStep(SCHEMA, ROWS);
  await pair.sync.stop();
});

/** Rows of the target go wrong that are of no account to the deltas. */
async function forge(): Promise<void> {
  await pair.target.query('update t set v = -1 where id = 7; update k set v = -1 where v = 7');
}

/** Before each such statement on the source something else happens. */
function interruptedAt(text: string, first: () => Promise<unknown>): VerifyOptions['open'] {
  const { sourceUrl, targetUrl } = pair.databases;
  return (side) =>
    side === 'source'
      ? interrupted(sourceUrl, text, first)
      : Session.open({ url: targetUrl, name: 'test:verify' });
}

async function expectDoubt(options = {}): Promise<void> {
  const report = await runVerify(pair.databases, { ...ONCE, ...options });
  for (const table of ['public.t', 'public.k']) {
    const { verdict, counts } = tableOf(report, table);
    expect({ table, verdict, ...counts }).toMatchObject({
      ...{ table, verdict: 'undecided' },
      ...{ different: 0, missing: 0, extra: 0 },
    });
    expect(counts.pending + counts.moving).toBeGreaterThan(0);
  }
}

test('without doubts the difference is one', async () => {
  await forge();
  const report = await runVerify(pair.databases, ONCE);
  expect(tableOf(report, 'public.t').counts).toMatchObject({ different: 1 });
  expect(tableOf(report, 'public.k').counts).toMatchObject({ missing: 1, extra: 1 });
});

describe('nothing is known of tables', () => {
  test('that were truncated, which is not carried yet', async () => {
    await pair.source.query('truncate t; truncate k');
    await expectDoubt();
  });

  test('whose deltas were given up', async () => {
    await forge();
    // A transaction that the target's position does not see.
    await pair.source.query('select txid_current()');
    await pair.source.query('update ibex.captured set forgotten = txid_current_snapshot()');
    await expectDoubt();
  });

  test('whose triggers were off', async () => {
    await forge();
    await pair.source.query('alter table t disable trigger all; alter table k disable trigger all');
    await expectDoubt();
  });

  test('that were out of step while they were compared', async () => {
    await forge();
    const leave = () => pair.target.query('update ibex.target_table set changed_at = clock_timestamp()');
    await expectDoubt({ open: interruptedAt('select forgotten', leave) });
  });
});

test('a table that is truncated and filled just before it is locked is read as it is afterwards', async () => {
  const refill = () =>
    pair.source.query('begin; truncate t; insert into t select i, i from generate_series(1, 50) i; commit');
  const report = await runVerify(pair.databases, { ...ONCE, open: interruptedAt('lock table', refill) });
  expect(tableOf(report, 'public.t').source.rows).toBe(50);
});

test('a table that others keep locked is undecided alone', async () => {
  const { source, target } = pair;
  for (const side of [source, target]) {
    await side.query('begin; lock table t in access exclusive mode');
    const report = await runVerify(pair.databases, ONCE);
    expect(tableOf(report, 'public.t')).toMatchObject({
      verdict: 'undecided',
      reason: expect.stringContaining('lock'),
    });
    expect(tableOf(report, 'public.k')).toMatchObject({ verdict: 'equal', reason: null });
    expect(report.verdict).toBe('undecided');
    await side.query('rollback');
  }
});

test('sequences that cannot be carried are named: of some tables those that belong to them', async () => {
  await onBoth(pair.databases, 'create sequence alone; create sequence t_n; alter sequence t_n owned by t.v');
  await pair.target.query('alter sequence t_n as smallint; drop sequence alone');
  await pair.source.query(`select setval('t_n', 40000)`);
  const faultsOf = async (some: boolean) => {
    const filter = ({ name }: { name: string }) => !some || name === 't';
    return (await runVerify(pair.databases, { ...ONCE, some, filter })).sequences.faults;
  };
  const ofTable = expect.stringMatching(
    /^sequence public\.t_n is not carried: .* ends at 32767; on the target: alter/,
  );
  expect(await faultsOf(true)).toEqual([ofTable]);
  expect(await faultsOf(false)).toEqual([
    expect.stringMatching(/^sequence public\.alone .* has none/),
    ofTable,
  ]);
});
