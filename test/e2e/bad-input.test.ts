/**
 * What the command says when something is wrong: one line what, one line what to do, an exit code that scripts
 * can rely on, never a stack, never a password. And that whatever it refused can be put right: once the cause is
 * gone the same call succeeds, and a teardown leaves nothing.
 */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../../src/embedded/cluster.ts';
import { freePort } from '../../src/embedded/process.ts';
import {
  type IbexOptions,
  type IbexResult,
  ibex,
  type LogLine,
  type Output,
  type RunningIbex,
  startIbex,
} from '../support/ibex.ts';
import { type Databases, freshDatabases, useServers, waitFor } from '../support/servers.ts';
import { onBoth } from '../support/sync.ts';

const servers = await useServers();

/** A daemon that lives, and a second one for the same sync. It waits for half a minute, during the other tests. */
let second: {
  readonly databases: Databases;
  readonly holder: RunningIbex;
  readonly result: Promise<IbexResult>;
};

beforeAll(async () => {
  const databases = await withTables(await freshDatabases(servers));
  const holder = startIbex(['run'], { env: urls(databases) });
  await holder.waitForLog(/sync main runs/);
  second = { databases, holder, result: ibex(['run'], { env: urls(databases) }) };
});

const TABLE = 'create table item (id int primary key, name text)';

async function withTables(databases: Databases): Promise<Databases> {
  await databases.source.query(`${TABLE}; insert into item select i, 'n' || i from generate_series(1, 20) i`);
  await databases.target.query(TABLE);
  return databases;
}

function urls({ sourceUrl, targetUrl }: Pick<Databases, 'sourceUrl' | 'targetUrl'>): Record<string, string> {
  return { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl };
}

/** The URL with some of its parts changed; a password goes in as it is and comes out escaped. */
function changed(url: string, parts: Partial<Record<'password' | 'port' | 'host' | 'database', string>>) {
  const copy = new URL(url);
  if (parts.password !== undefined) copy.password = encodeURIComponent(parts.password);
  if (parts.port !== undefined) copy.port = parts.port;
  if (parts.host !== undefined) copy.hostname = parts.host;
  if (parts.database !== undefined) copy.pathname = parts.database;
  return copy.href;
}

/** Every password that these tests use, raw and escaped. */
const secrets = new Set<string>();

function remember(url: string): void {
  const escaped = /^\w+:\/\/[^:/@]*:([^@]+)@/.exec(url)?.[1];
  if (escaped === undefined) return;
  secrets.add(escaped);
  secrets.add(decodeURIComponent(escaped));
}

function expectDiscreet({ stdout, stderr }: Output): void {
  for (const secret of secrets) {
    expect(stdout.includes(secret), `a password in ${stdout}`).toBe(false);
    expect(stderr.includes(secret), `a password in ${stderr}`).toBe(false);
  }
  expect(stderr).not.toMatch(/^\s+at .*:\d+/m);
}

interface Refusal {
  readonly code: number;
  readonly what: RegExp;
  readonly remedy: RegExp;
}

function expectRefusal(result: IbexResult, { code, what, remedy }: Refusal): void {
  expectDiscreet(result);
  expect(result.said, result.stderr).toEqual([
    expect.stringMatching(/^error: \S/),
    expect.stringMatching(/^ {2}\S/),
  ]);
  expect(result.said[0]).toMatch(what);
  expect(result.said[1]).toMatch(remedy);
  expect(result.code, result.stderr).toBe(code);
  expect(result.stdout).toBe('');
}

/** Runs a command and checks whatever it says for passwords. */
async function call(args: string[], env: Record<string, string>, options: IbexOptions = {}) {
  for (const text of [...args, ...Object.values(env)]) remember(text);
  const result = await ibex(args, { ...options, env });
  expectDiscreet(result);
  return result;
}

async function succeeds(args: string[], env: Record<string, string>): Promise<IbexResult> {
  const result = await call(args, env);
  expect(result.code, `ibex ${args.join(' ')}: ${result.stdout}${result.stderr}`).toBe(0);
  return result;
}

async function hasSchema(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query(`select to_regnamespace('ibex') is not null as present`);
  return rows[0].present;
}

/** Setup passes now, and teardown takes all of it away again. */
async function expectMended(databases: Databases, env: Record<string, string>): Promise<void> {
  await succeeds(['setup'], env);
  const { stdout } = await succeeds(['teardown', '--yes', '--json'], env);
  expect(JSON.parse(stdout)).toMatchObject({ source: { left: 0 }, target: { left: 0 } });
  expect([await hasSchema(databases.source), await hasSchema(databases.target)]).toEqual([false, false]);
}

/** Every command that connects, as a call that ends by itself. */
const COMMANDS = [
  ['setup'],
  ['backfill'],
  ['run', '--until-caught-up'],
  ['wait', '--timeout', '5s'],
  ['status'],
  ['teardown', '--yes'],
];

describe('a server that cannot be used', () => {
  let databases: Databases;
  const strangers: Server[] = [];

  beforeAll(async () => {
    databases = await withTables(await freshDatabases(servers));
  });

  afterAll(async () => {
    for (const stranger of strangers) stranger.close();
    await databases.dropAll();
  });

  /** Listens, and answers what is not PostgreSQL. */
  async function stranger(answer: string | undefined): Promise<string> {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      if (answer !== undefined) socket.once('data', () => socket.end(answer));
    });
    strangers.push(server);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    server.unref();
    return String((server.address() as AddressInfo).port);
  }

  interface Fault extends Refusal {
    readonly spoil: (url: string) => string | Promise<string>;
    /** Asked of every command; the other faults take the same way through each of them. */
    readonly everywhere?: true;
  }

  const faults: Record<string, Fault> = {
    'nobody listens': {
      everywhere: true,
      spoil: async (url) => changed(url, { port: String(await freePort()) }),
      code: 3,
      what: /^error: 127\.0\.0\.1:\d+\/app_\w+: .*ECONNREFUSED/,
      remedy: /Check host, port/,
    },
    'no such host': {
      spoil: (url) => changed(url, { host: 'db.invalid' }),
      code: 3,
      what: /^error: db\.invalid:\d+\/.*(ENOTFOUND|EAI_AGAIN)/,
      remedy: /Check host, port/,
    },
    'it takes the connection and is silent': {
      spoil: async (url) => `${changed(url, { port: await stranger(undefined) })}?connect_timeout=1`,
      code: 3,
      what: /^error: 127\.0\.0\.1:\d+\/.*(timeout|terminated)/,
      remedy: /Check host, port/,
    },
    'it is a web server': {
      spoil: async (url) => changed(url, { port: await stranger('HTTP/1.1 400 Bad Request\r\n\r\n') }),
      code: 3,
      what: /^error: 127\.0\.0\.1:\d+\/.*SSL/,
      remedy: /Check host, port/,
    },
    'wrong password': {
      everywhere: true,
      spoil: (url) => changed(url, { password: 'wrong%41/@:' }),
      code: 3,
      what: /password authentication failed/,
      remedy: /Check user and password/,
    },
    'no password': {
      spoil: (url) => changed(url, { password: '' }),
      code: 3,
      what: /asks for a password and none was given/,
      remedy: /PGPASSWORD/,
    },
    'no such database': {
      spoil: (url) => changed(url, { database: 'no_such_database' }),
      code: 3,
      what: /database "no_such_database" does not exist/,
      remedy: /Check the database name/,
    },
    'sslmode=require, and the server speaks no TLS': {
      spoil: (url) => `${url}?sslmode=require`,
      code: 3,
      what: /does not support SSL/,
      remedy: /sslmode=prefer/,
    },
    'sslmode=nonsense': {
      everywhere: true,
      spoil: (url) => `${url}?sslmode=nonsense`,
      code: 2,
      what: /sslmode .*must be one of disable, .*require/,
      remedy: /postgres:\/\/user@host/,
    },
    'a keyword connection string': {
      spoil: (url) => `host=127.0.0.1 user=app password=${decodeURIComponent(new URL(url).password)}`,
      code: 2,
      what: /keyword=value strings are not read/,
      remedy: /postgres:\/\/user@host/,
    },
  };

  test.each(Object.entries(faults))('%s', async (_what, { spoil, everywhere, ...refusal }) => {
    const env = urls({
      sourceUrl: await spoil(databases.sourceUrl),
      targetUrl: await spoil(databases.targetUrl),
    });
    remember(databases.sourceUrl);
    remember(databases.targetUrl);
    const commands = COMMANDS.filter(([name]) => everywhere || name === 'setup' || name === 'teardown');
    const results = await Promise.all(commands.map((args) => call(args, env)));
    for (const result of results) expectRefusal(result, refusal);
  });

  test('the stack, by the files of src/, is shown to who asks for it', async () => {
    const env = urls({ ...databases, sourceUrl: changed(databases.sourceUrl, { password: 'wrong' }) });
    remember(databases.targetUrl);
    const { code, stderr, said } = await ibex(['status', '--log-level', 'debug'], { env });
    expect([code, said[0]]).toEqual([3, expect.stringMatching(/^error: .*password authentication failed/)]);
    expect(stderr).toMatch(/^\s+at .*[/\\]src[/\\]cli[/\\]command\.ts:\d+:\d+/m);
    for (const secret of secrets) expect(stderr.includes(secret)).toBe(false);
  });

  test('only the target: nothing is done to the source', async () => {
    const { sourceUrl, targetUrl } = databases;
    const wrong = changed(targetUrl, { password: 'wrong' });
    expectRefusal(await call(['setup'], urls({ sourceUrl, targetUrl: wrong })), {
      code: 3,
      what: /password authentication failed/,
      remedy: /Check user and password/,
    });
    expect(await hasSchema(databases.source)).toBe(false);
    await expectMended(databases, urls(databases));
  });

  test.each(['disable', 'allow', 'prefer'])('sslmode=%s works without TLS', async (mode) => {
    const { sourceUrl, targetUrl } = databases;
    const env = urls({
      sourceUrl: `${sourceUrl}?sslmode=${mode}`,
      targetUrl: `${targetUrl}?sslmode=${mode}`,
    });
    await expectMended(databases, env);
  });

  test('source and target are the same database', async () => {
    const env = urls({ sourceUrl: databases.sourceUrl, targetUrl: databases.sourceUrl });
    const refusal = {
      code: 2,
      what: /source and target are the same database/,
      remedy: /two different URLs/,
    };
    const results = await Promise.all([['setup'], ['run']].map((args) => call(args, env)));
    for (const result of results) expectRefusal(result, refusal);
    expect(await hasSchema(databases.source)).toBe(false);
  });

  test('they are the same database also where the provider hides which server it is', async () => {
    const hide = ['pg_control_system()', 'pg_control_checkpoint()'];
    for (const name of hide)
      await databases.sourceAdmin.query(`revoke execute on function ${name} from public`);
    const env = urls({ sourceUrl: databases.sourceUrl, targetUrl: databases.sourceUrl });
    const refusal = {
      code: 2,
      what: /source and target are the same database/,
      remedy: /two different URLs/,
    };
    expectRefusal(await call(['setup'], env), refusal);
    await expectMended(databases, urls(databases));
  });
});

describe('wrong usage', () => {
  let databases: Databases;
  let directory: string;

  beforeAll(async () => {
    databases = await withTables(await freshDatabases(servers));
    directory = await mkdtemp(join(tmpdir(), 'ibex-yaml-'));
    remember(databases.sourceUrl);
    remember(databases.targetUrl);
  });

  afterAll(async () => {
    await rm(directory, { recursive: true });
    await databases.dropAll();
  });

  const usage: [string, string[], RegExp, RegExp?][] = [
    ['an unknown command', ['stup'], /unknown command 'stup'/, /ibex --help/],
    ['an unknown option', ['setup', '--bogus'], /unknown option '--bogus'/, /ibex setup --help/],
    ['a misspelt option', ['run', '--tabels', 'public.item'], /unknown option '--tabels'/, /--tables/],
    [
      'a misspelt option with a password',
      ['setup', '--sourc=postgres://u:s3cr3t@h/d'],
      /unknown option '--sourc'/,
    ],
    ['a URL for a command', ['postgres://u:s3cr3t@h/d'], /unknown command/],
    ['a URL without its option', ['setup', 'postgres://u:s3cr3t@h/d'], /too many arguments/],
    ['an option without its value', ['status', '--source'], /--source <URL>.* argument missing/],
    ['a wrong value', ['wait', '--timeout', 'soon'], /--timeout: must be a duration/],
    ['a table without schema', ['setup', '--tables', 'item'], /--tables: item does not name a schema/],
    [
      'listening beyond this machine',
      ['run', '--listen', '0.0.0.0:8642'],
      /a token is needed/,
      /IBEX_HTTP_TOKEN/,
    ],
    ['listening nowhere', ['run', '--listen', 'nonsense'], /--listen: must be HOST:PORT/],
    ['teardown without --yes', ['teardown'], /teardown removes/, /--yes/],
    ['a sync that two URLs do not have', ['status', '--sync', 'other'], /its name is main/],
    ['a file that is not there', ['status', '--config', 'none.yaml'], /there is no file none\.yaml/],
  ];

  test.each(usage)('%s', async (_what, args, what, remedy = /\S/) => {
    secrets.add('s3cr3t');
    expectRefusal(await call(args, urls(databases)), { code: 2, what, remedy });
  });

  test('no URL, for each command', async () => {
    const results = await Promise.all(COMMANDS.map((args) => call(args, {})));
    const refusal = {
      code: 2,
      what: /the source is not given.*--source or IBEX_SOURCE_URL/,
      remedy: /export/,
    };
    for (const result of results) expectRefusal(result, refusal);
    const { IBEX_SOURCE_URL } = urls(databases);
    expectRefusal(await call(['setup'], { IBEX_SOURCE_URL: IBEX_SOURCE_URL as string }), {
      code: 2,
      what: /the target is not given.*--target or IBEX_TARGET_URL/,
      remedy: /export IBEX_TARGET_URL=/,
    });
  });

  test('an unknown IBEX_ variable', async () => {
    const result = await call(['status'], { ...urls(databases), IBEX_SUORCE_URL: databases.sourceUrl });
    expectRefusal(result, {
      code: 2,
      what: /IBEX_SUORCE_URL: not a known variable; known are .*IBEX_SOURCE_URL/,
      remedy: /\S/,
    });
  });

  test('a URL that is given twice', async () => {
    const result = await call(['status'], { ...urls(databases), IBEX_SOURCE_URL_FILE: 'url' });
    expectRefusal(result, { code: 2, what: /IBEX_SOURCE_URL and IBEX_SOURCE_URL_FILE/, remedy: /\S/ });
  });

  test.each([
    ['URL_FILE', 'no-such-file', /IBEX_SOURCE_URL_FILE: the file it names cannot be read/, 2],
    ['URL_COMMAND', 'exit 4', /IBEX_SOURCE_URL_COMMAND: the command ended with exit code 4/, 3],
    ['URL_COMMAND', 'no-such-program-anywhere', /IBEX_SOURCE_URL_COMMAND: the command ended/, 2],
    ['URL_COMMAND', 'true', /IBEX_SOURCE_URL_COMMAND: it gave nothing/, 2],
  ])('IBEX_SOURCE_%s=%s', async (name, value, what, code) => {
    const env = { [`IBEX_SOURCE_${name}`]: value, IBEX_TARGET_URL: databases.targetUrl };
    expectRefusal(await call(['setup'], env), { code, what, remedy: /\S/ });
  });

  const yaml = (...more: string[]) =>
    [
      'nodes:',
      `  a: ${databases.sourceUrl}`,
      `  b: {url: "${databases.targetUrl}"}`,
      'syncs:',
      '  - {name: one, from: a, to: b}',
      ...more,
      '',
    ].join('\n');

  test.each([
    ['an unknown key', ['tabels: [public.item]'], /ibex\.yaml line 6, tabels: not a known key; .*tables/],
    [
      'an unknown key of a sync',
      ['  - {name: two, from: b, to: a, foward: true}'],
      /line 6, syncs\[1\]\.foward/,
    ],
    ['a wrong value', ['log_level: chatty'], /ibex\.yaml line 6, log_level: must be one of debug, info/],
    ['a node that is not there', ['  - {name: two, from: a, to: z}'], /line 6, syncs\[1\]\.to: no such node/],
    ['broken YAML', ['listen: [8642'], /ibex\.yaml line \d+: this is not valid YAML/],
  ])('ibex.yaml: %s', async (_what, more, what) => {
    await writeFile(join(directory, 'ibex.yaml'), yaml(...more));
    const results = await Promise.all([['setup'], ['run']].map((args) => call(args, {}, { cwd: directory })));
    for (const result of results) expectRefusal(result, { code: 2, what, remedy: /\S/ });
  });

  test('ibex.yaml: several syncs need --sync where one is meant', async () => {
    await writeFile(join(directory, 'ibex.yaml'), yaml('  - {name: two, from: a, to: b}'));
    const refusal = { code: 2, what: /several syncs \(one, two\)/, remedy: /\S/ };
    expectRefusal(await call(['setup'], {}, { cwd: directory }), refusal);
    expectRefusal(await call(['setup', '--sync', 'three'], {}, { cwd: directory }), {
      ...refusal,
      what: /--sync: no such sync; the syncs are one, two/,
    });
  });

  test('a table that is not there', async () => {
    const env = urls(databases);
    const refusal = { code: 2, what: /no table matches public\.itm/, remedy: /case-sensitive/ };
    const misspelt = (calls: string[][]) =>
      calls.flatMap((args) =>
        ['--tables', '--exclude'].map((list) => call([...args, list, 'public.itm'], env)),
      );
    const before = [['setup'], ['backfill'], ['run'], ['run', '--until-caught-up']];
    for (const result of await Promise.all(misspelt(before))) expectRefusal(result, refusal);
    expectRefusal(await call(['setup', '--exclude', 'public.*'], env), {
      ...refusal,
      what: /no table is left/,
      remedy: /\S/,
    });
    expect(await hasSchema(databases.source)).toBe(false);
    await succeeds(['setup'], env);
    const after = [['wait'], ['status'], ['teardown', '--yes']];
    for (const result of await Promise.all(misspelt(after))) {
      expectRefusal(result, { code: 2, what: /no table that matches public\.itm/, remedy: /public\.item/ });
    }
    await expectMended(databases, env);
  });

  test('nothing is set up yet', async () => {
    const refusal = { code: 3, what: /sync main is not set up/, remedy: /ibex setup/ };
    const results = await Promise.all(
      [['wait', '--timeout', '1s'], ['status']].map((args) => call(args, urls(databases))),
    );
    for (const result of results) expectRefusal(result, refusal);
    await succeeds(['teardown', '--yes'], urls(databases));
  });
});

describe('tables and rights', () => {
  let databases: Databases;
  let env: Record<string, string>;
  const roles: { admin: pg.Client; role: string }[] = [];

  beforeEach(async () => {
    databases = await withTables(await freshDatabases(servers));
    env = urls(databases);
  });

  afterEach(async () => {
    for (const { admin, role } of roles.splice(0))
      await admin.query(`drop owned by ${role}; drop role ${role}`);
    await databases.dropAll();
  });

  /** Another role on one side, and the URL by which it connects. */
  async function otherRole(
    side: 'source' | 'target',
    rights: string[],
  ): Promise<{ role: string; url: string }> {
    const admin = side === 'source' ? databases.sourceAdmin : databases.targetAdmin;
    const url = new URL(side === 'source' ? databases.sourceUrl : databases.targetUrl);
    const role = `${url.username}_guest`;
    await admin.query(`create role ${role} login password 'guest-pass'`);
    roles.push({ admin, role });
    for (const right of rights) await admin.query(right.replaceAll('ROLE', role));
    url.username = role;
    url.password = 'guest-pass';
    return { role, url: url.href };
  }

  async function expectUntouched(): Promise<void> {
    expect([await hasSchema(databases.source), await hasSchema(databases.target)]).toEqual([false, false]);
  }

  test('the target lacks a table', async () => {
    await databases.target.query('drop table item');
    const what = /table public\.item does not exist on the target/;
    expectRefusal(await call(['setup'], env), {
      code: 3,
      what,
      remedy: /^ {2}On the target: create table public\.item \(/,
    });
    await expectUntouched();
    // `run` and `backfill` go on with the other tables, and say no in the end.
    const backfill = await call(['backfill'], env);
    expect([backfill.code, backfill.stdout]).toEqual([1, expect.stringMatching(what)]);
    const run = await call(['run', '--until-caught-up'], env);
    expect([run.code, run.stderr]).toEqual([1, expect.stringMatching(what)]);
    await databases.target.query(TABLE);
    await expectMended(databases, env);
  });

  test('the target lacks a column', async () => {
    await onBoth(databases, 'create table "Odd.one" (id int primary key, "A b" int)');
    await databases.target.query('alter table "Odd.one" drop column "A b"');
    const result = await call(['setup'], env);
    expectRefusal(result, {
      code: 3,
      what: /public\."Odd\.one" lacks on the target: column A b/,
      remedy: /alter table public\."Odd\.one" add column "A b" /,
    });
    await expectUntouched();
    // What it prints is what helps.
    await databases.target.query(/alter table .*;/.exec(result.said[1] ?? '')?.[0] ?? 'no statement');
    await expectMended(databases, env);
  });

  test('two things at once are both named', async () => {
    await databases.source.query('create table more (id int primary key)');
    await databases.target.query('drop table item');
    const { code, said } = await call(['setup'], env);
    expect(code).toBe(3);
    expect(said.filter((line) => line.startsWith('error: '))).toHaveLength(2);
    expect(said.join()).toMatch(/public\.item/);
    expect(said.join()).toMatch(/public\.more/);
    await expectUntouched();
  });

  test('the role does not own the table of the source', async () => {
    const { role, url } = await otherRole('source', [
      'grant usage on schema public to ROLE',
      'grant select on item to ROLE',
      `grant create on database ${new URL(databases.sourceUrl).pathname.slice(1)} to ROLE`,
    ]);
    const other = { ...env, IBEX_SOURCE_URL: url };
    expectRefusal(await call(['setup'], other), {
      code: 3,
      what: /does not own public\.item/,
      remedy: /Connect as the owner of public\.item/,
    });
    await expectUntouched();
    await databases.sourceAdmin.query(`grant ${new URL(databases.sourceUrl).username} to ${role}`);
    await expectMended(databases, other);
  });

  test('the role may not write on the target', async () => {
    const { url } = await otherRole('target', [
      'grant select on item to ROLE',
      `grant create on database ${new URL(databases.targetUrl).pathname.slice(1)} to ROLE`,
    ]);
    const other = { ...env, IBEX_TARGET_URL: url };
    const result = await call(['setup'], other);
    expectRefusal(result, {
      code: 3,
      what: /may not read and write public\.item/,
      remedy: /grant usage .* grant select, insert/,
    });
    await expectUntouched();
    await databases.targetAdmin.query(/grant .*;/.exec(result.said[1] ?? '')?.[0] ?? 'no statement');
    await expectMended(databases, other);
  });

  test('the role does not own what has to be set aside on the target', async () => {
    await databases.target.query(`
      create table more (id int primary key, item int references item);
      create function note() returns trigger language plpgsql as 'begin return new; end';
      create trigger notes before insert on item for each row execute function note()`);
    const { role, url } = await otherRole('target', [
      'grant usage on schema public to ROLE',
      'grant select, insert, update, delete, truncate on item, more to ROLE',
      `grant create on database ${new URL(databases.targetUrl).pathname.slice(1)} to ROLE`,
    ]);
    const other = { ...env, IBEX_TARGET_URL: url };
    expectRefusal(await call(['setup'], other), {
      code: 3,
      what: /foreign keys, triggers or rules of public\.item have to be set aside/,
      remedy: /owner of public\.item/,
    });
    await expectUntouched();
    // `run` holds the table and goes on.
    const run = await call(['run', '--until-caught-up'], other);
    expect([run.code, run.said]).toEqual([1, []]);
    await databases.targetAdmin.query(`grant ${new URL(databases.targetUrl).username} to ${role}`);
    await expectMended(databases, other);
  });

  test('the role may not create temporary tables on the target', async () => {
    const owner = new URL(databases.sourceUrl).username;
    await databases.targetAdmin.query(`
      alter database ${owner} owner to postgres; revoke all on database ${owner} from public;
      grant connect, create on database ${owner} to ${owner}`);
    const result = await call(['setup'], env);
    const what = /may not create temporary tables/;
    expectRefusal(result, { code: 3, what, remedy: /grant temporary on database/ });
    await expectUntouched();
    await databases.targetAdmin.query(
      /grant temporary on .*;/.exec(result.said[1] ?? '')?.[0] ?? 'no statement',
    );
    await expectMended(databases, env);
    await databases.targetAdmin.query(`alter database ${owner} owner to ${owner}`);
  });

  test.each(['source', 'target'] as const)('the role may not create a schema on the %s', async (side) => {
    const admin = side === 'source' ? databases.sourceAdmin : databases.targetAdmin;
    const owner = new URL(databases.sourceUrl).username;
    await admin.query(`alter database ${owner} owner to postgres`);
    const result = await call(['setup'], env);
    expectRefusal(result, {
      code: 3,
      what: /may not create the schema ibex/,
      remedy: /grant create on database/,
    });
    await expectUntouched();
    // What it prints is what helps.
    await admin.query(/grant create on database .*;/.exec(result.said[1] ?? '')?.[0] ?? 'no statement');
    await expectMended(databases, env);
    await admin.query(`alter database ${owner} owner to ${owner}`);
  });
});

describe('where the password stands', () => {
  let databases: Databases;
  let directory: string;

  beforeAll(async () => {
    databases = await withTables(await freshDatabases(servers));
    directory = await mkdtemp(join(tmpdir(), 'ibex-secrets-'));
    await writeFile(join(directory, 'source'), `${databases.sourceUrl}\n`, { mode: 0o600 });
    await writeFile(join(directory, 'target'), `${databases.targetUrl}\n`, { mode: 0o600 });
  });

  afterAll(async () => {
    await rm(directory, { recursive: true });
    await databases.dropAll();
  });

  /** Starts the daemon, waits until it runs, gives its command line as everybody can read it. */
  async function commandLine(
    args: string[],
    env: Record<string, string>,
  ): Promise<{ line: string; logs: readonly LogLine[] }> {
    remember(databases.sourceUrl);
    remember(databases.targetUrl);
    const daemon = startIbex(['run', ...args], { env, cwd: directory });
    await daemon.waitForLog(/sync \w+ runs/);
    const line = await readFile(`/proc/${daemon.pid}/cmdline`, 'utf8');
    expect((await daemon.stop()).code).toBe(0);
    expectDiscreet(daemon);
    return { line, logs: daemon.logs };
  }

  test.runIf(process.platform === 'linux')('only a flag shows it to others, and warns', async () => {
    const pass = (url: string) => decodeURIComponent(new URL(url).password);
    const bare = (url: string) => changed(url, { password: '' });
    await writeFile(
      join(directory, 'ibex.yaml'),
      `nodes:\n  a: "${databases.sourceUrl}"\n  b: {url_file: target}\nsyncs: [{name: main, from: a, to: b}]\n`,
    );
    await writeFile(
      join(directory, '.pgpass'),
      [databases.sourceUrl, databases.targetUrl]
        .map((url) => `127.0.0.1:${new URL(url).port}:*:*:${pass(url).replace(/[\\:]/g, '\\$&')}\n`)
        .join(''),
      { mode: 0o600 },
    );
    const none = ['--config', 'none.yaml'];
    await writeFile(join(directory, 'none.yaml'), '');
    const ways: [string[], Record<string, string>][] = [
      [none, urls(databases)],
      [none, { IBEX_SOURCE_URL_FILE: 'source', IBEX_TARGET_URL_FILE: join(directory, 'target') }],
      [none, { IBEX_SOURCE_URL_COMMAND: 'cat source', IBEX_TARGET_URL_COMMAND: 'cat target' }],
      [[], {}],
      [
        [...none, '--source', bare(databases.sourceUrl), '--target', bare(databases.targetUrl)],
        { HOME: directory },
      ],
    ];
    for (const [args, env] of ways) {
      const { line, logs } = await commandLine(args, env);
      for (const secret of secrets) expect(line.includes(secret), line).toBe(false);
      expect(logs.filter(({ msg }) => /list of processes/.test(msg))).toEqual([]);
    }
    const flag = [...none, '--source', databases.sourceUrl, '--target', bare(databases.targetUrl)];
    const { logs } = await commandLine(flag, { PGPASSWORD: pass(databases.targetUrl) });
    expect(logs.map(({ msg }) => msg)).toContainEqual(
      expect.stringMatching(/^--source shows its password in the list of processes; use IBEX_SOURCE_URL/),
    );
  });
});

describe('the daemon', () => {
  let late: Cluster;
  let databases: Databases;

  beforeAll(async () => {
    late = await startCluster({ name: 'late', settings: { fsync: 'off' } });
    databases = await withTables(await freshDatabases({ source: late, target: servers.target }));
    remember(databases.sourceUrl);
    remember(databases.targetUrl);
  });

  afterAll(async () => {
    await late.remove();
  });

  /** The cluster comes and goes, and connections with it. */
  async function inLate(sql: string): Promise<void> {
    const client = new pg.Client({ connectionString: databases.sourceUrl });
    await client.connect();
    await client.query(sql);
    await client.end();
  }

  test.each([
    [
      'a wrong password',
      (url: string) => changed(url, { password: 'wrong' }),
      3,
      /password authentication failed/,
    ],
    ['no password', (url: string) => changed(url, { password: '' }), 3, /asks for a password/],
    [
      'a wrong database',
      (url: string) => changed(url, { database: 'nowhere' }),
      3,
      /"nowhere" does not exist/,
    ],
    ['TLS that the server lacks', (url: string) => `${url}?sslmode=require`, 3, /does not support SSL/],
    ['a URL that is none', () => 'mysql://h/d', 2, /must begin with postgres:\/\//],
  ])('gives up at once on %s', async (_what, spoil, code, what) => {
    const env = { ...urls(databases), IBEX_TARGET_URL: spoil(databases.targetUrl) };
    expectRefusal(await call(['run'], env), { code, what, remedy: /\S/ });
  });

  test('keeps trying when a server is away, says so, and goes on once it is there', async () => {
    await late.stop();
    await using daemon = startIbex(['run'], { env: urls(databases) });
    const line = await daemon.waitForLog(/ECONNREFUSED/);
    expect(line.msg).toMatch(/^127\.0\.0\.1:\d+\/app_\w+: .*Check host, port/);
    expect(daemon.said).toEqual([]);
    // The same words as a one-shot command, which does not wait.
    const once = await call(['status'], urls(databases));
    expect([once.code, once.said[0]]).toEqual([3, expect.stringMatching(/^error: .*ECONNREFUSED/)]);
    await waitFor(() => daemon.logs.filter(({ msg }) => /ECONNREFUSED/.test(msg)).length > 1, {
      what: 'a second attempt',
    });
    await late.start();
    await daemon.waitForLog(/sync main runs/);
    await succeeds(['wait'], urls(databases));
    // The same when it goes away later.
    await late.stop('immediate');
    await daemon.waitForLog(/trying again/);
    await late.start();
    await inLate(`insert into item values (100, 'after')`);
    await succeeds(['wait'], urls(databases));
    const { rows } = await databases.target.query('select name from item where id = 100');
    expect(rows).toEqual([{ name: 'after' }]);
    expect((await daemon.stop()).code).toBe(0);
    expectDiscreet(daemon);
    await succeeds(['teardown', '--yes'], urls(databases));
  });

  test('does not take a standby for a source', async () => {
    await late.stop();
    const signal = join(late.directory, 'data', 'standby.signal');
    await writeFile(signal, '');
    await late.start();
    const refusal = { code: 3, what: /is a standby/, remedy: /primary/ };
    const calls = [['setup'], ['backfill'], ['run']].map((args) => call(args, urls(databases)));
    for (const result of await Promise.all(calls)) expectRefusal(result, refusal);
    expect(await hasSchema(databases.target)).toBe(false);
    await late.stop();
    await rm(signal);
    await late.start();
    const source = new pg.Client({ connectionString: databases.sourceUrl });
    await source.connect();
    await expectMended({ ...databases, source }, urls(databases));
    await source.end();
  });

  test('is refused for a sync that another one runs, after half a minute at most', async () => {
    const { databases, holder, result } = second;
    expectRefusal(await result, {
      code: 3,
      what: new RegExp(`sync main is being run by another daemon \\(.*process ${holder.pid}\\)`),
      remedy: /Stop the other daemon/,
    });
    expect(holder.running).toBe(true);
    await succeeds(['wait'], urls(databases));
    expect(await holder.stop()).toMatchObject({ code: 0 });
    expectDiscreet(holder);
    await succeeds(['teardown', '--yes'], urls(databases));
    await databases.dropAll();
  });
});
