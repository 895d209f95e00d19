/**
 * A private Redis (or Valkey) for demo, tests and benchmarks, if the machine has one: unlike PostgreSQL, it
 * cannot be had from npm. It keeps nothing on disk and never evicts, which is what the queue asks of it.
 */
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { connect } from 'node:net';
import { delimiter, isAbsolute, join } from 'node:path';
import { freePort, ServerHome, type ServerProcess } from './process.ts';

export interface RedisServer {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly executable: string;
  /** Ends it for good and deletes its directory. */
  stop(): Promise<void>;
  /** Ends it in an orderly way, or finds it dead, and starts it again on the same port, without its data. */
  restart(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface RedisOptions {
  /** More arguments of the server; a repeated one wins over ours. */
  readonly args?: string[];
}

/** The server program on the PATH, if there is one. */
export function findRedisServer(): string | undefined {
  const directories = (process.env.PATH ?? '').split(delimiter).filter(isAbsolute);
  const candidates = ['redis-server', 'valkey-server'].flatMap((name) =>
    directories.map((directory) => join(directory, name)),
  );
  return candidates.find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Starts a server, or returns `undefined` where there is none. It goes with this process at the latest. */
export async function startRedis(options: RedisOptions = {}): Promise<RedisServer | undefined> {
  const executable = findRedisServer();
  if (executable === undefined) return undefined;
  const home = await ServerHome.make('ibex-redis-', { quit: 'SIGKILL' });
  const port = await freePort();
  const start = () => startServer(executable, home, port, options.args ?? []);
  let server = await start().catch(async (error) => {
    await home.remove();
    throw error;
  });
  const end = () => server.end('SIGTERM', 'SIGKILL');
  const stop = () => end().then(() => home.remove());
  return {
    executable,
    port,
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return server.pid;
    },
    stop,
    restart: async () => {
      await end();
      server = await start();
    },
    [Symbol.asyncDispose]: stop,
  };
}

async function startServer(
  executable: string,
  home: ServerHome,
  port: number,
  more: string[],
): Promise<ServerProcess> {
  const server = await home.launch(executable, [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', home.directory],
    ...['--save', '', '--appendonly', 'no', '--maxmemory-policy', 'noeviction'],
    ...more,
  ]);
  await server.whenReady(() => answersPing(port));
  return server;
}

/** True once the server takes commands; asking for a password counts, loading its data does not. */
async function answersPing(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    socket.write('PING\r\n');
    const [reply] = await once(socket, 'data', { signal: AbortSignal.timeout(1000) });
    return /^(\+PONG|-NOAUTH)/.test(String(reply));
  } catch {
    return false; // Not listening yet.
  } finally {
    socket.destroy();
  }
}
