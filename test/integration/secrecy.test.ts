/**
 * Who can listen in, or pass for somebody else: TLS on the way to servers and to Redis, against good, wrong and forged
 * certificates; rows in Redis; and secrets in what the programs print.
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect as connectTo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../src/embedded/process.ts';
import { type RedisServer, startRedis } from '../../src/embedded/redis.ts';
import { Session } from '../../src/postgres/session.ts';
import { type Certificate, createAuthority, selfSigned } from '../support/certificates.ts';
import { ibex, startIbex } from '../support/ibex.ts';
import { type Databases, freshDatabases, redisForTests, useServers, waitFor } from '../support/servers.ts';
import { expectEqual, onBoth, type RunningSync, startSync } from '../support/sync.ts';
import { serveTls } from '../support/tls.ts';

const servers = await useServers();

const authority = createAuthority('An authority');
const stranger = createAuthority('Another authority');
const good = authority.issue('server', ['localhost', '127.0.0.1']);

let files: string;
let databases: Databases;
let sync: RunningSync | undefined;

beforeAll(() => {
  files = mkdtempSync(join(tmpdir(), 'ibex-secrecy-'));
  chmodSync(files, 0o755);
});
afterAll(() => rmSync(files, { recursive: true, force: true }));

beforeEach(async () => {
  sync = undefined;
  databases = await freshDatabases(servers);
});
afterEach(async () => {
  await sync?.stop();
  await databases.dropAll();
});

let count = 0;

/** The path of a file that only we can read. */
function file(text: string | Buffer, mode = 0o600): string {
  const path = join(files, `file-${++count}`);
  writeFileSync(path, text, { mode });
  return path;
}

type Side = 'source' | 'target';

/** Has a server answer with this certificate, and admit connections by these lines of pg_hba.conf. */
function serve(side: Side, certificate: Certificate, admit = ADMIT): Promise<void> {
  const admin = side === 'source' ? databases.sourceAdmin : databases.targetAdmin;
  return serveTls(servers[side], admin, { certificate, clients: authority.cert, admit });
}

const ADMIT = 'host all all 127.0.0.1/32 scram-sha-256';

/** The URL of the source at `host` with these parameters. */
function at(host: string, query: string, url = databases.sourceUrl): string {
  const there = new URL(url);
  there.hostname = host;
  return `${there.href}?${query}`;
}

/** What came of connecting: what the session promises, and whether the server says that it is encrypted; or the error. */
async function connected(host: string, query: string): Promise<string> {
  try {
    await using session = await Session.open({ url: at(host, query), name: 'ibex:test:tls' });
    const { ssl } = await session.row<{ ssl: boolean }>(
      'select ssl from pg_stat_ssl where pid = pg_backend_pid()',
    );
    expect(ssl).toBe(session.peer.tls !== 'off');
    return session.peer.tls;
  } catch (error) {
    const { kind } = error as { kind: string };
    return `${kind}: ${(error as Error).message.replace(/^.*?\/\w+: /, '')}`;
  }
}

describe('TLS to a server', () => {
  test('means what libpq means by each mode', async () => {
    const root = `sslrootcert=${file(authority.cert)}`;
    await serve('source', good);
    const outcomes = async (host: string, queries: string[]) =>
      Object.fromEntries(
        await Promise.all(queries.map(async (query) => [query, await connected(host, query)])),
      );
    const modes = ['disable', 'allow', 'prefer', 'require'].map((mode) => `sslmode=${mode}`);
    const verified = ['require', 'verify-ca', 'verify-full'].map((mode) => `sslmode=${mode}&${root}`);
    const [plain, full] = [verified.slice(0, 2), verified.slice(2)];
    const all = (queries: string[], outcome: unknown) =>
      Object.fromEntries(queries.map((one) => [one, outcome]));
    const system = 'sslrootcert=system';
    const unknown = expect.stringMatching(/^connection: .*(self-signed|unable to)/);

    expect(await outcomes('localhost', [...modes, ...verified, system]), 'good').toEqual({
      'sslmode=disable': 'off',
      'sslmode=allow': 'off',
      'sslmode=prefer': 'unverified',
      'sslmode=require': 'unverified',
      ...all(verified, 'verified'),
      [system]: unknown,
    });
    expect(await outcomes('127.0.0.1', full), 'good, by address').toEqual(all(full, 'verified'));

    await serve('source', authority.issue('server', ['other.example']));
    for (const host of ['localhost', '127.0.0.1'])
      expect(await outcomes(host, [...modes, ...verified]), 'wrong host').toMatchObject({
        'sslmode=require': 'unverified',
        ...all(plain, 'verified'),
        ...all(full, expect.stringMatching(/^connection: .*does not match/)),
      });

    for (const certificate of [
      stranger.issue('server', ['localhost']),
      selfSigned('server', ['localhost']),
    ]) {
      await serve('source', certificate);
      expect(await outcomes('localhost', [...modes, ...verified]), 'not ours').toMatchObject({
        'sslmode=prefer': 'unverified',
        'sslmode=require': 'unverified',
        ...all(verified, unknown),
      });
    }
    const itself = selfSigned('server', ['localhost']);
    await serve('source', itself);
    const trusting = `sslmode=verify-full&sslrootcert=${file(itself.cert)}`;
    expect(await connected('localhost', trusting), 'self-signed, and trusted').toBe('verified');
  });

  test('a certificate that was revoked is refused', async () => {
    const mode = `sslmode=verify-full&sslrootcert=${file(authority.cert)}`;
    await serve('source', good);
    expect(await connected('localhost', `${mode}&sslcrl=${file(authority.revoke())}`)).toBe('verified');
    const refused = await connected('localhost', `${mode}&sslcrl=${file(authority.revoke(good))}`);
    expect(refused).toMatch(/^connection: .*revoked/);
  });

  test('the second way is taken where the server insists on TLS, or on none', async () => {
    await serve('source', good, 'hostssl all all 127.0.0.1/32 scram-sha-256');
    expect(await connected('localhost', 'sslmode=allow')).toBe('unverified');
    expect(await connected('localhost', 'sslmode=disable')).toMatch(/^authentication: no pg_hba.conf entry/);
    await serve('source', good, 'hostnossl all all 127.0.0.1/32 scram-sha-256');
    expect(await connected('localhost', 'sslmode=prefer')).toBe('off');
    expect(await connected('localhost', 'sslmode=require')).toMatch(/^authentication: no pg_hba.conf entry/);
    await serve('source', good);
  });

  test('a client certificate stands for the password', async () => {
    const role = new URL(databases.sourceUrl).username;
    await serve('source', good, 'hostssl all all 127.0.0.1/32 cert');
    const show = ({ cert, key }: Certificate) => `sslmode=require&sslcert=${file(cert)}&sslkey=${file(key)}`;
    expect(await connected('localhost', show(authority.issue(role)))).toBe('unverified');
    expect(await connected('localhost', show(authority.issue('somebody')))).toMatch(/^authentication: /);
    expect(await connected('localhost', 'sslmode=require')).toMatch(/^authentication: /);
    await serve('source', good);
  });

  test('carries a copy from socket to socket, and a stream, verified on both sides', async () => {
    await Promise.all([serve('source', good), serve('target', good)]);
    await onBoth(databases, 'create table t (id int primary key, v text)');
    await databases.source.query(
      `insert into t select i, repeat(md5(i::text), 20) from generate_series(1, 20000) i`,
    );
    const mode = `sslmode=verify-full&channel_binding=require&sslrootcert=${file(authority.cert)}`;
    const sourceUrl = at('localhost', mode);
    const targetUrl = at('localhost', mode, databases.targetUrl);
    sync = startSync({ ...databases, sourceUrl, targetUrl });
    await expectEqual(databases, sync);
    await databases.source.query(`update t set v = v || '!' where id % 2 = 0`);
    await expectEqual(databases, sync);
    for (const admin of [databases.sourceAdmin, databases.targetAdmin]) {
      const { rows } = await admin.query(
        `select count(*)::int as sessions, count(*) filter (where not s.ssl)::int as plain
           from pg_stat_activity a join pg_stat_ssl s using (pid)
          where a.datname = current_database() and a.application_name like 'ibex:%'`,
      );
      expect(rows[0].sessions).toBeGreaterThan(2);
      expect(rows[0].plain).toBe(0);
    }
  });

  test('a peer that nobody verified is said aloud, at the start and in the status', async () => {
    await Promise.all([serve('source', good), serve('target', good)]);
    await onBoth(databases, 'create table t (id int primary key)');
    // An address that leads here and is not known to be one of this machine.
    const env = {
      IBEX_SOURCE_URL: at('0.0.0.0', 'sslmode=require'),
      IBEX_TARGET_URL: at('0.0.0.0', 'sslmode=disable', databases.targetUrl),
    };
    const { code, logs } = await ibex(['run', '--until-caught-up'], { env });
    expect(code).toBe(0);
    const warnings = logs.filter(({ level }) => level === 40).map(({ msg }) => msg);
    expect(warnings).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^0\.0\.0\.0:\d+\/\w+: nobody checks who answers/),
        expect.stringMatching(/^0\.0\.0\.0:\d+\/\w+: the connection is not encrypted/),
      ]),
    );
    const [status] = JSON.parse((await ibex(['status', '--json'], { env })).stdout);
    expect(status).toMatchObject({
      tls: { source: 'unverified', target: 'off' },
      remarks: [
        expect.stringMatching(/^source: nobody checks/),
        expect.stringMatching(/^target: .* not encrypted/),
      ],
    });
    const text = (await ibex(['status'], { env })).stdout;
    expect(text).toMatch(/remark {4}source: nobody checks/);
  });
});

describe('Redis', () => {
  let redis: RedisServer | undefined;
  let port: number;

  beforeAll(async () => {
    port = await freePort();
    const readable = (text: string) => file(text, 0o644);
    redis = await startRedis({
      args: [
        ...['--tls-port', String(port), '--tls-auth-clients', 'optional'],
        ...['--tls-cert-file', readable(good.cert), '--tls-key-file', readable(good.key)],
        ...['--tls-ca-cert-file', readable(authority.cert)],
      ],
    });
    redis ??= await redisForTests();
  });
  afterAll(() => redis?.stop());

  const ROW = 'a row that nobody should read';

  async function fill(): Promise<void> {
    await onBoth(databases, 'create table t (id int primary key, v text)');
    await databases.source.query(`insert into t select i, $1 || i from generate_series(1, 100) i`, [ROW]);
  }

  test('over TLS, verified by its authority or not at all, with a certificate of our own', async (context) => {
    if (redis === undefined) return context.skip();
    await fill();
    const url = `rediss://localhost:${port}`;
    const client = authority.issue('ibex');
    const redisCa = file(authority.cert);
    for (const flags of [
      { redisCa },
      { redisVerify: 'false' },
      { redisCa, redisCert: file(client.cert), redisKey: file(client.key) },
    ]) {
      sync = startSync(databases, { redis: url, flags });
      await databases.source.query(`insert into t select max(id) + 1, 'more' from t`);
      await expectEqual(databases, sync);
      await sync.stop();
    }
    const env = {
      IBEX_SOURCE_URL: databases.sourceUrl,
      IBEX_TARGET_URL: databases.targetUrl,
      IBEX_REDIS_URL: url,
    };
    for (const [more, said] of [
      [{}, /unable to|self-signed/],
      [{ IBEX_REDIS_CA: file(stranger.cert) }, /unable to|self-signed/],
    ] as const) {
      const { code, said: lines } = await ibex(['run', '--until-caught-up'], { env: { ...env, ...more } });
      expect(code).toBe(3);
      expect(lines.join('\n')).toMatch(said);
    }
  });

  test('carries rows that nobody can read there, if a key is given', async (context) => {
    if (redis === undefined) return context.skip();
    await fill();
    const seen = async (flags: Record<string, string>) => {
      const listener = new Redis((redis as RedisServer).url);
      const monitor = await listener.monitor();
      let [rows, frames] = [0, 0];
      monitor.on('monitor', (_time: string, args: string[]) => {
        if (/^rpush$/i.test(args[0] ?? '')) frames += 1;
        if (args.some((arg) => arg.includes(ROW))) rows += 1;
      });
      sync = startSync(databases, { redis: (redis as RedisServer).url, flags });
      await expectEqual(databases, sync);
      await databases.source.query(`update t set v = v || '!'`);
      await expectEqual(databases, sync);
      await sync.stop();
      sync = undefined;
      await waitFor(() => frames > 0, { what: 'frames to be seen', timeout: 60_000 });
      monitor.disconnect();
      listener.disconnect();
      return rows;
    };
    expect(await seen({})).toBeGreaterThan(0);
    expect(await seen({ redisEncryptionKey: file('7'.repeat(64)) })).toBe(0);
  });

  test('a byte that is changed on the way is noticed, and the batch read again', async (context) => {
    if (redis === undefined) return context.skip();
    await fill();
    await using vandal = await startVandal(redis.port);
    const lines: string[] = [];
    sync = startSync(databases, {
      redis: `redis://127.0.0.1:${vandal.port}`,
      flags: { redisEncryptionKey: file('7'.repeat(64)) },
      logTo: (line) => lines.push(line),
    });
    await expectEqual(databases, sync);
    vandal.change();
    await databases.source.query(`update t set v = v || repeat('!', 200)`);
    await waitFor(() => vandal.changed, { what: 'a byte to be changed', timeout: 60_000 });
    await expectEqual(databases, sync);
    expect(lines.join('\n')).toMatch(/cannot be opened: they were changed there/);
  });
});

/** A way to Redis on which, once asked to, one byte of the next frame that comes back is changed. */
async function startVandal(to: number) {
  let [wanted, changed] = [false, false];
  const server = createServer((near) => {
    const far = connectTo(to, '127.0.0.1');
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => undefined);
      one.on('close', () => other.destroy());
    }
    near.pipe(far);
    far.on('data', (chunk: Buffer) => {
      if (wanted && chunk.length > 8_000) {
        // Well inside of the frame: what Redis itself says stays as it is.
        chunk[4_000] = (chunk[4_000] as number) ^ 1;
        [wanted, changed] = [false, true];
      }
      near.write(chunk);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    change: () => {
      wanted = true;
    },
    get changed() {
      return changed;
    },
    [Symbol.asyncDispose]: async () => {
      await sync?.stop();
      server.close();
    },
  };
}

test('no secret is printed, logged, served, or shown in the list of processes', async () => {
  const redis = await redisForTests();
  try {
    // A word that nothing else contains, and characters that are written otherwise in a URL.
    const secret = 'Quagga7/ :@%x';
    const token = 'Thylacine7token';
    const role = new URL(databases.sourceUrl).username;
    for (const admin of [databases.sourceAdmin, databases.targetAdmin])
      await admin.query(`alter role ${role} password ${pg.escapeLiteral(secret)}`);
    if (redis) {
      const client = new Redis(redis.url);
      await client.config('SET', 'requirepass', 'Quagga7redis');
      client.disconnect();
    }
    await onBoth(databases, 'create table t (id int primary key, v text)');
    const port = await freePort();
    const withPassword = (url: string, password: string) => {
      const there = new URL(url);
      there.password = encodeURIComponent(password);
      return there.href;
    };
    const printed: string[] = [];
    const look = async (args: string[], env: Record<string, string>, codes: number[]) => {
      const { code, stdout, stderr } = await ibex([...args, '--log-level', 'debug'], { env });
      printed.push(`${args[0]} (${code})\n${stdout}${stderr}`);
      expect(codes, printed.at(-1)).toContain(code);
    };
    const [sourceUrl, targetUrl] = [databases.sourceUrl, databases.targetUrl].map((url) =>
      withPassword(url, secret),
    );
    const env = {
      IBEX_SOURCE_URL: sourceUrl as string,
      IBEX_TARGET_URL: targetUrl as string,
      IBEX_HTTP_TOKEN: token,
      ...(redis && { IBEX_REDIS_URL: redis.url.replace('//', '//:Quagga7redis@') }),
    };

    const daemon = startIbex(['run', '--listen', `127.0.0.1:${port}`, '--log-level', 'debug'], { env });
    try {
      const get = (path: string, given: string) =>
        fetch(`http://127.0.0.1:${port}${path}`, { headers: { authorization: `Bearer ${given}` } });
      await waitFor(async () => (await get('/readyz', token)).status === 200, {
        what: 'the daemon to stream',
        timeout: 90_000,
      });
      for (const path of ['/', '/status', '/metrics', '/healthz', '/readyz']) {
        printed.push(await (await get(path, token)).text());
        printed.push(await (await get(path, 'Quagga7')).text());
      }
      if (process.platform === 'linux') printed.push(readFileSync(`/proc/${daemon.pid}/cmdline`, 'utf8'));
      await look(['status'], env, [0, 1]);
      await look(['status', '--json'], env, [0, 1]);
      // What goes wrong while it runs is said too.
      await databases.sourceAdmin.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'ibex:%'`,
      );
      await waitFor(() => daemon.logs.some(({ level }) => level >= 40), {
        what: 'a warning',
        timeout: 60_000,
      });
    } finally {
      await daemon.stop();
      printed.push(daemon.stdout, daemon.stderr);
    }
    // Credentials that are wrong, in every place they can stand in.
    const wrong = { ...env, IBEX_SOURCE_URL: withPassword(databases.sourceUrl, `${secret}Quagga7`) };
    await look(['status'], wrong, [3]);
    await look(['run'], wrong, [3]);
    await look(['setup'], { ...env, IBEX_SOURCE_URL: `postgres://${role}:Qu@gga7@h/Quagga7` }, [2, 3]);
    await look(['setup'], { ...env, IBEX_REDIS_URL: 'redis://:Quagga7@h:port' }, [2]);
    const { hostname, port: at, pathname } = new URL(databases.sourceUrl);
    const bare = {
      IBEX_SOURCE_URL: `postgres://${role}@${hostname}:${at}${pathname}`,
      IBEX_TARGET_URL: env.IBEX_TARGET_URL,
    };
    await look(['status'], { ...bare, PGPASSWORD: 'Quagga7' }, [3]);
    const passFile = file(`*:*:*:*:Quagga7`);
    await look(['status'], { ...bare, PGPASSFILE: passFile }, [3]);
    if (redis)
      await look(
        ['run', '--until-caught-up'],
        { ...env, IBEX_REDIS_URL: redis.url.replace('//', '//:Quagga7x@') },
        [3],
      );
    await look(
      ['status', '--source', withPassword(databases.sourceUrl, 'Quagga7')],
      { IBEX_TARGET_URL: env.IBEX_TARGET_URL },
      [3],
    );
    await look(['teardown', '--yes'], env, [0]);

    const base64 = Buffer.from(`Bearer ${token}`).toString('base64').slice(0, 20);
    for (const text of printed)
      for (const word of ['Quagga7', 'Qu@gga7', token, base64]) expect(text).not.toContain(word);
    expect(printed.length).toBeGreaterThan(15);
  } finally {
    await redis?.stop();
  }
});
