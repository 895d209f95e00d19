/** The kinds of faults that come from outside. Each resolves once it is over, so that from there recovery is counted. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Cluster } from '../../src/embedded/cluster.ts';
import type { RedisServer } from '../../src/embedded/redis.ts';
import type { RunningIbex } from '../support/ibex.ts';
import type { Network } from '../support/network.ts';
import { waitFor } from '../support/servers.ts';
import { ask } from './ask.ts';
import type { Fleet } from './fleet.ts';

/** All that a fault can strike. */
export interface World {
  readonly random: () => number;
  readonly servers: Record<Side, Cluster>;
  /** Straight to the server, as the tables' owner. */
  readonly urls: Record<Side, string>;
  readonly networks: Record<Side, Network> & { readonly redis: Network | undefined };
  readonly redis: RedisServer | undefined;
  readonly fleet: Fleet;
  /** From now on no commit waits for the source's log. Resolves once one of these has reached the target. */
  readonly carryUnflushed: () => Promise<void>;
  /** What is to be done at the end of the round. */
  readonly afterwards: (() => Promise<void>)[];
}

export type Side = 'source' | 'target';

export interface Kind {
  readonly name: string;
  /** What has to be there. */
  readonly needs?: 'redis' | 'worker' | 'faketime';
  /** It takes two daemons, and so comes when no failpoint is left that could strike one of them. */
  readonly comesLast?: boolean;
  readonly strike: (world: World) => Promise<void>;
}

const pause = ({ random }: World, upToMs: number) => sleep(100 + random() * upToMs);

function networkKinds(where: 'source' | 'target' | 'redis'): Kind[] {
  const needs = where === 'redis' ? ({ needs: 'redis' } as const) : {};
  const kind = (how: string, upToMs: number, begin: (network: Network, world: World) => void): Kind => ({
    ...needs,
    name: `network to the ${where} ${how}`,
    strike: async (world) => {
      const network = world.networks[where] as Network;
      begin(network, world);
      await pause(world, upToMs);
      network.mend();
    },
  });
  return [
    kind('cut', 1_000, (network) => network.cut()),
    kind('stalled', 2_500, (network) => network.stall()),
    kind('throttled', 2_500, (network) => network.throttle(100_000)),
    // One end is closed, and the other one is not told.
    kind('half-closed', 200, (network, { random }) => {
      network.halfClose(random() < 0.5 ? 'near' : 'far');
    }),
  ];
}

function serverKinds(side: Side): Kind[] {
  return [
    {
      name: `crash of the ${side}`,
      strike: async ({ servers, carryUnflushed }) => {
        if (side === 'source') await carryUnflushed();
        await servers[side].stop('immediate');
        await servers[side].start();
      },
    },
    {
      name: `sessions on the ${side} terminated`,
      strike: async ({ urls, random }) => {
        await ask(
          urls[side],
          `select pg_terminate_backend(pid) from pg_stat_activity
            where application_name like 'ibex:%' and usename = current_user and random() < $1`,
          [random() < 0.5 ? 1 : 0.4],
        );
      },
    },
    {
      name: `clock of the ${side} apart`,
      needs: 'faketime',
      strike: async (world) => {
        const { servers, random, afterwards } = world;
        const seconds = Math.round((random() - 0.5) * 2 * 86_400);
        const again = async (environment: Record<string, string>) => {
          await servers[side].stop();
          await servers[side].start(environment);
        };
        afterwards.push(() => again({}));
        await again({
          LD_PRELOAD: findFaketime() as string,
          FAKETIME: `${seconds < 0 ? '' : '+'}${seconds}`,
          // What servers measure pauses by is no clock on a wall.
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
        });
      },
    },
  ];
}

function processKinds(which: 'daemon' | 'worker'): Kind[] {
  const needs = which === 'worker' ? ({ needs: 'worker' } as const) : {};
  const process = ({ fleet }: World) => fleet[which] as RunningIbex;
  return [
    { ...needs, name: `${which} killed`, strike: (world) => process(world).kill9() },
    {
      ...needs,
      name: `${which} frozen`,
      strike: (world) => world.fleet.freeze(process(world), 200 + world.random() * 3_000),
    },
  ];
}

const redisKinds: Kind[] = [
  { name: 'Redis emptied', needs: 'redis', strike: (world) => onRedis(world, (redis) => redis.flushall()) },
  {
    name: 'Redis restarted, empty',
    needs: 'redis',
    strike: ({ redis }) => (redis as RedisServer).restart(),
  },
  {
    name: 'Redis full',
    needs: 'redis',
    strike: (world) =>
      onRedis(world, async (redis) => {
        await redis.config('SET', 'maxmemory', '1');
        await pause(world, 2_000);
        await redis.config('SET', 'maxmemory', '0');
      }),
  },
];

/** The lock that makes a daemon the only one is lost, and it does not hear of it; another one takes the lane. */
const replaced: Kind = {
  name: 'daemon replaced, unaware',
  comesLast: true,
  strike: async ({ fleet, networks, urls }) => {
    await waitFor(() => networks.target.halfClose('far', 'ibex:main:lease') > 0, { what: 'a lease' });
    const leases = `select from pg_stat_activity where application_name = 'ibex:main:lease'
                      and datname = current_database()`;
    await waitFor(async () => (await ask(urls.target, leases)).length === 0, {
      timeout: 60_000,
      what: 'the server to see that a session ended',
    });
    const former = await fleet.replaceDaemon();
    const ended = { timeout: 180_000, what: 'the former daemon to end' };
    await waitFor(() => !former.running, ended).catch(() => {
      throw new Error('a daemon that was replaced went on as if it had the lane');
    });
    fleet.daemon.signal('SIGCONT');
  },
};

/** A daemon stands still for longer than others wait for it, and wakes up when one of them has the lane. */
const outlived: Kind = {
  name: 'daemon frozen until replaced',
  comesLast: true,
  strike: async ({ fleet }) => {
    fleet.daemon.signal('SIGSTOP');
    const former = await fleet.replaceDaemon();
    former.signal('SIGCONT');
    fleet.daemon.signal('SIGCONT');
  },
};

export const KINDS: readonly Kind[] = [
  ...processKinds('daemon'),
  ...serverKinds('source'),
  ...serverKinds('target'),
  ...networkKinds('source'),
  ...networkKinds('target'),
  replaced,
  outlived,
  ...networkKinds('redis'),
  ...redisKinds,
  ...processKinds('worker'),
];

async function onRedis(world: World, work: (redis: Redis) => Promise<unknown>): Promise<void> {
  const redis = new Redis((world.redis as RedisServer).url);
  redis.on('error', () => undefined);
  try {
    await work(redis);
  } finally {
    redis.disconnect();
  }
}

/** The library of the package `faketime`, which gives one process another clock; undefined where it is not installed. */
export function findFaketime(): string | undefined {
  const root = '/usr/lib';
  if (!existsSync(root)) return undefined;
  return readdirSync(root)
    .map((name) => join(root, name, 'faketime', 'libfaketime.so.1'))
    .find((file) => existsSync(file));
}
