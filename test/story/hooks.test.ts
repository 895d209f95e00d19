/**
 * The hooks that docs/hooks has ready, as they stand there: an application behind PgBouncer that meets no error at all while
 * its database goes to another server and back, and one whose address is set at Heroku.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type IbexResult, ibex, type RunningIbex, startIbex } from '../support/ibex.ts';
import { BANK, BANK_ROWS, type Load, startLoad } from '../support/load.ts';
import { findPgBouncer, type PgBouncer, startPgBouncer } from '../support/pgbouncer.ts';
import { compareTables, type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const hookFile = (name: string) => join(import.meta.dirname, '..', '..', 'docs', 'hooks', name);
const pgbouncer = findPgBouncer();
const hasPsql = spawnSync('psql', ['--version']).status === 0;
if (process.env.CI && !hasPsql) throw new Error('CI needs psql');

const servers = await useServers();
let databases: Databases;
let directory: string;
let pooler: PgBouncer | undefined;
let daemon: RunningIbex | undefined;
let load: Load | undefined;

beforeEach(async () => {
  databases = await freshDatabases(servers);
  directory = mkdtempSync(join(tmpdir(), 'ibex-hooks-'));
});
afterEach(async () => {
  await daemon?.kill9();
  await load?.stop();
  await pooler?.stop();
  await databases.dropAll();
  rmSync(directory, { recursive: true });
});

/** A command `heroku` that writes down what it is asked for. */
function fakeHeroku(): { readonly path: string; readonly asked: () => string[] } {
  const record = join(directory, 'asked');
  const program = join(directory, 'heroku');
  writeFileSync(record, '');
  writeFileSync(program, `#!/bin/sh\necho "$*" >>'${record}'\n`);
  chmodSync(program, 0o755);
  const asked = () => readFileSync(record, 'utf8').split('\n').slice(0, -1);
  return { path: `${directory}:${process.env.PATH}`, asked };
}

test.skipIf(pgbouncer === undefined || !hasPsql)(
  'behind PgBouncer nobody meets an error, there, back, or when it is given up',
  async () => {
    await onBoth(databases, BANK);
    await databases.source.query(BANK_ROWS);
    // One role with one password on both sides, as PgBouncer wants it.
    const { username, password } = new URL(databases.sourceUrl);
    const words = pg.escapeLiteral(decodeURIComponent(password));
    await databases.targetAdmin.query(`alter role ${username} password ${words}`);
    const targetUrl = Object.assign(new URL(databases.targetUrl), { password }).href;
    pooler = await startPgBouncer(pgbouncer as string, {
      to: servers.source.port,
      mode: 'transaction',
      users: { [username]: decodeURIComponent(password), admin: 'secret' },
      settings: { admin_users: 'admin' },
    });
    load = await startLoad(pooler.through(databases.sourceUrl), { clients: 3 });
    const heroku = fakeHeroku();
    const env = {
      PATH: heroku.path,
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: targetUrl,
      PGBOUNCER_ADMIN: `host=127.0.0.1 port=${pooler.port} user=admin password=secret dbname=pgbouncer`,
      PGBOUNCER_DATABASE: username,
      PGBOUNCER_DATABASES: pooler.databases,
      HEROKU_APP: 'shop',
      HEROKU_ADDON: 'postgresql-round-12345',
      NEW_DATABASE_URL: 'postgres://app@new.example/app',
    };
    daemon = startIbex(['run'], { env });
    await daemon.waitForLog(/sync main runs/);
    expect(await ibex(['wait'], { env })).toMatchObject({ code: 0 });
    await waitFor(async () => (await ibex(['status'], { env })).code === 0, { what: 'the sync to be ready' });

    const move = async (command: string, ...more: string[]): Promise<IbexResult> => {
      const [pool, dynos] = [hookFile('pgbouncer.sh'), hookFile('heroku.sh')];
      const result = await ibex(
        [
          ...[command, '--yes', '--json', '--hook-before-fence', pool, '--hook-on-abort', pool],
          ...['--hook-after-switch', `'${pool}' && '${dynos}'`, ...more],
        ],
        { env },
      );
      const { done } = load as Load;
      await waitFor(() => (load as Load).done > done + 20, { what: `writes: ${result.stderr}` });
      return result;
    };
    expect(await move('cutover', '--hook-after-drain', 'false')).toMatchObject({ code: 1 });
    expect(await move('cutover')).toMatchObject({ code: 0 });
    expect(await move('rollback')).toMatchObject({ code: 0 });
    expect(await move('cutover')).toMatchObject({ code: 0 });

    await load.stop();
    expect(load.errors).toEqual([]);
    expect(await ibex(['wait'], { env })).toMatchObject({ code: 0 });
    expect(await compareTables(databases.source, databases.target)).toEqual([]);
    const there = [
      'addons:attach postgresql-round-12345 --as OLD_DATABASE --app shop --confirm shop',
      'addons:detach DATABASE --app shop',
      'config:set DATABASE_URL=postgres://app@new.example/app --app shop',
    ];
    expect(heroku.asked()).toEqual([
      ...there,
      'config:unset DATABASE_URL --app shop',
      'addons:attach postgresql-round-12345 --as DATABASE --app shop',
      'addons:detach OLD_DATABASE --app shop',
      ...there,
    ]);
  },
);
