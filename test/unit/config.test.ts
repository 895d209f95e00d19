import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { configurationMarkdown } from '../../src/config/docs.ts';
import { type Config, type ConfigInput, loadConfig } from '../../src/config/load.ts';
import { type ConflictRules, ruleFor, rulesOf } from '../../src/core/conflict.ts';
import { IbexError } from '../../src/core/errors.ts';

const root = mkdtempSync(join(tmpdir(), 'ibex-config-'));
afterAll(() => rmSync(root, { recursive: true }));

let cwd = '';
let count = 0;
beforeEach(() => {
  cwd = join(root, String(count++));
  mkdirSync(cwd);
});

const URLS = {
  IBEX_SOURCE_URL: 'postgres://app:secret@a/app',
  IBEX_TARGET_URL: 'postgres://app:secret@b/app',
};

const FILE = `
redis: redis://127.0.0.1:6379
nodes:
  a: postgres://app:secret@a.example/app
  b: {url_file: b.url}
  c: {url_command: "printf 'postgres://c/%s' $DB"}
syncs:
  - {name: copy, from: a, to: b, tables: [public.*, 'app.x,app.y'], exclude: [public.log_*]}
  - {name: more, from: b, to: c}
`;

function write(text: string, name = 'ibex.yaml'): void {
  writeFileSync(join(cwd, name), text);
}

function load(flags: ConfigInput['flags'] = {}, env: NodeJS.ProcessEnv = URLS): Config {
  return loadConfig({ flags, env, cwd });
}

/** The message of the refusal; fails when it has another kind, or shows the password. */
function refusal(flags: ConfigInput['flags'] = {}, env: NodeJS.ProcessEnv = URLS): string {
  try {
    load(flags, env);
  } catch (error) {
    if (!(error instanceof IbexError)) throw error;
    expect(error.kind).toBe('config');
    expect(`${error.message} ${error.hint} ${String(error.cause)}`).not.toContain('secret');
    return error.message;
  }
  throw new Error('accepted');
}

const texts = (patterns: { text: string }[] | undefined) => patterns?.map(({ text }) => text);

describe('two URLs', () => {
  it('make one sync called main between source and target', async () => {
    const { syncs } = load();
    expect(syncs).toHaveLength(1);
    expect(syncs[0]).toMatchObject({ name: 'main', tables: [], exclude: [], keyless: 'carry' });
    expect(syncs[0]?.source.name).toBe('source');
    expect(syncs[0]?.target.name).toBe('target');
    expect(await syncs[0]?.source.resolveUrl()).toBe(URLS.IBEX_SOURCE_URL);
    expect(await syncs[0]?.target.resolveUrl()).toBe(URLS.IBEX_TARGET_URL);
  });

  it('come with defaults for the rest', () => {
    expect(load()).toMatchObject({
      redis: undefined,
      listen: undefined,
      httpToken: undefined,
      logLevel: 'info',
      logFormat: 'auto',
      json: false,
      spoolDir: tmpdir(),
      lockTimeoutMs: 100,
      armTimeoutMs: 30_000,
      timeoutMs: 60_000,
      warnings: [],
    });
  });

  it('are demanded by name', () => {
    expect(refusal({}, {})).toMatch(/source is not given: set --source or IBEX_SOURCE_URL/);
    expect(refusal({ source: 'postgres://a' }, {})).toMatch(/--target or IBEX_TARGET_URL/);
  });

  it('are read anew from files and commands', async () => {
    write('postgres://one\n', 'url');
    const env = { PATH: process.env.PATH, NAME: 'two', IBEX_SOURCE_URL_FILE: 'url' };
    const [sync] = load({}, { ...env, IBEX_TARGET_URL_COMMAND: 'echo postgres://$NAME' }).syncs;
    expect(await sync?.source.resolveUrl()).toBe('postgres://one');
    write('postgres://rotated\n', 'url');
    expect(await sync?.source.resolveUrl()).toBe('postgres://rotated');
    expect(await sync?.target.resolveUrl()).toBe('postgres://two');
  });

  it.each([
    ['echo secret >&2; exit 3', 'connection', /IBEX_SOURCE_URL_COMMAND: the command ended with exit code 3/],
    ['no-such-command secret', 'config', /exit code 127/],
    ['true secret', 'config', /gave nothing/],
    ['echo secret secret', 'config', /more than one/],
  ])('fail with a reason: %s', async (command, kind, message) => {
    const env = { PATH: process.env.PATH, IBEX_SOURCE_URL_COMMAND: command, IBEX_TARGET_URL: 'postgres://b' };
    const error: unknown = await load({}, env)
      .syncs[0]?.source.resolveUrl()
      .catch((reason) => reason);
    expect(error).toMatchObject({ kind, message: expect.stringMatching(message) });
    expect(`${error} ${(error as Error).cause}`).not.toContain('secret');
  });

  it('fail when their file is missing', async () => {
    const env = { IBEX_SOURCE_URL_FILE: 'postgres://u:secret@h', IBEX_TARGET_URL: 'postgres://b' };
    const error: unknown = await load({}, env)
      .syncs[0]?.source.resolveUrl()
      .catch((reason) => reason);
    expect(error).toMatchObject({
      kind: 'config',
      message: 'IBEX_SOURCE_URL_FILE: the file it names cannot be read (ENOENT)',
    });
    expect((error as Error).cause).toBeUndefined();
  });

  it('are refused when they are given in two ways', () => {
    expect(refusal({}, { ...URLS, IBEX_SOURCE_URL_FILE: 'x' })).toMatch(
      /IBEX_SOURCE_URL and IBEX_SOURCE_URL_FILE are both set/,
    );
  });
});

describe('precedence', () => {
  it('is flags, environment, file, default', () => {
    write('log_level: error\nlog_format: json\nlock_timeout_ms: 50\n');
    const config = load(
      { logLevel: 'debug' },
      { ...URLS, IBEX_LOG_LEVEL: 'warn', IBEX_LOG_FORMAT: 'pretty' },
    );
    expect(config).toMatchObject({
      logLevel: 'debug',
      logFormat: 'pretty',
      lockTimeoutMs: 50,
      armTimeoutMs: 30_000,
    });
  });

  it('holds for URLs', async () => {
    write('source: postgres://file\ntarget: {url_file: t}\n');
    write('postgres://t', 't');
    const [sync] = load({ source: 'postgres://flag' }, {}).syncs;
    expect(await sync?.source.resolveUrl()).toBe('postgres://flag');
    expect(await sync?.target.resolveUrl()).toBe('postgres://t');
  });

  it('takes an empty variable as not set', () => {
    expect(load({}, { ...URLS, IBEX_REDIS_URL: '', IBEX_SOURCE_URL_FILE: '' }).redis).toBeUndefined();
  });
});

describe('values', () => {
  it.each([
    ['timeout', '5m', 'timeoutMs', 300_000],
    ['timeout', '1500ms', 'timeoutMs', 1500],
    ['timeout', '1.5s', 'timeoutMs', 1500],
    ['timeout', '0', 'timeoutMs', 0],
    ['armTimeout', '90', 'armTimeoutMs', 90_000],
    ['armTimeout', '1h', 'armTimeoutMs', 3_600_000],
    ['lockTimeoutMs', '20', 'lockTimeoutMs', 20],
    ['json', true, 'json', true],
    ['listen', '127.0.0.1:0', 'listen', { host: '127.0.0.1', port: 0 }],
    ['listen', '8642', 'listen', { host: '127.0.0.1', port: 8642 }],
    ['listen', 'localhost:1', 'listen', { host: 'localhost', port: 1 }],
    ['listen', '[::1]:1', 'listen', { host: '::1', port: 1 }],
    ['redis', 'rediss://h:1/2', 'redis', { url: 'rediss://h:1/2', tls: undefined, encryptionKey: undefined }],
    ['spoolDir', '/var/spool', 'spoolDir', '/var/spool'],
  ])('--%s %s', (flag, value, key, expected) => {
    expect(load({ [flag]: value })[key as keyof Config]).toEqual(expected);
  });

  it('about Redis are read from files, by the directory of what names them', () => {
    const key = Buffer.alloc(32, 7);
    write(key.toString('hex'), 'hex');
    write(`${key.toString('base64')}\n`, 'base64');
    write('not a key', 'short');
    write('PEM', 'pem');
    writeFileSync(join(cwd, 'raw'), key);
    for (const file of ['hex', 'base64', 'raw']) {
      expect(load({ redis: 'redis://h', redisEncryptionKey: file }).redis?.encryptionKey).toEqual(key);
    }
    const tls = { redis: 'rediss://h', redisCa: 'pem', redisCert: 'pem', redisKey: 'pem' };
    const pem = Buffer.from('PEM');
    expect(load(tls).redis?.tls).toEqual({ rejectUnauthorized: true, ca: pem, cert: pem, key: pem });
    expect(load({ redis: 'rediss://h', redisVerify: 'false' }).redis?.tls).toEqual({
      rejectUnauthorized: false,
    });
    expect(refusal({ redis: 'redis://h', redisEncryptionKey: 'short' })).toMatch(
      /^--redis-encryption-key: .* 32 bytes/,
    );
    const missing = refusal({ redis: 'redis://h', redisEncryptionKey: 'c2VjcmV0' });
    expect(missing).toMatch(/^--redis-encryption-key: .*ENOENT/);
    expect(missing).not.toContain('c2VjcmV0');
    expect(refusal({ redis: 'redis://h', redisCa: 'pem' })).toMatch(
      /^--redis-ca: .* redis:\/\/ does not use/,
    );
    expect(refusal({ redis: 'rediss://h', redisCert: 'pem' })).toMatch(/go together/);
  });

  it('take relative paths from the working directory, or from the file', () => {
    expect(load({ spoolDir: 'spool' }).spoolDir).toBe(join(cwd, 'spool'));
    mkdirSync(join(cwd, 'etc'));
    write('spool_dir: spool\n', 'etc/ibex.yaml');
    expect(load({ config: 'etc/ibex.yaml' }).spoolDir).toBe(join(cwd, 'etc', 'spool'));
  });

  it.each([
    [{ logLevel: 'secret' }, /^--log-level: must be one of debug, info, warn, error$/],
    [{ keyless: 'maybe' }, /^--keyless: must be one of carry, refuse$/],
    [{ logFormat: 'xml' }, /^--log-format: must be one of auto, json, pretty$/],
    [{ listen: 'postgres://secret' }, /^--listen: must be HOST:PORT/],
    [{ listen: ':8642' }, /^--listen: must be HOST:PORT/],
    [{ listen: 'h:70000' }, /^--listen/],
    [{ redis: 'http://:secret@h' }, /^--redis: must be a URL that begins with redis:/],
    [{ redis: 'redis://:secret@h:x' }, /^--redis: must be a URL/],
    [{ timeout: 'soon' }, /^--timeout: must be a duration/],
    [{ timeout: '-1s' }, /^--timeout/],
    [{ timeout: '9999h' }, /24 days/],
    [{ lockTimeoutMs: '0' }, /^--lock-timeout-ms: must be a number of milliseconds from 1 to 60000/],
    [{ lockTimeoutMs: '1s' }, /^--lock-timeout-ms: must be a number of milliseconds/],
    [{ tables: 'orders' }, /^--tables: orders does not name a schema/],
    [{ exclude: 'postgres://u:secret@h/d' }, /^--exclude: a URL/],
    [{ tables: '' }, /^--tables: /],
    [{ maxDeltaBytes: '500' }, /^--max-delta-bytes: must be a size such as 500MB/],
    [{ maxDeltaBytes: '10kB' }, /^--max-delta-bytes: must be a size/],
    [{ maxDeltaAge: '7' }, /^--max-delta-age: must be an age such as/],
    [{ sync: 'other' }, /^--sync: .*main/],
    [{ source: '' }, /^--source/],
  ])('%j is refused', (flags, message) => {
    expect(refusal(flags)).toMatch(message);
  });

  it('are refused under the name of the variable', () => {
    expect(refusal({}, { ...URLS, IBEX_JSON: 'maybe' })).toMatch(/^IBEX_JSON: must be true or false$/);
  });

  it('of patterns may be repeated or separated by commas', () => {
    const [sync] = load({ tables: ['a.b,c.d', '"E".f'] }, { ...URLS, IBEX_EXCLUDE: 'a.x, a.y' }).syncs;
    expect(texts(sync?.tables)).toEqual(['a.b', 'c.d', '"E".f']);
    expect(texts(sync?.exclude)).toEqual(['a.x', 'a.y']);
  });
});

describe('unknown names', () => {
  it('are refused in the environment, those of Kubernetes services aside', () => {
    expect(refusal({}, { ...URLS, IBEX_TABELS: 'secret' })).toMatch(
      /^IBEX_TABELS: not a known variable; .*IBEX_TABLES/,
    );
    const links = { IBEX_PORT: 'tcp://x', IBEX_PORT_8642_TCP_ADDR: 'x', IBEX_REDIS_SERVICE_HOST: 'x' };
    expect(load({}, { ...URLS, ...links }).syncs).toHaveLength(1);
  });

  it('among the flags belong to the command', () => {
    expect(load({ untilCaughtUp: true }).syncs).toHaveLength(1);
  });
});

describe('the HTTP token', () => {
  it.each(['0.0.0.0:1', '[::]:1', 'ibex.example:1', '10.0.0.1:1'])('is needed for %s', (listen) => {
    expect(refusal({ listen })).toMatch(/^--listen: .* token is needed/);
    expect(load({ listen }, { ...URLS, IBEX_HTTP_TOKEN: 't' }).httpToken).toBe('t');
  });
});

describe('warnings', () => {
  it('name flags with a secret', () => {
    const flags = { source: 'postgres://u:secret@a/d', target: 'postgres://u@b/d', httpToken: 'secret' };
    const { warnings } = load({ ...flags, redis: 'redis://:secret@h' }, {});
    expect(warnings).toHaveLength(3);
    expect(warnings[0]).toBe(
      '--source shows its password in the list of processes; use IBEX_SOURCE_URL or a file instead',
    );
    expect(warnings.join()).toMatch(/--redis shows its password.*--http-token shows its token/);
    expect(warnings.join()).not.toContain('secret');
  });
});

describe('ibex.yaml', () => {
  it('defines nodes and syncs', async () => {
    write(FILE);
    write('postgres://app:secret@b.example/app\n', 'b.url');
    const { syncs, redis } = load({}, { PATH: process.env.PATH, DB: 'db' });
    expect(redis?.url).toBe('redis://127.0.0.1:6379');
    expect(syncs.map(({ name, source, target }) => [name, source.name, target.name])).toEqual([
      ['copy', 'a', 'b'],
      ['more', 'b', 'c'],
    ]);
    expect(texts(syncs[0]?.tables)).toEqual(['public.*', 'app.x', 'app.y']);
    expect(texts(syncs[0]?.exclude)).toEqual(['public.log_*']);
    expect(syncs[1]).toMatchObject({ tables: [], exclude: [] });
    expect(await syncs[0]?.source.resolveUrl()).toBe('postgres://app:secret@a.example/app');
    expect(await syncs[0]?.target.resolveUrl()).toBe('postgres://app:secret@b.example/app');
    expect(await syncs[1]?.target.resolveUrl()).toBe('postgres://c/db');
  });

  it('may be empty, or missing unless it is named', () => {
    write('# nothing\n');
    expect(load().syncs[0]?.name).toBe('main');
    expect(refusal({ config: 'other.yaml' })).toBe('--config: there is no file other.yaml');
    expect(refusal({}, { ...URLS, IBEX_CONFIG: 'other.yaml' })).toBe(
      'IBEX_CONFIG: there is no file other.yaml',
    );
    expect(refusal({ config: '.' })).toBe('. cannot be read');
  });

  it('lets --sync pick a sync, and --tables stand in for those of one sync', () => {
    write(FILE);
    expect(load({ sync: 'more' }, {}).syncs.map(({ name }) => name)).toEqual(['more']);
    expect(refusal({ sync: 'none' }, {})).toBe('--sync: no such sync; the syncs are copy, more');
    const [sync] = load({ sync: 'copy', tables: 'app.z' }, {}).syncs;
    expect(texts(sync?.tables)).toEqual(['app.z']);
    expect(texts(sync?.exclude)).toEqual(['public.log_*']);
    expect(refusal({ tables: 'app.z' }, {})).toMatch(/^--tables: .* pick one with --sync/);
  });

  it('makes two lanes of a sync between two nodes, of which --sync picks both or the one back', () => {
    write('nodes: {a: postgres://a, b: postgres://b}\nsyncs:\n  - {name: pair, between: [a, b]}\n');
    const lanes = (sync?: string) =>
      load(sync === undefined ? {} : { sync }, {}).syncs.map(({ name, source }) => [name, source.name]);
    const both = [
      ['pair', 'a'],
      ['pair.back', 'b'],
    ];
    expect(lanes()).toEqual(both);
    expect(lanes('pair')).toEqual(both);
    expect(lanes('pair.back')).toEqual([['pair.back', 'b']]);
  });

  it('and URLs together are ambiguous', () => {
    write(FILE);
    expect(refusal()).toBe(
      'IBEX_SOURCE_URL and ibex.yaml line 7, syncs both say what to copy; leave one out',
    );
    expect(refusal({ target: 'postgres://u:secret@h' }, {})).toMatch(
      /^--target and ibex.yaml line 7, syncs both/,
    );
  });

  it('may share a list by an alias', () => {
    write(
      'nodes: {a: postgres://a, b: postgres://b}\nsyncs:\n- {name: x, from: a, to: b, tables: &t [p.q], exclude: *t}\n',
    );
    expect(texts(load({}, {}).syncs[0]?.exclude)).toEqual(['p.q']);
  });

  it('has budgets for all syncs, and others for one', () => {
    write(
      `max_delta_bytes: 20GB\nnodes: {a: postgres://a, b: postgres://b, c: postgres://c}\nsyncs:\n` +
        `  - {name: x, from: a, to: b}\n  - {name: y, from: a, to: c, max_delta_bytes: none, max_delta_age: 12h}\n`,
    );
    const budgets = (flags = {}) => load(flags, {}).syncs.map(({ budget }) => budget);
    const twenty = 20 * 2 ** 30;
    expect(budgets()).toEqual([
      { bytes: twenty, ageMs: null },
      { bytes: null, ageMs: 43_200_000 },
    ]);
    expect(budgets({ maxDeltaBytes: 'auto', maxDeltaAge: '1.5d' })).toEqual([
      { bytes: 'auto', ageMs: 129_600_000 },
      { bytes: 'auto', ageMs: 129_600_000 },
    ]);
  });

  it('says what is carried of single tables', () => {
    write(
      `nodes: {a: postgres://a, b: postgres://b}\nsyncs:\n  - name: x\n    from: a\n    to: b\n    carry:
      public.users: {columns: [id, name], select: {email: md5(email)}, where: tenant_id = 4}
      '"A.b"."c d"': {where: "true -- yes"}\n`,
    );
    expect(load({}, {}).syncs[0]?.carry).toEqual([
      {
        schema: 'public',
        name: 'users',
        columns: ['id', 'name'],
        select: [{ column: 'email', expression: 'md5(email)' }],
        where: 'tenant_id = 4',
        place: 'ibex.yaml line 7, syncs[0].carry.public.users',
      },
      {
        schema: 'A.b',
        name: 'c d',
        columns: null,
        select: [],
        where: 'true -- yes',
        place: expect.stringMatching(/line 8/),
      },
    ]);
  });

  const nodes =
    'nodes:\n  a: postgres://u:secret@a\n  b: postgres://u:secret@b\n  c: postgres://u:secret@c\n';
  const sync = (name: string, from: string, to: string) => `  - {name: ${name}, from: ${from}, to: ${to}}\n`;

  it.each([
    [
      'log_levle: info\n',
      /^ibex.yaml line 1, log_levle: not a known key; the keys here are .*log_level.*syncs$/,
    ],
    ['\nlog_level: secret\n', /^ibex.yaml line 2, log_level: must be one of debug, info, warn, error$/],
    ['json: true\n', /line 1, json: not a known key/],
    ['redis: postgres://u:secret@h\n', /line 1, redis: must be a URL that begins with redis/],
    ['redis:\n', /line 1, redis: must be/],
    ['source: {url_fil: secret}\n', /line 1, source: .*exactly one of the keys url, url_file, url_command/],
    ['source:\n  url: secret\n  url_file: secret\n', /line 1, source: .*exactly one/],
    ['listen: {port: 1}\n', /line 1, listen: must be HOST:PORT/],
    ['tables: []\n', /line 1, tables: must be one pattern/],
    ['tables: [orders]\n', /line 1, tables: orders does not name a schema/],
    ['tables: [*.*]\n', /line 1: a value that begins with \* needs quotes/],
    ['- secret\n', /line 1: must be a mapping/],
    ['secret\n', /line 1: must be a mapping/],
    ['log_level: info\nlog_level: warn\n', /line 2: this is not valid YAML \(duplicate key\)/],
    ['redis: redis://u:secret@h: x\n', /line 1: this is not valid YAML/],
    ['redis://u:secret@h/x: 1\n', /line 1, \(no word\): not a known key/],
    [nodes, /line 1, nodes: needs syncs beside it/],
    ['syncs: []\n', /line 1, syncs: must have at least one sync/],
    [`syncs:\n${sync('x', 'a', 'b')}`, /line 1, syncs: needs nodes beside it/],
    ['nodes:\n  A1: postgres://u:secret@h\n', /line 2, nodes.A1: must begin with a-z/],
    ['nodes: [secret]\n', /line 1, nodes: must be a mapping of names/],
    ['nodes:\n  a: 5\n', /line 2, nodes.a: must be a URL/],
    [`${nodes}syncs:\n${sync('x', 'a', 'd')}`, /line 6, syncs\[0\].to: no such node; the nodes are a, b, c$/],
    [
      `${nodes}syncs:\n${sync('x', 'postgres://u:secret@h', 'b')}`,
      /line 6, syncs\[0\].from: must begin with a-z/,
    ],
    [`${nodes}syncs:\n${sync('x-y', 'a', 'b')}`, /line 6, syncs\[0\].name: must begin with a-z/],
    [`${nodes}syncs:\n  - {from: a, to: b}\n`, /line 6, syncs\[0\].name: must be a name/],
    [
      `${nodes}syncs:\n${sync('x', 'a', 'b')}${sync('x', 'a', 'c')}`,
      /line 7, syncs\[1\].name: the name x is taken/,
    ],
    [
      `${nodes}syncs:\n  - name: x\n    from: a\n    to: b\n    tabels: [a.b]\n`,
      /line 9, syncs\[0\].tabels: not a known key; the keys here are name, from, to, between, conflicts, guard, forward, tables, exclude, max_delta_bytes, max_delta_age, carry$/,
    ],
    [
      `${nodes}syncs:\n  - {name: x, between: [a, b], conflicts: {types: {insert_exists: oldest}}}\n  - {name: y, between: [b, c]}\n`,
      /line 6, syncs\[0\].conflicts.types.insert_exists: oldest decides between two nodes only/,
    ],
    [
      `${nodes}syncs:\n  - {name: x, between: [a, b], conflicts: {default: source}}\n  - {name: y, between: [b, c]}\n`,
      /line 6, syncs\[0\].conflicts.default: b yields to a by it, and may yield to c too/,
    ],
    [
      `${nodes}syncs:\n  - {name: x, between: [b, a]}\n  - {name: y, between: [b, c], conflicts: {tables: {public.t: {strategy: priority, nodes: [c, b]}}}}\n`,
      /line 7, syncs\[1\].conflicts.tables.public.t: b yields to c by it, and may yield to a too/,
    ],
    [
      `${nodes}syncs:\n  - {name: x, from: a, to: b, forward: false}\n`,
      /line 6, syncs\[0\].forward: can only be true: a sync also carries what other syncs brought/,
    ],
    [
      `${nodes}syncs:\n  - {name: x, from: a, to: b, tables: [secret://x.y]}\n`,
      /syncs\[0\].tables: a URL stands/,
    ],
    ...(
      [
        ['public.users: {}', /carry\.public\.users: must have one of the keys columns, select, where$/],
        ['public.users: x', /carry\.public\.users: must be a mapping with the keys columns, select, where$/],
        [
          'public.users: {wehre: secret}',
          /carry\.public\.users\.wehre: not a known key; the keys here are columns, select, where$/,
        ],
        ['public.users: {where: 1}', /carry\.public\.users\.where: must be SQL, as a text$/],
        ['public.users: {where: " "}', /carry\.public\.users\.where: must not be empty$/],
        ['public.users: {columns: id}', /carry\.public\.users\.columns: must be a list of columns$/],
        ['public.users: {columns: []}', /carry\.public\.users\.columns: must name a column$/],
        ['public.users: {columns: [1]}', /carry\.public\.users\.columns\[0\]: must be the name of a column$/],
        ['public.users: {select: [a]}', /carry\.public\.users\.select: must be a mapping of columns to SQL$/],
        ['public.users: {select: {a: 1}}', /carry\.public\.users\.select\.a: must be SQL, as a text$/],
        ['users: {where: a}', /carry\.users: users does not name a schema/],
        ['public.*: {where: a}', /carry\..*: must be one table, schema\.table without wildcards$/],
        ['"public.a,public.b": {where: a}', /carry\..*: must be one table/],
        ['"postgres://u:secret@h": {where: a}', /carry\.\(no word\): a URL stands/],
      ] as const
    ).map(([entry, message]): [string, RegExp] => [
      `${nodes}syncs:\n  - name: x\n    from: a\n    to: b\n    carry:\n      ${entry}\n`,
      new RegExp(`^ibex\\.yaml line 10, syncs\\[0\\]\\.${message.source}`),
    ]),
    [
      `${nodes}syncs:\n  - name: x\n    from: a\n    to: b\n    carry:\n      public.a: {where: a}\n      '"public".a': {where: a}\n`,
      /line 11, syncs\[0\]\.carry\.\(no word\): the table is there twice$/,
    ],
    [`${nodes}syncs: [x]\n`, /line 5, syncs\[0\]: must be a mapping with the keys name/],
    [`${nodes}syncs:\n${sync('x', 'a', 'a')}`, /line 5, syncs: they form a cycle, a -> a/],
    [`${nodes}syncs:\n${sync('x', 'a', 'b')}${sync('y', 'b', 'a')}`, /they form a cycle, a -> b -> a/],
    [
      `${nodes}syncs:\n${sync('x', 'a', 'b')}${sync('y', 'b', 'c')}${sync('z', 'c', 'b')}`,
      /they form a cycle, b -> c -> b/,
    ],
    [
      `tables: [p.q]\n${nodes}syncs:\n${sync('x', 'a', 'b')}`,
      /line 1, tables: belongs into each of the syncs/,
    ],
  ])('%s', (text, message) => {
    write(text);
    expect(refusal({}, {})).toMatch(message);
  });

  it('makes two lanes of a sync between two nodes, with the rules of each table', () => {
    write(`${nodes}syncs:
  - name: pair
    between: [a, b]
    conflicts: {default: oldest, types: {update_missing: hold}, tables: {'public.*': target, public.t: source}}
`);
    const [there, back] = load({}, {}).syncs;
    expect([there?.name, there?.source.name, there?.target.name]).toEqual(['pair', 'a', 'b']);
    expect([back?.name, back?.source.name, back?.target.name]).toEqual(['pair.back', 'b', 'a']);
    expect([there?.rivalry?.counterpart, back?.rivalry?.counterpart]).toEqual(['pair.back', 'pair']);
    const rules = back?.rivalry?.rules as ConflictRules;
    const strategyOf = (name: string, schema = 'public') => rulesOf(rules, { schema, name }).rule.strategy;
    expect([strategyOf('t'), strategyOf('u'), strategyOf('t', 'other')]).toEqual([
      'source',
      'target',
      'oldest',
    ]);
    expect(ruleFor(rules.all, 'update_missing').strategy).toBe('hold');
  });

  it('guards the target of a sync that goes one way, by the rules of a sync between its two nodes', () => {
    write(
      `${nodes}syncs:\n  - {name: x, from: a, to: b, guard: true, conflicts: {default: {strategy: priority, nodes: [b, a]}}}\n`,
    );
    const [only, ...more] = load({}, {}).syncs;
    expect([only?.rivalry, more]).toEqual([null, []]);
    expect(only?.guard).toMatchObject({ counterpart: 'x.guard', first: 'a', second: 'b' });
    expect(only?.guard?.rules.all.rule).toMatchObject({ strategy: 'priority', nodes: ['b', 'a'] });
  });

  it.each([
    [
      'from: a, to: b, conflicts: {default: hold}',
      /conflicts: belongs to a sync with between, or with guard: true$/,
    ],
    ['from: a, to: b, guard: maybe', /guard: must be true or false$/],
    ['between: [a, b], guard: true', /guard: does not go together with between$/],
    [
      'from: a, to: b, guard: true, carry: {public.t: {where: v}}',
      /carry: does not go together with guard: true$/,
    ],
  ])('refuses a guard: %s', (text, message) => {
    write(`${nodes}syncs:\n  - {name: x, ${text}}\n`);
    expect(refusal({}, {})).toMatch(message);
  });

  it.each([
    [
      '{default: newst}',
      /conflicts\.default: must be one of source, target, newest, oldest, priority, column/,
    ],
    ['{default: column}', /conflicts\.default: column needs a mapping with column beside it$/],
    [
      '{default: {strategy: newest, column: v}}',
      /conflicts\.default: column belongs to another strategy than newest$/,
    ],
    ['{default: {strategy: priority, nodes: [a]}}', /conflicts\.default: nodes must be a and b, each once$/],
    ['{tables: {t: hold}}', /conflicts\.tables\.t: t does not name a schema/],
    ['{types: {update: hold}}', /conflicts\.types\.update: /],
  ])('refuses conflicts: %s', (conflicts, message) => {
    write(`${nodes}syncs:\n  - {name: pair, between: [a, b], conflicts: ${conflicts}}\n`);
    expect(refusal({}, {})).toMatch(message);
  });

  it('refuses a ring of two-way syncs, and lets a chain be', () => {
    const between = (name: string, one: string, other: string) =>
      `  - {name: ${name}, between: [${one}, ${other}]}\n`;
    write(`${nodes}syncs:\n${between('x', 'a', 'b')}${between('y', 'b', 'c')}`);
    expect(load({}, {}).syncs).toHaveLength(4);
    write(`${nodes}syncs:\n${between('x', 'a', 'b')}${between('y', 'b', 'c')}${between('z', 'c', 'a')}`);
    expect(refusal({}, {})).toMatch(/they form a cycle, a -> b -> c -> a/);
  });

  it('takes a diamond, which is no cycle', () => {
    const syncs = [sync('w', 'a', 'b'), sync('x', 'a', 'c'), sync('y', 'b', 'd'), sync('z', 'c', 'd')].join(
      '',
    );
    write(`${nodes}  d: postgres://d\nsyncs:\n${syncs}`);
    expect(load({}, {}).syncs).toHaveLength(4);
  });
});

describe('docs/configuration.md', () => {
  it('is up to date', () => {
    const path = new URL('../../docs/configuration.md', import.meta.url);
    const message = 'docs/configuration.md is out of date: run npx tsx scripts/write-docs.ts';
    expect(readFileSync(path, 'utf8') === configurationMarkdown(), message).toBe(true);
  });
});
