/**
 * The peer: Bucardo 5.6 of the distribution, as its manual sets it up, by superusers. It keeps its own database on a
 * server of its own, and all its files in a temporary directory; nothing of the system's is touched. Its settings are
 * left alone, but that a round of its sync begins when it is told to.
 *
 * Its daemon is no child of ours, for it forks itself away. So it is ended by the number of its process group, at the
 * latest when this process ends; should that happen without a word, it ends once its servers are gone.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { type Cluster, startCluster } from '../src/embedded/cluster.ts';
import { run } from './children.ts';
import { connect, type Databases, type Login } from './pair.ts';
import { groupCpuSeconds, processGroupOf, serverCpuSeconds } from './proc.ts';
import { distributionServers } from './programs.ts';

const SYNC = 'bench';

export class Bucardo {
  readonly #cluster: Cluster;
  readonly #directory: string;
  readonly #password = randomBytes(12).toString('hex');
  #notices: pg.Client | undefined;
  readonly #end = () => {
    const group = this.#group();
    if (group !== undefined) process.kill(-group, 'SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  };

  private constructor(cluster: Cluster, directory: string) {
    this.#cluster = cluster;
    this.#directory = directory;
  }

  /**
   * Copies the tables, adds a sync of them and starts the daemon. It is there a moment later: until then what it is
   * told is lost.
   */
  static async create(databases: Databases, tables: readonly string[]): Promise<Bucardo> {
    const cluster = await startCluster({ name: 'bench-bucardo', installation: distributionServers() });
    // Bucardo writes the name in lower case, so mkdtemp is out of the question.
    const directory = join(tmpdir(), `ibex-bench-bucardo-${randomBytes(6).toString('hex')}`);
    mkdirSync(directory, { mode: 0o700 });
    const bucardo = new Bucardo(cluster, directory);
    process.on('exit', bucardo.#end);
    try {
      for (const table of tables) await copyRows(databases, table);
      await bucardo.#install();
      await bucardo.#configure(databases, tables);
      await bucardo.#start();
      return bucardo;
    } catch (error) {
      await bucardo.remove();
      throw error;
    }
  }

  /** Begins one round of its sync, as `bucardo kick` does. */
  async kick(): Promise<void> {
    await this.#notices?.query(`notify bucardo_kick_sync_${SYNC}`);
  }

  /** CPU seconds that its processes and its own server have used. */
  cpuSeconds(): number {
    return groupCpuSeconds(this.#group()) + serverCpuSeconds({ cluster: this.#cluster });
  }

  async remove(): Promise<void> {
    await this.#notices?.end();
    this.#end();
    process.off('exit', this.#end);
    await this.#cluster.remove();
  }

  async #install(): Promise<void> {
    const superuser = await connect(this.#cluster.superuserUrl);
    await superuser.query(`create role bucardo superuser login password ${pg.escapeLiteral(this.#password)}`);
    await superuser.end();
    const { port, superuserUrl } = this.#cluster;
    const passwords = ['postgres', 'bucardo'].map(
      (user) =>
        `127.0.0.1:${port}:*:${user}:${user === 'bucardo' ? this.#password : new URL(superuserUrl).password}\n`,
    );
    writeFileSync(join(this.#directory, '.pgpass'), passwords.join(''), { mode: 0o600 });
    await this.#run(
      'install',
      '--batch',
      '--dbuser',
      'postgres',
      '--dbname',
      'postgres',
      '--piddir',
      this.#directory,
    );
  }

  async #configure({ source, target }: Databases, tables: readonly string[]): Promise<void> {
    const files = ['log_conflict_file', 'warning_file', 'reason_file'].map(
      (name) => `${name}=${join(this.#directory, name)}`,
    );
    // When its server goes away it is not to come back.
    await this.#bucardo('set', ...files, 'mcp_dbproblem_sleep=0');
    await this.#bucardo('add', 'db', 'src', ...placeOf(source.superuserLogin));
    await this.#bucardo('add', 'db', 'dst', ...placeOf(target.superuserLogin));
    const list = tables.map((table) => `public.${table}`).join(',');
    const settings = ['autokick=0', 'onetimecopy=0'];
    await this.#bucardo('add', 'sync', SYNC, 'dbs=src:source,dst:target', `tables=${list}`, ...settings);
  }

  async #start(): Promise<void> {
    await this.#bucardo('start', '--log-destination', this.#directory);
    const login = { user: 'bucardo', password: this.#password, database: 'bucardo' };
    this.#notices = await connect(this.#cluster.url(login));
  }

  #bucardo(...args: string[]): Promise<string> {
    return this.#run(...args, '--dbuser', 'bucardo', '--dbname', 'bucardo');
  }

  #run(...args: string[]): Promise<string> {
    const { PATH } = process.env;
    const home = this.#directory;
    const place = ['--no-bucardorc', '--dbhost', '127.0.0.1', '--dbport', String(this.#cluster.port)];
    return run({
      file: 'bucardo',
      args: [...args, ...place],
      env: { PATH, HOME: home, PGPASSFILE: join(home, '.pgpass'), LC_ALL: 'C' },
      cwd: home,
    });
  }

  /** Undefined while no daemon runs. */
  #group(): number | undefined {
    return processGroupOf(readPid(join(this.#directory, 'bucardo.mcp.pid')));
  }
}

async function copyRows({ source, target }: Databases, table: string): Promise<void> {
  await pipeline(
    source.owner.query(copyTo(`copy ${table} to stdout (format binary)`)),
    target.owner.query(copyFrom(`copy ${table} from stdin (format binary)`)),
  );
}

function placeOf({ host, port, user, password, database }: Login): string[] {
  return [`dbname=${database}`, `host=${host}`, `port=${port}`, `user=${user}`, `pass=${password}`];
}

function readPid(file: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(file, 'utf8'), 10);
  } catch {
    return undefined;
  }
}
