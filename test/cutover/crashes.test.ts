/** A cutover whose process dies in any phase: the next call undoes what was begun, or goes on with it. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MOVE_FAILPOINTS } from '../../src/core/failpoints.ts';
import { startIbex } from '../support/ibex.ts';
import { Pair } from '../support/pair.ts';
import { useServers, waitFor } from '../support/servers.ts';
import { abort, expectLive, expectSame, FENCED, ROWS, rollback, SCHEMA, write } from './move.ts';

const servers = await useServers();
const pair = new Pair();

beforeAll(async () => {
  await pair.open(servers, {});
  await pair.inStep(SCHEMA, ROWS);
  await pair.ready();
});

afterAll(() => pair.close());

const AFTER_SWITCH = ['move-turned', 'move-reverse', 'move-lift'];

async function move(command: 'cutover' | 'rollback', failpoint?: string) {
  const { sourceUrl, targetUrl } = pair.databases;
  const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
  const dies = failpoint === undefined ? {} : { TEST_IBEX_FAILPOINTS: `${failpoint}:kill` };
  const running = startIbex([command, '--yes', '--unverified', '--json'], { env: { ...env, ...dies } });
  return { code: await running.exited, stdout: running.stdout };
}

test('before the switch: nothing has changed, whether it is undone or tried again', async () => {
  for (const failpoint of MOVE_FAILPOINTS.filter((name) => !AFTER_SWITCH.includes(name))) {
    expect((await move('cutover', failpoint)).code, failpoint).toBeNull();
    // The daemon alone goes on, with or without a fence.
    expect((await pair.sync.status()).verdict).toBe('READY');
    if (failpoint !== 'move-drain') continue;
    await expect(write(pair.source)).rejects.toMatchObject(FENCED);
    expect(await abort(pair, 'target')).toMatchObject({ outcome: 'undone', live: 'source' });
    await write(pair.source);
    await write(pair.source);
    await pair.equal();
  }
});

test('after the switch: the same command goes on', async () => {
  expect((await move('cutover', 'move-turned')).code).toBeNull();
  expect(await abort(pair, 'target')).toMatchObject({ outcome: 'refused', live: 'target' });
  await expect(write(pair.target)).rejects.toMatchObject(FENCED);
  const { code, stdout } = await move('cutover');
  expect(JSON.parse(stdout)).toMatchObject({ outcome: 'done', proof: { pending: 0 } });
  expect(code).toBe(0);
  await expectLive(pair, 'target');
  await expectSame(pair);

  expect((await move('rollback', 'move-fence')).code).toBeNull();
  expect(await abort(pair, 'source')).toMatchObject({ outcome: 'undone', live: 'target' });
  await expectLive(pair, 'target');
  expect((await move('rollback', 'move-lift')).code).toBeNull();
  expect(await move('rollback')).toMatchObject({ code: 0 });
  await expectLive(pair, 'source');
  await expectSame(pair);
});

/** Waits until somebody has opened this side for writes. */
async function opened(side: pg.Client): Promise<void> {
  const isOpen = () =>
    write(side).then(
      () => true,
      (error) => {
        if (error.code === FENCED.code) return false;
        throw error;
      },
    );
  await waitFor(isOpen, { what: 'the fence to be lifted' });
}

/** What came of the last attempt, as its journal has it. */
async function lastEnd(): Promise<object> {
  const { rows } = await pair.target.query(
    `select what from ibex.cutover where phase = 'end' order by run desc limit 1`,
  );
  return rows[0]?.what;
}

test('when nobody comes, the daemon undoes it before the switch, and finishes it after', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ibex-cutover-'));
  const told = join(directory, 'told');
  try {
    await pair.sync.stop();
    pair.start({ pauses: { abandonedMove: 300 }, flags: { hookOnAbort: `touch ${told}` } });
    await pair.ready();
    expect((await move('cutover', 'move-drain')).code).toBeNull();
    await opened(pair.source);
    await waitFor(async () => existsSync(told), { what: 'the hook on_abort' });
    expect(await lastEnd()).toEqual({ outcome: 'undone', by: 'daemon' });
    await pair.equal();
    await expectLive(pair, 'source');

    expect((await move('cutover', 'move-turned')).code).toBeNull();
    await opened(pair.target);
    await expectLive(pair, 'target');
    await waitFor(async () => 'pauseSeconds' in (await lastEnd()), { what: 'the end of the attempt' });
    expect(await lastEnd()).toMatchObject({ outcome: 'done', by: 'daemon' });
    await expectSame(pair);

    // One that is under way is let alone, however long it takes.
    expect(await rollback(pair, { hooks: { after_fence: 'sleep 2' } })).toMatchObject({ outcome: 'done' });
    await expectLive(pair, 'source');
    await expectSame(pair);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
