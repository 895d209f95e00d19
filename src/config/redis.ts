/** What is set about Redis, read: the place, TLS, and the key by which rows are encrypted there. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { IbexError } from '../core/errors.ts';
import type { Settings } from './layers.ts';
import type { Options } from './options.ts';

export interface RedisConfig {
  /** The URL, password included. */
  readonly url: string;
  /** For rediss:// only; undefined: as Node does it, verified by the public CAs. */
  readonly tls: ConnectionOptions | undefined;
  /** 32 bytes; undefined: rows go as they are. */
  readonly encryptionKey: Buffer | undefined;
}

const OF_TLS = ['redis_ca', 'redis_cert', 'redis_key', 'redis_verify'] as const;
type FileOption = 'redis_ca' | 'redis_cert' | 'redis_key' | 'redis_encryption_key';

/**
 * Undefined without Redis.
 * @throws IbexError `config` for files that cannot be read, and settings that do not go together
 */
export function redisConfig(settings: Settings, options: Options): RedisConfig | undefined {
  const url = options.redis;
  if (url === undefined) return undefined;
  const read = (name: FileOption) => readSetting(settings, options, name);
  const keyFile = read('redis_encryption_key');
  return {
    url,
    tls: tlsOf(url, settings, options, read),
    encryptionKey: keyFile && keyOf(keyFile, settings.redis_encryption_key?.place),
  };
}

function tlsOf(
  url: string,
  settings: Settings,
  options: Options,
  read: (name: FileOption) => Buffer | undefined,
): ConnectionOptions | undefined {
  const given = OF_TLS.find((name) => settings[name] !== undefined);
  if (given === undefined) return undefined;
  if (!url.startsWith('rediss:')) {
    throw new IbexError('config', `${settings[given]?.place}: it is about TLS, which redis:// does not use`, {
      hint: 'Write the URL of Redis with rediss://.',
    });
  }
  const [ca, cert, key] = [read('redis_ca'), read('redis_cert'), read('redis_key')];
  if ((cert === undefined) !== (key === undefined))
    throw new IbexError('config', 'redis_cert and redis_key go together; one of them is missing');
  return {
    rejectUnauthorized: options.redis_verify,
    ...(ca && { ca }),
    ...(cert && { cert }),
    ...(key && { key }),
  };
}

function readSetting(settings: Settings, options: Options, name: FileOption): Buffer | undefined {
  const file = options[name];
  if (file === undefined) return undefined;
  try {
    return readFileSync(resolve(settings[name]?.base ?? '.', file));
  } catch (error) {
    // Neither the path nor the error that quotes it: the key itself may stand there by mistake.
    const { code } = error as NodeJS.ErrnoException;
    throw new IbexError('config', `${settings[name]?.place}: the file it names cannot be read (${code})`);
  }
}

/** 32 bytes as they are, or written in hex or base64. */
function keyOf(content: Buffer, place = 'redis_encryption_key'): Buffer {
  const text = content.toString('latin1').trim();
  const key =
    content.length === 32
      ? content
      : /^[0-9a-f]{64}$/i.test(text)
        ? Buffer.from(text, 'hex')
        : /^[\w+/-]{43}=?$/.test(text)
          ? Buffer.from(text, 'base64')
          : undefined;
  if (key?.length === 32) return key;
  throw new IbexError('config', `${place}: the file does not hold a key of 32 bytes`, {
    hint: 'Make one with: openssl rand -hex 32',
  });
}
