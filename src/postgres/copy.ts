/**
 * COPY streams: bytes out of one server, bytes into another. Nobody here looks into them.
 */
import { finished } from 'node:stream/promises';
import type pg from 'pg';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';

/** Streams what `COPY .. TO STDOUT` gives, in the pieces in which it arrives. */
export async function* copyOut(client: pg.Client, statement: string): AsyncGenerator<Buffer> {
  for await (const chunk of client.query(copyTo(statement))) yield chunk as Buffer;
}

/** The receiving end of `COPY .. FROM STDIN`. */
export interface CopyIn {
  write(bytes: Buffer): Promise<void>;
  /** Ends the stream; resolves to the number of rows the server took. */
  end(): Promise<number>;
  /** Makes the server throw away what it got. */
  fail(reason: Error): Promise<void>;
}

export function copyIn(client: pg.Client, statement: string): CopyIn {
  const stream = client.query(copyFrom(statement));
  const done = finished(stream);
  // Once the server has refused, the stream has let go of its connection without a word: it must not be touched.
  let refused = false;
  done.catch(() => {
    refused = true;
  });
  return {
    async write(bytes) {
      if (refused || stream.destroyed) return done;
      if (!stream.write(bytes)) {
        await Promise.race([new Promise<void>((resolve) => stream.once('drain', resolve)), done]);
      }
    },
    async end() {
      if (!refused) stream.end();
      await done;
      return stream.rowCount;
    },
    async fail(reason) {
      if (!refused) stream.destroy(reason);
      await done.catch(() => undefined);
    },
  };
}
