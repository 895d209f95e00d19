/** Who replicates while a benchmark looks on: Ibex as a daemon with its defaults, or native logical replication. */
import { Ibex } from './ibex.ts';
import { NativeReplication } from './native.ts';
import type { Databases } from './pair.ts';

export interface Stream {
  readonly who: string;
  /** Begins to replicate `tables`; resolves when all of their rows are on the target. */
  begin(databases: Databases, tables: readonly string[]): Promise<Streaming>;
}

export interface Streaming {
  /** The process that replicates; `undefined` where it belongs to the servers. */
  readonly pid: number | undefined;
  end(): Promise<void>;
}

/** In the order in which they take turns. */
export function streamsOf(peers: ReadonlySet<string>, redisUrl?: string): Stream[] {
  return [
    ibexStream('ibex'),
    ...(peers.has('native') ? [nativeStream] : []),
    ...(redisUrl === undefined ? [] : [ibexStream('ibex, redis', redisUrl)]),
  ];
}

function ibexStream(who: string, redisUrl?: string): Stream {
  return {
    who,
    begin: async (databases) => {
      const daemon = await Ibex.oneWay(databases, redisUrl).daemon();
      return {
        pid: daemon.pid,
        end: async () => {
          await daemon.stop();
        },
      };
    },
  };
}

const nativeStream: Stream = {
  who: 'native',
  begin: async (databases, tables) => {
    const native = await NativeReplication.create(databases, tables);
    return { pid: undefined, end: () => native.drop() };
  },
};
