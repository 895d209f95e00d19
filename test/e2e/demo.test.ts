/**
 * `ibex demo` as anybody would try it: it comes to a result, whatever the environment is set up for, and nothing
 * of what it started is left, neither after its end nor after an interruption.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readlinkSync } from 'node:fs';
import { chmod, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { DemoResult } from '../../src/demo/result.ts';
import type { TwoWayResult } from '../../src/demo/two-way/two-way.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import { waitFor } from '../support/servers.ts';

const TIMEOUT = 300_000;

/** All that the demo makes is below it, and named in the command line or the directory of all it starts. */
let temporary: string;

beforeAll(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'demo-test-'));
  // The servers of a demo run by root are `nobody`, who has to get in.
  await chmod(temporary, 0o755);
  await writeFile(join(temporary, 'ibex.yaml'), 'this: is no setting\n');
});

afterAll(async () => {
  await rm(temporary, { recursive: true, force: true });
});

/** What the demo must not mind. */
function surroundings() {
  return {
    cwd: temporary,
    env: {
      TMPDIR: temporary,
      IBEX_SOURCE_URL: 'postgres://nobody@127.0.0.1:1/none',
      IBEX_LOG_LEVEL: 'no such level',
      PGHOST: 'nowhere.invalid',
      PGSSLMODE: 'require',
      PGOPTIONS: '-c default_transaction_read_only=on',
      NODE_OPTIONS: '--max-old-space-size=4096',
    },
  };
}

/** Processes of the demo by their command lines, as far as the system shows them. */
function processes(): string[] {
  return execFileSync('ps', ['-axo', 'pid=,args='], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(temporary) || directoryOf(line)?.startsWith(temporary));
}

function directoryOf(line: string): string | undefined {
  const link = `/proc/${Number.parseInt(line, 10)}/cwd`;
  try {
    return existsSync('/proc') ? readlinkSync(link) : undefined;
  } catch {
    return undefined; // Gone meanwhile, or a thread of the kernel.
  }
}

/** The shared copy of the PostgreSQL programs stays, for the next time. */
async function directories(): Promise<string[]> {
  const names = await readdir(temporary);
  return names.filter((name) => name !== 'ibex.yaml' && !/^ibex-postgres-[\d.a-z-]+-\d+$/.test(name));
}

async function expectNothingLeft(): Promise<void> {
  // Guards, which are no children of the demo, end a moment later.
  await waitFor(() => processes().length === 0, { what: `the end of ${processes()}` });
  expect(await directories()).toEqual([]);
}

test(
  'moves everything, says so, and is gone',
  async () => {
    const { code, stdout, stderr } = await ibex(['demo', '--seconds', '3', '--json'], {
      ...surroundings(),
      timeout: TIMEOUT,
    });
    expect(code, `${stdout}\n${stderr}`).toBe(0);
    const result = JSON.parse(stdout) as DemoResult;
    expect(result).toMatchObject({ differences: 0, verdict: 'READY', log: { errors: 0 } });
    expect(result.tables.filter((table) => table.rows === 0)).toEqual([]);
    expect(result.tables.map(({ table }) => table)).toContain('shop.orders');
    expect(result.copied.rows).toBeGreaterThan(300_000);
    const { captured, carried, coalesced, resolved, held } = result.changes;
    expect(captured).toBeGreaterThan(100);
    expect(carried + coalesced + resolved + held).toBe(captured);
    expect(held).toBe(0);
    expect(result.lag.samples).toBeGreaterThan(0);
    expect(result.lag.p50Ms).toBeGreaterThan(0);
    expect(result.lag.p99Ms).toBeGreaterThanOrEqual(result.lag.p50Ms);
    expect(result.load.transactions).toBeGreaterThan(10);
    expect(result.load.seconds).toBeGreaterThanOrEqual(3);
    expect(result.load.longTransactionSeconds).toBeGreaterThan(2.5);
    await expectNothingLeft();
  },
  TIMEOUT,
);

test(
  'of both sides written ends with both equal, and conflicts decided',
  async () => {
    const { code, stdout, stderr } = await ibex(['demo', '--two-way', '--seconds', '3', '--json'], {
      ...surroundings(),
      timeout: TIMEOUT,
    });
    expect(code, `${stdout}\n${stderr}`).toBe(0);
    const result = JSON.parse(stdout) as TwoWayResult;
    expect(result).toMatchObject({ differences: 0, waiting: 0 });
    expect(result.writes).toBeGreaterThan(10);
    expect(result.conflicts.update_origin_differs).toBeGreaterThan(0);
    expect(result.decidedByHand).toBeGreaterThan(0);
    await expectNothingLeft();
  },
  TIMEOUT,
);

test.each([
  ['SIGINT', 'while it copies', /copying/],
  ['SIGTERM', 'while its servers start', /a shop moves/],
] as const)(
  '%s %s ends all it started',
  async (signal, _when, moment) => {
    await using demo = startIbex(['demo', '--no-redis'], surroundings());
    await waitFor(() => moment.test(demo.stderr), { what: `${moment}` });
    demo.signal(signal);
    expect(await demo.exited).toBe(3);
    expect(demo.stderr).toContain('interrupted');
    await expectNothingLeft();
  },
  TIMEOUT,
);

test('being killed ends all it started', { timeout: TIMEOUT }, async () => {
  await using demo = startIbex(['demo'], surroundings());
  await waitFor(() => /copying/.test(demo.stderr), { what: 'the copy' });
  await demo.kill9();
  await waitFor(async () => processes().length === 0 && (await directories()).length === 0, {
    what: 'the end of all',
  });
});

test.each(['0', '-1', 'soon', '1e3', ''])('refuses --seconds %j', async (seconds) => {
  const { code, stderr } = await ibex(['demo', `--seconds=${seconds}`], surroundings());
  expect(code).toBe(2);
  expect(stderr).toContain('positive number of seconds');
});
