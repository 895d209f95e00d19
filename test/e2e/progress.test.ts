/**
 * What `ibex backfill` shows while it copies: bars on a terminal that `script` of util-linux provides, lines of the log
 * elsewhere, and the same figures over HTTP. A lock on the target holds the copy up for as long as a test looks.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startIbex } from '../support/ibex.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';
import { shownBy } from '../support/terminal.ts';

const PROGRAM = join(import.meta.dirname, '..', '..', 'bin', 'ibex.js');
const COLUMNS = 100;
const BAR = /\[[#. ]+\]/;

const hasScript = spawnSync('script', ['--version']).stdout?.includes('util-linux') ?? false;

const servers = await useServers();
let databases: Databases;
let locker: pg.Client;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  await onBoth(
    databases,
    'create table a_small (id int primary key); create table b_large (id int primary key, pad text)',
  );
  await databases.source.query(`insert into a_small select generate_series(1, 10);
    insert into b_large select i, repeat('x', 100) from generate_series(1, 20000) i`);
  await databases.source.query('vacuum analyze');
  locker = new pg.Client({ connectionString: databases.targetUrl });
  await locker.connect();
  await locker.query('begin; lock table b_large in share mode');
});

afterEach(async () => {
  await locker.end();
  await databases.dropAll();
});

const urls = () => ({ IBEX_SOURCE_URL: databases.sourceUrl, IBEX_TARGET_URL: databases.targetUrl });

/** The command on a terminal of its own. */
class OnTerminal {
  readonly child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = '';

  constructor(args: string) {
    const command = `stty cols ${COLUMNS} rows 24; exec "${process.execPath}" "${PROGRAM}" ${args}`;
    this.child = spawn('script', ['-qec', command, '/dev/null'], {
      cwd: '/',
      env: { PATH: process.env.PATH ?? '', HOME: '/nonexistent', TERM: 'xterm', ...urls() },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
    });
    this.ended = once(this.child, 'close').then(([code]) => code as number | null);
  }

  get lines(): string[] {
    return shownBy(this.output, COLUMNS);
  }

  async until(shown: RegExp): Promise<void> {
    await waitFor(() => this.lines.some((line) => shown.test(line)), { what: `a line ${shown}` });
  }

  /** As from the keyboard. */
  interrupt(): void {
    this.child.stdin?.write('\u0003');
  }
}

describe.skipIf(!hasScript)('on a terminal', () => {
  test('bars show what a daemon copies, and are gone when it is done', async () => {
    await using daemon = startIbex(['run'], { env: urls() });
    await daemon.waitForLog(/^sync main runs$/);
    await using watching = startIbex(['backfill', '--json'], { env: urls() });
    const backfill = new OnTerminal('backfill');
    await backfill.until(/^public\.b_large +\[\.+\] +0 % +0\.0 of \d\.\d MiB +0 rows$/);
    await backfill.until(/^\d of 2 tables copied, [1-4] jobs? under way$/);
    await backfill.until(/^all tables +\[#?\.+\] +\d % +0\.0 of \d\.\d MiB +10 rows .*left/);

    // The others have no terminal.
    for (const command of [daemon, watching]) {
      const { msg } = await command.waitForLog(/^copied /);
      expect(msg).toMatch(/^copied 0\.0 of \d\.\d MiB \(\d %\), \d+ rows, \d of 2 tables, .*left/);
      expect(command.stderr).not.toContain('\u001b');
    }
    await locker.query('rollback');
    expect(await watching.exited, watching.stderr).toBe(0);
    const { copy, tables } = JSON.parse(watching.stdout);
    expect(copy).toMatchObject({ tables: { copied: 2, all: 2 }, copied: 20_010, expected: 20_010 });
    expect(copy.bytes.copied).toBe(copy.bytes.planned);
    expect(copy.bytes.planned).toBeGreaterThan(20_000 * 100);
    expect(copy.sent).toBeGreaterThan(20_000 * 100);
    expect(tables.map(({ bytes }: { bytes: object }) => bytes)).toHaveLength(2);

    expect(await backfill.ended).toBe(0);
    expect(backfill.lines.filter((line) => BAR.test(line))).toEqual([]);
    expect(backfill.lines.slice(-2)).toEqual(['2 tables are copied, 20010 rows', '']);
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
  });

  test('they stand below the log, and an interrupt leaves a clean terminal', async () => {
    const backfill = new OnTerminal('backfill');
    await backfill.until(/^public\.b_large +\[/);
    // In one look at a screen that may be half drawn: the last line of the log, the bar of all, and only bars below.
    const standBelow = () => {
      const { lines } = backfill;
      const bars = lines.findIndex((line) => line.startsWith('all tables  '));
      const lastOfLog = lines.findLastIndex((line) => line.includes('INFO'));
      return lastOfLog >= 0 && lastOfLog < bars && lines.slice(bars + 1, -2).every((line) => BAR.test(line));
    };
    await waitFor(standBelow, { what: 'bars below the log' });
    backfill.interrupt();
    expect(await backfill.ended).not.toBe(0);
    expect(backfill.lines.filter((line) => BAR.test(line))).toEqual([]);
  });
});
