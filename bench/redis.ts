/** The private Redis of the scenarios that can go through one. */
import { IbexError } from '../src/core/errors.ts';
import { type RedisServer, startRedis } from '../src/embedded/redis.ts';

/** Throws with the remedy where none is installed. */
export async function startRedisOrThrow(): Promise<RedisServer> {
  const redis = await startRedis();
  if (redis !== undefined) return redis;
  throw new IbexError('tool', '--redis needs redis-server or valkey-server on the PATH', {
    hint: 'Install one, or leave --redis out.',
  });
}
