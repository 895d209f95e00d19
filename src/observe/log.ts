/** The log: JSON lines on stderr for machines, readable lines on a terminal. Never a row's value, never a password. */
import { createRequire } from 'node:module';
import { Writable } from 'node:stream';
import { type Logger, pino } from 'pino';
import { stderrScreen } from './screen.ts';

export type { Logger };

/** `auto` is pretty on a terminal and JSON elsewhere. */
export function createLog(options: { level: string; format: 'auto' | 'json' | 'pretty' }): Logger {
  const readable = options.format === 'pretty' || (options.format === 'auto' && process.stderr.isTTY);
  // On a terminal lines go above what a command shows of its progress.
  const output = process.stderr.isTTY
    ? new Writable({
        decodeStrings: false,
        write: (text, _encoding, written) => {
          stderrScreen.print(String(text));
          written();
        },
      })
    : pino.destination({ dest: 2, sync: true });
  const destination = readable
    ? loadPretty()({
        destination: output,
        sync: true,
        ignore: 'pid,hostname',
        translateTime: 'SYS:HH:MM:ss.l',
      })
    : output;
  return pino(
    { level: options.level, base: null, serializers: { err: pino.stdSerializers.err } },
    destination,
  );
}

/** Loaded where somebody reads along: it is not needed to start a daemon, and is no small part of its start. */
function loadPretty(): typeof import('pino-pretty') {
  return createRequire(import.meta.url)('pino-pretty');
}
