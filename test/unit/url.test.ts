import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IbexError } from '../../src/core/errors.ts';
import { firstWay, otherWay, peerOf, remarkOn, tellingError } from '../../src/postgres/tls.ts';
import { describeServer, hasPassword, parseUrl, redactUrl } from '../../src/postgres/url.ts';

let home = '';
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), 'ibex-url-'));
  writeFileSync(join(home, 'ca.pem'), 'CA');
  writeFileSync(join(home, 'client.pem'), 'CERT');
  writeFileSync(join(home, 'client.key'), 'KEY', { mode: 0o600 });
  writeFileSync(join(home, 'open.key'), 'KEY');
  chmodSync(join(home, 'open.key'), 0o644);
});
afterAll(() => rmSync(home, { recursive: true }));

const parse = (url: string, env: NodeJS.ProcessEnv = {}) => parseUrl(url, { HOME: home, ...env });

function refusal(url: string, env: NodeJS.ProcessEnv = {}): IbexError {
  try {
    parse(url, env);
  } catch (error) {
    expect(error).toBeInstanceOf(IbexError);
    expect((error as IbexError).kind).toBe('config');
    return error as IbexError;
  }
  throw new Error(`accepted: ${url}`);
}

describe('where to connect', () => {
  it('comes from the parts of the URL, % escapes decoded', async () => {
    const config = parse('postgresql://a%40b:p%3A%2F%40%25@h%2Dx:6543/my%20db%2F1');
    expect(config).toMatchObject({ user: 'a@b', host: 'h-x', port: 6543, database: 'my db/1' });
    expect(await config.password()).toBe('p:/@%');
  });

  it.each([
    ['postgres://u:a:b?c#d+e@h/db', 'a:b?c#d+e'],
    ['postgres://u@h/db?password=x%26y', 'x&y'],
    ['postgres://u:first@h/db?password=last', 'last'],
  ])('with the password of %s', async (url, password) => {
    expect(await parse(url).password()).toBe(password);
  });

  it.each([
    ['postgres://u@[::1]:5433/db', '::1', 5433, '[::1]:5433/db'],
    ['postgres://u@[2001:db8::2]/db', '2001:db8::2', 5432, '[2001:db8::2]:5432/db'],
    ['postgres://u@%2Fvar%2Frun%2Fpostgresql/db', '/var/run/postgresql', 5432, '/var/run/postgresql:5432/db'],
    ['postgres://u@/db?host=/tmp&port=5433', '/tmp', 5433, '/tmp:5433/db'],
    [' postgres://u@h/db\n', 'h', 5432, 'h:5432/db'],
    ['postgres://u@h', 'h', 5432, 'h:5432/u'],
    ['postgres://u@h/?dbname=other', 'h', 5432, 'h:5432/other'],
  ])('%s', (url, host, port, shown) => {
    const config = parse(url);
    expect(config).toMatchObject({ host, port });
    expect(describeServer(config)).toBe(shown);
  });

  it('is completed by libpq variables, then by defaults', async () => {
    const env = {
      PGHOST: 'ph',
      PGPORT: '7',
      PGUSER: 'pu',
      PGPASSWORD: 'pp',
      PGDATABASE: 'pd',
      PGOPTIONS: '-c a=b',
    };
    const config = parse('postgres://', env);
    expect(config).toMatchObject({ host: 'ph', port: 7, user: 'pu', database: 'pd', options: '-c a=b' });
    expect(await config.password()).toBe('pp');
    expect(parse('postgres://u@h:1/d', env)).toMatchObject({ host: 'h', port: 1, user: 'u', database: 'd' });
    const { username } = userInfo();
    expect(parse('postgres://')).toMatchObject({
      host: 'localhost',
      port: 5432,
      user: username,
      database: username,
    });
  });

  it('takes options and connect_timeout, and ignores application_name', () => {
    const config = parse('postgres://u@h/d?options=-c%20geqo%3Doff&connect_timeout=3&application_name=mine');
    expect(config).toMatchObject({ options: '-c geqo=off', connectionTimeoutMillis: 3000 });
    expect(config).not.toHaveProperty('application_name');
    expect(parse('postgres://u@h/d')).not.toHaveProperty('connectionTimeoutMillis');
  });
});

describe('TLS', () => {
  it.each([
    ['', 'preferred', false],
    ['?sslmode=allow', 'allowed', false],
    ['?sslmode=prefer', 'preferred', false],
    ['?sslmode=require', 'unverified', false],
    ['?sslmode=require&sslrootcert=CA', 'verified', true],
    ['?sslmode=verify-ca&sslrootcert=CA', 'verified', true],
    ['?sslmode=verify-full&sslrootcert=CA', 'verified', true],
    ['?sslmode=verify-full&sslrootcert=system', 'verified', true],
    ['?sslrootcert=system', 'verified', true],
  ])('%s is %s', (query, tls, rejectUnauthorized) => {
    const config = parse(`postgres://u@h/d${query.replace('=CA', `=${home}/ca.pem`)}`);
    expect(config.tls).toBe(tls);
    expect(config.ssl).toMatchObject({ rejectUnauthorized });
    const ssl = config.ssl || {};
    const full = query.includes('verify-full') || query === '?sslrootcert=system';
    expect(ssl.checkServerIdentity === undefined).toBe(full);
    expect(ssl.ca).toBe(query.includes('=CA') ? 'CA' : undefined);
  });

  it('is off for sslmode=disable and for Unix sockets', () => {
    expect(parse('postgres://u@h/d?sslmode=disable')).toMatchObject({ tls: 'off', ssl: false });
    expect(parse('postgres:///d?host=/tmp&sslmode=verify-full')).toMatchObject({ tls: 'off', ssl: false });
    expect(parse('postgres://u@h/d', { PGSSLMODE: 'disable' })).toMatchObject({ tls: 'off', ssl: false });
  });

  it('sends a client certificate', () => {
    const files = `sslcert=${home}/client.pem&sslkey=${home}/client.key`;
    expect(parse(`postgres://u@h/d?sslmode=require&${files}`).ssl).toMatchObject({
      cert: 'CERT',
      key: 'KEY',
    });
  });

  it('finds root.crt in ~/.postgresql, though not for prefer', () => {
    const other = join(home, 'other');
    mkdirSync(join(other, '.postgresql'), { recursive: true });
    writeFileSync(join(other, '.postgresql', 'root.crt'), 'ROOT');
    const ssl = (query: string) => parse(`postgres://u@h/d${query}`, { HOME: other }).ssl;
    expect(ssl('?sslmode=require')).toMatchObject({ ca: 'ROOT', rejectUnauthorized: true });
    expect(ssl('')).toMatchObject({ rejectUnauthorized: false });
  });

  it('negotiates directly and binds the channel when asked', () => {
    const query = '?sslmode=require&sslnegotiation=direct&channel_binding=require';
    expect(parse(`postgres://u@h/d${query}`)).toMatchObject({
      sslnegotiation: 'direct',
      enableChannelBinding: true,
    });
    expect(parse('postgres://u@h/d')).toMatchObject({
      sslnegotiation: 'postgres',
      enableChannelBinding: false,
    });
  });

  it('refuses a key that others can read', () => {
    const files = `sslcert=${home}/client.pem&sslkey=${home}/open.key`;
    expect(refusal(`postgres://u@h/d?${files}`).message).toMatch(/sslkey: .* is open to others/);
  });

  const none = new Error('The server does not support SSL connections');
  const notAdmitted = Object.assign(new Error('no pg_hba.conf entry'), { code: '28000' });
  const wrongCertificate = Object.assign(new Error('self-signed certificate'), { code: 'SELF_SIGNED_CERT' });

  it('goes on without it only where the mode allows that, and the server speaks or admits none', () => {
    const preferred = parse('postgres://u@h/d');
    expect(firstWay(preferred).ssl).not.toBe(false);
    for (const error of [none, notAdmitted])
      expect(otherWay(preferred, error)).toMatchObject({ host: 'h', ssl: false });
    expect(otherWay(preferred, wrongCertificate)).toBeUndefined();
    for (const error of [none, notAdmitted])
      expect(otherWay(parse('postgres://u@h/d?sslmode=require'), error)).toBeUndefined();
  });

  it('comes second for sslmode=allow, and only where the server insists on it', () => {
    const allowed = parse('postgres://u@h/d?sslmode=allow');
    expect(firstWay(allowed).ssl).toBe(false);
    expect(otherWay(allowed, notAdmitted)?.ssl).toMatchObject({ rejectUnauthorized: false });
    expect(otherWay(allowed, Object.assign(new Error('no'), { code: '28P01' }))).toBeUndefined();
  });

  it('of two failures the one is told that says more', () => {
    const password = Object.assign(new Error('wrong password'), { code: '28P01' });
    expect(tellingError(none, password)).toBe(password);
    expect(tellingError(notAdmitted, none)).toBe(notAdmitted);
    expect(tellingError(notAdmitted, notAdmitted)).toBe(notAdmitted);
    expect(tellingError(notAdmitted, wrongCertificate)).toBe(wrongCertificate);
  });

  it.each([
    ['postgres://u@h/d?sslmode=disable', /not encrypted/],
    ['postgres://u@10.0.0.1/d?sslmode=require', /certificate is not verified/],
    ['postgres://u@h/d?sslmode=verify-ca&sslrootcert=CA', null],
    ['postgres://u@127.0.0.1/d?sslmode=disable', null],
    ['postgres://u@localhost/d?sslmode=require', null],
    ['postgres:///d?host=/tmp', null],
    ['postgres://u@127.evil.example/d?sslmode=disable', /not encrypted/],
  ])('of the peer of %s is said %s', (url, said) => {
    const remark = remarkOn(peerOf(parse(url.replace('=CA', `=${home}/ca.pem`))));
    if (said === null) expect(remark).toBeNull();
    else expect(remark).toMatch(said);
  });
});

describe('the password file', () => {
  const owner = 'postgres://app@h:5432/shop';
  const lines = ['# h:5432:shop:app:no', 'other:*:*:*:no', 'h:5432:shop:app:s\\:e\\\\c', '*:*:*:*:last'].join(
    '\n',
  );

  it('is used when nothing else gives a password', async () => {
    const file = join(home, 'pgpass');
    writeFileSync(file, lines, { mode: 0o600 });
    const env = { PGPASSFILE: file };
    expect(await parse(owner, env).password()).toBe('s:e\\c');
    expect(await parse('postgres://app@h:1/shop', env).password()).toBe('last');
    expect(await parse('postgres://app:own@h/shop', env).password()).toBe('own');
    expect(await parse(owner, { ...env, PGPASSWORD: 'variable' }).password()).toBe('variable');
  });

  it('is ~/.pgpass otherwise, where localhost stands for sockets', async () => {
    writeFileSync(join(home, '.pgpass'), 'localhost:5432:*:*:local\n', { mode: 0o600 });
    expect(await parse('postgres://app@/shop?host=/tmp').password()).toBe('local');
    await expect(parse(owner).password()).rejects.toMatchObject({
      kind: 'authentication',
      message: 'h:5432/shop: the server asks for a password and none was given',
    });
  });

  it('is refused when others can read it', async () => {
    const file = join(home, 'open');
    writeFileSync(file, lines);
    chmodSync(file, 0o644);
    await expect(parse(owner, { PGPASSFILE: file }).password()).rejects.toThrow(/open to others/);
  });
});

describe('refusals', () => {
  it.each([
    ['host=h dbname=d password=secret', /keyword=value/],
    ['mysql://u:secret@h/d', /must begin with postgres:/],
    ['', /must begin with/],
    ['postgres://u:secret@h1,h2/d', /several hosts/],
    ['postgres://u:secret@h1:1,h2:2/d', /several hosts/],
    ['postgres://u:secret@/d?host=h1,h2', /several hosts/],
    ['postgres://u:secret@h/d?schema=public', /unknown parameter schema; known are host, port/],
    [
      'postgres://u:secret@h/d?sslmode=no-verify',
      /sslmode .* disable, allow, prefer, require, verify-ca, verify-full/,
    ],
    ['postgres://u:secret@h/d?sslmode=verify-full', /needs sslrootcert=FILE.*system/],
    ['postgres://u:secret@h/d?sslmode=verify-ca', /needs sslrootcert=FILE/],
    ['postgres://u:secret@h/d?sslmode=require&sslrootcert=system', /needs sslmode=verify-full/],
    ['postgres://u:secret@h/d?sslmode=require&sslrootcert=/nowhere', /\/nowhere cannot be read/],
    ['postgres://u:secret@h/d?sslcert=/nowhere', /sslcert needs sslkey/],
    ['postgres://u:secret@h/d?sslnegotiation=direct', /needs sslmode=require/],
    ['postgres://u:secret@h/d?channel_binding=require', /needs sslmode=require/],
    ['postgres://u:secret@h/d?channel_binding=yes', /one of disable, prefer, require/],
    ['postgres://u:secret@h/d?connect_timeout=soon', /number of seconds/],
    ['postgres://u:secret@h/d?sslmode', /name=value/],
    ['postgres://u:secret@h:0/d', /port/],
    ['postgres://u:secret@h:99999/d', /port/],
    ['postgres://u:secret@h:x/d', /host and port/],
    ['postgres://u:secret@::1/d', /host and port/],
    ['postgres://u:secret%zz@h/d', /password has a wrong % escape/],
    ['postgres://u:secret%00@h/d', /password has a wrong % escape/],
    ['postgres://u:pa@secret@h/d', /%40/],
    ['postgres://u:pa/secret@h/d', /%2F/],
    ['postgres://u:12?secret@h/d', undefined],
    ['postgres://u:1/secret?x@h/d', /%2F/],
    ['postgres://u:secret', /host and port/],
    ['postgres://u?password=secret@h/d', /%3F/],
  ])('%s', async (url, message) => {
    // libpq, too, takes an unescaped question mark in a password.
    if (message === undefined) return expect(await parse(url).password()).toBe('12?secret');
    const error = refusal(url);
    expect(error.message).toMatch(message);
    expect(`${error.message} ${error.hint} ${String(error.cause)}`).not.toContain('secret');
  });

  it('also concern variables', () => {
    expect(refusal('postgres://u@h/d', { PGSSLMODE: 'sometimes' }).message).toMatch(/PGSSLMODE/);
    expect(refusal('postgres://u@h/d', { PGPORT: 'x' }).message).toMatch(/port/);
  });
});

describe('showing a URL', () => {
  it.each([
    ['postgres://app:secret@host:5432/db?sslmode=require', 'postgres://app@host:5432/db'],
    ['postgres://app@host/db?password=secret', 'postgres://app@host/db'],
    ['postgres:///db', 'postgres:///db'],
    ['postgresql://:secret@[::1]', 'postgresql://[::1]'],
    ['redis://:secret@host:6379/0', 'redis://host:6379/0'],
    ['postgres://app:se@secret@host/db', 'postgres://...'],
    ['postgres://app:/secret@host/db', 'postgres://...'],
    ['postgres://app?password=secret@host/db', 'postgres://...'],
    ['postgres://app:secret', 'postgres://...'],
    ['postgres://app:secret,secret/db', 'postgres://...'],
    ['host=h password=secret', '(not a URL)'],
    ['app:secret@host/db', '(not a URL)'],
  ])('%s', (url, shown) => {
    expect(redactUrl(url)).toBe(shown);
    expect(hasPassword(url)).toBe(url.includes('secret') && !/:secret$|secret,/.test(url));
  });

  it('shows no password in a configuration either', () => {
    expect(JSON.stringify(parse('postgres://app:secret@host/db'))).not.toContain('secret');
  });
});
