/** A stretch of network between a daemon and a server that can break in every way in which networks do, and be mended. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { Transform } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';

/** The end of a connection that is nearer to the daemon, or that at the server. */
export type End = 'near' | 'far';

export interface Network {
  /** The same URL, by way of this network. */
  through(url: string): string;
  /** Ends all connections in the middle of whatever they carry, and takes no more. */
  cut(): void;
  /** Nothing gets through, and nobody is told. */
  stall(): void;
  /** So many bytes a second and connection get through. */
  throttle(bytesPerSecond: number): void;
  /**
   * Tells one end of the connections that the other has no more to say, as long as these last; never tells either end
   * that the other is gone. Only of connections that carried `text` in the client's first words, where it is given.
   * Resolves to their number.
   */
  halfClose(end: End, text?: string): number;
  /**
   * Nothing comes through any more over the connections that are open, for ever, and neither end is told, as if a firewall
   * had forgotten them; with `all`, nor over new ones until it is mended.
   */
  freeze(all: boolean): void;
  /** The same of each connection as soon as the client has said `text` in its first words, that included. */
  freezeAt(text: string): void;
  /** Takes connections and lets everything through, at full speed. What was ended stays so. */
  mend(): void;
  close(): Promise<void>;
}

interface Link {
  readonly near: Socket;
  readonly far: Socket;
  /** What the client said first, with the name of its session. */
  greeting: string;
  halfClosed: boolean;
  frozen: boolean;
}

const GREETING = 1_000;

export async function startNetwork(to: { readonly port: number }): Promise<Network> {
  const links = new Set<Link>();
  let isCut = false;
  let bytesPerSecond = Number.POSITIVE_INFINITY;
  let mended: (() => void) | undefined;
  let stalled = Promise.resolve();

  let isFrozen = false;
  let last: string | undefined;
  const passing = (link: Link, note: (bytes: Buffer) => void) =>
    new Transform({
      async transform(bytes: Buffer, _encoding, done) {
        note(bytes);
        await stalled;
        if (link.frozen) return;
        if (Number.isFinite(bytesPerSecond)) await sleep((bytes.length / bytesPerSecond) * 1000);
        done(null, bytes);
      },
    });

  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ port: to.port, host: '127.0.0.1', allowHalfOpen: true });
    const link: Link = { near, far, greeting: '', halfClosed: false, frozen: isFrozen };
    links.add(link);
    const greet = (bytes: Buffer) => {
      if (link.greeting.length < GREETING) link.greeting += bytes.toString('latin1');
      if (last !== undefined && link.greeting.includes(last)) link.frozen = true;
    };
    for (const [socket, other, note] of [
      [near, far, greet],
      [far, near, () => undefined],
    ] as const) {
      socket
        .pipe(passing(link, note))
        .on('end', () => {
          if (!link.halfClosed && !link.frozen) other.end();
        })
        .pipe(other, { end: false });
      socket.on('error', () => undefined);
      socket.on('close', () => {
        if (other.destroyed) links.delete(link);
        else if (!link.halfClosed && !link.frozen) other.destroy();
      });
    }
    if (isCut) near.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const cut = () => {
    isCut = true;
    for (const { near, far } of links) {
      near.destroy();
      far.destroy();
    }
  };
  const mend = () => {
    isFrozen = false;
    isCut = false;
    bytesPerSecond = Number.POSITIVE_INFINITY;
    mended?.();
    mended = undefined;
  };
  return {
    through: (url) => {
      const via = new URL(url);
      via.port = String(port);
      return via.href;
    },
    cut,
    stall: () => {
      stalled = new Promise((resolve) => {
        mended = resolve;
      });
    },
    freeze: (all) => {
      isFrozen = all;
      for (const link of links) link.frozen = true;
    },
    freezeAt: (text) => {
      last = text;
    },
    throttle: (rate) => {
      bytesPerSecond = rate;
    },
    halfClose: (end, text = '') => {
      const chosen = [...links].filter(({ greeting }) => greeting.includes(text));
      for (const link of chosen) {
        link.halfClosed = true;
        link[end].end();
      }
      return chosen.length;
    },
    mend,
    close: async () => {
      mend();
      cut();
      server.close();
      await once(server, 'close');
    },
  };
}
