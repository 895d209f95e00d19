/** The log: JSON lines on stderr for machines, readable lines on a terminal. Never a row's value, never a password. */
import { type Logger, pino } from 'pino';
import pretty from 'pino-pretty';

export type { Logger };

/** `auto` is pretty on a terminal and JSON elsewhere. */
export function createLog(options: { level: string; format: 'auto' | 'json' | 'pretty' }): Logger {
  const readable = options.format === 'pretty' || (options.format === 'auto' && process.stderr.isTTY);
  const destination = readable
    ? pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'SYS:HH:MM:ss.l' })
    : pino.destination({ dest: 2, sync: true });
  return pino(
    { level: options.level, base: null, serializers: { err: pino.stdSerializers.err } },
    destination,
  );
}
