/**
 * The image and the composition, as far as they can be tried without Docker: both files are read, and what the
 * last stage of the Dockerfile holds is put together in a directory and run there by a user without rights.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { loadConfig } from '../src/config/load.ts';
import { freePort, temporaryRoot } from '../src/embedded/process.ts';

const root = join(import.meta.dirname, '..');

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

interface Instruction {
  readonly name: string;
  readonly text: string;
}

interface Copy {
  /** The stage copied from; without it the sources are in the project. */
  readonly stage: string | undefined;
  readonly sources: string[];
}

interface Stage {
  readonly name: string;
  readonly instructions: Instruction[];
  readonly copies: Copy[];
}

function readDockerfile(): Stage[] {
  const lines = read('Dockerfile')
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n/g, ' ')
    .split('\n');
  const stages: Stage[] = [];
  for (const line of lines.filter((line) => line.trim() !== '')) {
    const [name = '', ...words] = line.trim().split(/\s+/);
    if (name === 'FROM') stages.push({ name: words[2] ?? 'last', instructions: [], copies: [] });
    const text = line.trim().slice(name.length).trim();
    stages.at(-1)?.instructions.push({ name, text });
    if (name === 'COPY') stages.at(-1)?.copies.push(readCopy(words));
  }
  return stages;
}

function readCopy(words: string[]): Copy {
  const paths = words.filter((word) => !word.startsWith('--'));
  const from = words.find((word) => word.startsWith('--from='));
  return { stage: from?.slice('--from='.length), sources: paths.slice(0, -1) };
}

const stages = readDockerfile();
const image = stages.at(-1) as Stage;

/** The text of the last such instruction of the image. */
function lastOf(name: string): string {
  return image.instructions.findLast((instruction) => instruction.name === name)?.text ?? '';
}

/** A command in exec form, the one that needs no shell. */
function execForm(text: string): string[] {
  return JSON.parse(text.slice(text.indexOf('[')));
}

const healthCheck = execForm(lastOf('HEALTHCHECK'));
const [address = ''] = execForm(lastOf('CMD')).slice(-1);
const port = address.split(':')[1] ?? '';

describe('Dockerfile', () => {
  test('copies from the project what is there and what .dockerignore lets through', () => {
    const [first, ...others] = read('.dockerignore')
      .split('\n')
      .filter((line) => /^[^#\s]/.test(line));
    expect(first).toBe('*');
    const allowed = others.map((line) => line.replace(/^!/, ''));
    const sources = stages.flatMap(({ copies }) =>
      copies.flatMap((copy) => (copy.stage ? [] : copy.sources)),
    );
    expect(sources).toContain('src');
    expect(sources.filter((source) => !existsSync(join(root, source)))).toEqual([]);
    expect(sources.filter((source) => !allowed.includes(source))).toEqual([]);
  });

  test('copies from earlier stages what they copied or made', () => {
    const missing = stages.flatMap(({ copies }, index) =>
      copies.flatMap(({ stage, sources }) => {
        if (stage === undefined) return [];
        const earlier = stages.slice(0, index).find(({ name }) => name === stage);
        const held = [...(earlier?.copies.flatMap((copy) => copy.sources) ?? []), 'dist', 'node_modules'];
        const names = held.map((path) => basename(path));
        return sources.filter((source) => !earlier || !names.includes(basename(source)));
      }),
    );
    expect(missing).toEqual([]);
  });

  test('installs without development packages, and without scripts that would need them', () => {
    const installs = stages.flatMap(({ instructions }) =>
      instructions.filter(({ name, text }) => name === 'RUN' && text.includes('--omit=dev')),
    );
    expect(installs).toHaveLength(1);
    expect(installs[0]?.text).toMatch(/^npm ci .*--ignore-scripts/);
  });

  test('ends with a user without rights', () => {
    expect(lastOf('USER')).toMatch(/^(?!(root|0+)$)\w+$/);
  });

  test('listens where it is asked for its health', () => {
    expect(address).toMatch(/^0\.0\.0\.0:\d+$/);
    expect(lastOf('EXPOSE')).toBe(port);
    expect(healthCheck.join(' ')).toContain(`:${port}/healthz`);
  });
});

describe('what the image holds', () => {
  let directory: string;
  beforeAll(() => {
    directory = assemble();
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  test('is what the package needs', () => {
    const { files } = JSON.parse(read('package.json')) as { files: string[] };
    // The demo's servers are optional packages, which the image leaves out.
    const left = ['README.md', 'demo'];
    const needed = [...files.filter((file) => !left.includes(file)), 'package.json', 'node_modules'];
    expect(imageFiles().sort()).toEqual(needed.sort());
  });

  test('runs as a user without rights', async () => {
    const { version } = JSON.parse(read('package.json'));
    const result = await run(directory, [...execForm(lastOf('ENTRYPOINT')), '--version']);
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(result.stdout).toContain(version);
  });

  describe('asked for its health', () => {
    /** The check, of a port that is surely free: the real one may be in use by a daemon on this machine. */
    async function check(answer?: (path: string) => number) {
      const free = await freePort();
      const server = createServer(({ url = '' }, response) => {
        response.writeHead(answer?.(url) ?? 500).end();
      });
      if (answer) await once(server.listen(free, '127.0.0.1'), 'listening');
      try {
        const command = healthCheck.map((word) => word.replace(`:${port}/`, `:${free}/`));
        return (await run(directory, command)).status;
      } finally {
        server.close();
      }
    }

    test('is well when it says so', async () => {
      expect(await check((path) => (path === '/healthz' ? 200 : 404))).toBe(0);
    });

    test('is ill when it says so', async () => {
      expect(await check(() => 503)).toBe(1);
    });

    test('is ill when nothing listens', async () => {
      expect(await check()).toBe(1);
    });
  });
});

/** Names of what the last stage copies. */
function imageFiles(): string[] {
  return image.copies.flatMap(({ sources }) => sources.map((source) => basename(source)));
}

/** A directory with the files of the image, readable for everybody, as `chmod` in the Dockerfile makes them. */
function assemble(): string {
  const directory = mkdtempSync(join(temporaryRoot(), 'ibex-image-'));
  chmodSync(directory, 0o755);
  for (const name of imageFiles().filter((name) => name !== 'node_modules')) {
    cpSync(join(root, name), join(directory, name), { recursive: true });
  }
  for (const path of productionPackages()) {
    cpSync(join(root, path), join(directory, path), {
      recursive: true,
      filter: (source) => source === join(root, path) || basename(source) !== 'node_modules',
    });
  }
  spawnSync('chmod', ['-R', 'a+rX', directory]);
  return directory;
}

/** Directories of the packages that are left with --omit=dev --omit=optional. */
function productionPackages(): string[] {
  interface Package {
    dev?: true;
    optional?: true;
    devOptional?: true;
  }
  const { packages } = JSON.parse(read('package-lock.json')) as { packages: Record<string, Package> };
  return Object.keys(packages).filter((path) => {
    const { dev, optional, devOptional } = packages[path] ?? {};
    return path !== '' && !dev && !optional && !devOptional;
  });
}

interface Result {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a command in a directory, with nothing of our environment and, if we are root, as `nobody`. */
async function run(cwd: string, [program = '', ...args]: string[]): Promise<Result> {
  const account = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {};
  const child = spawn(program === 'node' ? process.execPath : program, args, {
    ...account,
    cwd,
    env: {},
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 180_000,
  });
  const result: Result = { status: null, stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text) => {
    result.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    result.stderr += text;
  });
  [result.status] = await once(child, 'close');
  return result;
}

interface Service {
  readonly image?: string;
  readonly build?: string;
  readonly command?: string | string[];
  readonly profiles?: string[];
  readonly environment?: Record<string, string>;
  readonly volumes?: string[];
  readonly healthcheck?: { test: string[] };
  readonly depends_on?: Record<string, { condition: string }>;
  readonly restart?: string;
  readonly stop_grace_period?: string;
}

/** The services, with the values that variables have where nothing is set. */
function readServices(): Record<string, Service> {
  return parse(read('docker-compose.yml').replace(/\$\{\w+:-([^}]*)\}/g, '$1')).services;
}

describe('docker-compose.yml', () => {
  const services = readServices();
  const env = services.ibex?.environment ?? {};

  test('leaves no variable without a default', () => {
    expect(JSON.stringify(services)).not.toContain('${');
  });

  test('has every service checked, restarted, and stopped in peace', () => {
    expect(Object.keys(services).sort()).toEqual(['ibex', 'redis', 'source', 'target', 'worker']);
    for (const service of Object.values(services)) {
      // That of ibex is in the Dockerfile.
      expect(service.healthcheck ?? service.build).toBeDefined();
      expect(service).toMatchObject({ restart: 'unless-stopped', stop_grace_period: '15s' });
    }
  });

  test('starts ibex once the servers can be used', () => {
    const healthy = { condition: 'service_healthy' };
    for (const service of [services.ibex, services.worker])
      expect(service?.depends_on).toEqual({ source: healthy, target: healthy, redis: healthy });
  });

  test('forbids Redis to evict and to keep', () => {
    expect(services.redis?.command).toContain('--maxmemory-policy noeviction');
    expect(services.redis?.command).toContain('--appendonly no');
  });

  test('connects as the role of docker/init.sql, which owns its database and has no special rights', () => {
    const [, role, rights] = /^CREATE ROLE (\w+) (.*);$/m.exec(read('docker/init.sql')) ?? [];
    const [, database, owner] = /^CREATE DATABASE (\w+) OWNER (\w+);$/m.exec(read('docker/init.sql')) ?? [];
    expect(owner).toBe(role);
    expect(rights).toMatch(/\bNOSUPERUSER\b/);
    expect(rights).not.toMatch(/\b(SUPERUSER|REPLICATION|BYPASSRLS|CREATEDB|CREATEROLE)\b/);
    for (const name of ['source', 'target'] as const) {
      const url = new URL(env[`IBEX_${name.toUpperCase()}_URL`] ?? '');
      expect(url).toMatchObject({ hostname: name, username: role, pathname: `/${database}` });
      expect(url.password).toBe(services[name]?.environment?.APP_PASSWORD);
      expect(services[name]?.volumes).toContain('./docker/init.sql:/docker-entrypoint-initdb.d/init.sql:ro');
    }
    expect(new URL(env.IBEX_REDIS_URL ?? '').hostname).toBe('redis');
  });

  test('gives ibex settings that it takes, the token for its address included', () => {
    const settings = (environment: Record<string, string>) =>
      loadConfig({ flags: { listen: address }, env: environment, cwd: temporaryRoot() });
    expect(settings(env)).toMatchObject({ listen: { host: '0.0.0.0', port: Number(port) }, warnings: [] });
    expect(() => settings({ ...env, IBEX_HTTP_TOKEN: '' })).toThrow('a token is needed');
  });

  test('gives its workers the servers of the daemon, and starts them only when they are asked for', () => {
    const { IBEX_HTTP_TOKEN: _, ...servers } = env;
    expect(services.worker).toMatchObject({
      command: ['worker'],
      profiles: ['workers'],
      environment: servers,
    });
  });

  test('is accepted by docker-compose', ({ skip }) => {
    const { error, status, stderr } = spawnSync('docker-compose', ['config', '-q'], {
      cwd: root,
      encoding: 'utf8',
    });
    // .ci/run installs it.
    if (error && !process.env.CI) skip('docker-compose is not installed');
    expect({ error, status, stderr }).toEqual({ error: undefined, status: 0, stderr: '' });
  });
});
