/** A PgBouncer before a cluster, if the machine has one. */
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import pg from 'pg';
import { freePort, ServerHome } from '../../src/embedded/process.ts';

export interface PgBouncer {
  readonly port: number;
  /** The file with the section [databases]; rewritten, it counts from the next RELOAD on. */
  readonly databases: string;
  /** The same URL, by way of the pooler. */
  through(url: string): string;
  stop(): Promise<void>;
}

export interface PgBouncerOptions {
  /** The port of the cluster behind it. */
  readonly to: number;
  readonly mode: 'session' | 'transaction' | 'statement';
  /** Lines of the section [pgbouncer]. */
  readonly settings?: Record<string, string>;
  /** Users and their passwords. */
  readonly users: Record<string, string>;
}

/** Debian puts it where the PATH of an ordinary account does not look. */
const DIRECTORIES = [...(process.env.PATH ?? '').split(delimiter).filter(isAbsolute), '/usr/sbin'];

export function findPgBouncer(): string | undefined {
  const found = DIRECTORIES.map((directory) => join(directory, 'pgbouncer')).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found === undefined && process.env.CI) throw new Error('CI needs pgbouncer');
  return found;
}

/** It asks the server with the very passwords that it asks its clients for. It goes with this process at the latest. */
export async function startPgBouncer(program: string, options: PgBouncerOptions): Promise<PgBouncer> {
  const home = await ServerHome.make('ibex-pgbouncer-', { quit: 'SIGKILL' });
  const port = await freePort();
  const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
  const users = Object.entries(options.users).map((pair) => pair.map(quoted).join(' '));
  const userFile = await home.write('users', `${users.join('\n')}\n`);
  const settings = {
    listen_addr: '127.0.0.1',
    listen_port: String(port),
    unix_socket_dir: '',
    auth_type: 'scram-sha-256',
    auth_file: userFile,
    pool_mode: options.mode,
    max_client_conn: '200',
    default_pool_size: '40',
    ...options.settings,
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`);
  const databases = await home.write('databases.ini', `[databases]\n* = host=127.0.0.1 port=${options.to}\n`);
  const text = `%include ${databases}\n[pgbouncer]\n${lines.join('\n')}\n`;
  const file = await home.write('pgbouncer.ini', text);
  const server = await home.launch(program, [file]);
  await server.whenReady(() => answers(port));
  return {
    port,
    databases,
    through: (url) => {
      const via = new URL(url);
      via.port = String(port);
      return via.href;
    },
    stop: async () => {
      await server.end('SIGINT', 'SIGKILL');
      await home.remove();
    },
  };
}

/** It is there once it refuses somebody whom it does not know. */
async function answers(port: number): Promise<boolean> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: 'nobody', database: 'none', password: '' });
  client.on('error', () => undefined);
  const error = await client.connect().then(
    () => undefined,
    (refusal) => refusal,
  );
  await client.end().catch(() => undefined);
  return error === undefined || error.code !== 'ECONNREFUSED';
}
