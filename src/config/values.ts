/**
 * How the values of options read. Error texts complete the sentence "<where it stands>: ..." and never repeat the value: it
 * may be a password in the wrong place.
 */
import * as z from 'zod';
import { IbexError } from '../core/errors.ts';
import { parsePatterns } from '../core/patterns.ts';

export const text = z.string({ error: 'must be a text' }).min(1, { error: 'must not be empty' });

/** Where a node's URL comes from. */
export type NodeSource = { url: string } | { url_file: string } | { url_command: string };

/** A URL, or a mapping with one of three keys. */
export const nodeSource = z.union(
  [
    text.transform((url) => ({ url })),
    z.strictObject({ url: text }),
    z.strictObject({ url_file: text }),
    z.strictObject({ url_command: text }),
  ],
  { error: 'must be a URL, or have exactly one of the keys url, url_file, url_command' },
);

const AT_LEAST_ONE = 'must be one pattern schema.table or more';

/** A comma-separated text or a list of such texts. */
export const patterns = z
  .union([text, z.array(text).min(1, { error: AT_LEAST_ONE })], { error: AT_LEAST_ONE })
  .transform((lists, context) => {
    try {
      return [lists].flat().flatMap(parsePatterns);
    } catch (error) {
      if (!(error instanceof IbexError)) throw error;
      context.addIssue(`${error.message}. ${error.hint}`);
      return z.NEVER;
    }
  });

export const redisUrl = text.refine((url) => /^rediss?:\/\//.test(url) && URL.canParse(url), {
  error: 'must be a URL that begins with redis:// or rediss://',
});

export const listenAddress = z
  .union([z.int(), z.string()], { error: 'must be HOST:PORT' })
  .transform((address, context) => {
    const match = /^(?:(?:\[([0-9a-f:.]+)\]|([^\s:[\]]+)):)?(\d{1,5})$/i.exec(String(address));
    const port = Number(match?.[3]);
    if (match && port <= 65535) return { host: match[1] ?? match[2] ?? '127.0.0.1', port };
    context.addIssue('must be HOST:PORT, such as 127.0.0.1:8642 or [::1]:8642, or a port alone');
    return z.NEVER;
  });

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
/** The longest wait that Node's timers can do, rounded down to days. */
const MAX_DURATION_MS = 24 * 24 * 3_600_000;

/** Milliseconds from `500ms`, `60s`, `5m`, `1h`; a bare number counts seconds. */
export const duration = z
  .union([z.number(), z.string()], { error: 'must be a duration' })
  .transform((given, context) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(String(given));
    const ms = Math.round(Number(match?.[1]) * UNITS[(match?.[2] ?? 's') as keyof typeof UNITS]);
    if (match && ms <= MAX_DURATION_MS) return ms;
    context.addIssue('must be a duration such as 500ms, 60s, 5m or 1h, of 24 days at most');
    return z.NEVER;
  });

const MILLISECONDS = 'must be a number of milliseconds from 1 to 60000';

export const milliseconds = z
  .union([z.number(), z.string()], { error: MILLISECONDS })
  .transform((given, context) => {
    const ms = /^\d+$/.test(String(given)) ? Number(given) : 0;
    if (ms >= 1 && ms <= 60_000) return ms;
    context.addIssue(MILLISECONDS);
    return z.NEVER;
  });

const RATE = 'must be a number of megabytes a second above 0';

export const megabytes = z.union([z.number(), z.string()], { error: RATE }).transform((given, context) => {
  const rate = /^\d+(?:\.\d+)?$/.test(String(given)) ? Number(given) : 0;
  if (rate > 0) return rate;
  context.addIssue(RATE);
  return z.NEVER;
});

const BYTES = { kb: 2 ** 10, mb: 2 ** 20, gb: 2 ** 30, tb: 2 ** 40 } as const;
const BUDGET = 'must be a size such as 500MB or 20GB, of 1MB at least, or auto, or none';

/** `auto`, or a number of bytes, or null for none. */
export const byteBudget = z.union([z.number(), z.string()], { error: BUDGET }).transform((given, context) => {
  const text = String(given).toLowerCase();
  if (text === 'auto') return text;
  if (text === 'none') return null;
  const match = /^(\d+(?:\.\d+)?) ?(kb|mb|gb|tb)$/.exec(text);
  const bytes = Math.round(Number(match?.[1]) * BYTES[(match?.[2] ?? 'kb') as keyof typeof BYTES]);
  if (match && bytes >= BYTES.mb && bytes <= 1024 * BYTES.tb) return bytes;
  context.addIssue(BUDGET);
  return z.NEVER;
});

const AGES = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const AGE = 'must be an age such as 90m, 12h or 7d, of 1 s at least and ten years at most, or none';

/** Milliseconds, or null for none. */
export const ageBudget = z.string({ error: AGE }).transform((given, context) => {
  if (given.toLowerCase() === 'none') return null;
  const match = /^(\d+(?:\.\d+)?)(s|m|h|d)$/.exec(given);
  const ms = Math.round(Number(match?.[1]) * AGES[(match?.[2] ?? 's') as keyof typeof AGES]);
  if (match && ms >= 1000 && ms <= 3650 * AGES.d) return ms;
  context.addIssue(AGE);
  return z.NEVER;
});

export function count(least: number, most: number) {
  const error = `must be a whole number from ${least} to ${most}`;
  return z.union([z.number(), z.string()], { error }).transform((given, context) => {
    const value = /^\d+$/.test(String(given)) ? Number(given) : -1;
    if (value >= least && value <= most) return value;
    context.addIssue(error);
    return z.NEVER;
  });
}

export const flag = z.union([z.boolean(), z.stringbool()], { error: 'must be true or false' });

export function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: `must be one of ${values.join(', ')}` });
}
