/**
 * The socket of a session. What comes from the server lands in buffers that are used again: a stream of Node takes a
 * new one of 64 KiB for every read, and for a table of some size that is more work than all else that is done with it.
 *
 * The driver gets a copy of what it is to have, in the stream. A `Taker` gets the bytes where they landed, and says when it
 * is done with them. A socket that TLS has wrapped is a stream like any other: what it deciphers is new in any case.
 */
import { Socket } from 'node:net';

/** Takes bytes that are its own until it calls `release`, which it may do at once, later, or never. */
export type Taker = (bytes: Buffer, release: () => void) => void;

/** For takers: large, so that a server that is ahead is read in few steps. */
const LARGE = 256 * 1024;
/** What fills less of it is copied: bytes that wait for a receiver are counted, and not what surrounds them. */
const WORTH_KEEPING = LARGE / 4;
/** Large buffers that wait to be used again; more of them at once are rare. */
const KEPT = 16;

/** For the driver, of all sockets: it is read and copied in one go. */
const small = Buffer.allocUnsafeSlow(64 * 1024);
const free: Buffer[] = [];
const takers = new WeakMap<Socket, Taker>();

/** A socket that is not connected yet. */
export function createSocket(): Socket {
  const socket: Socket = new Socket({
    onread: {
      buffer: () => (takers.has(socket) ? (free.pop() ?? Buffer.allocUnsafeSlow(LARGE)) : small),
      callback: (count: number, buffer: Uint8Array) => deliver(socket, buffer as Buffer, count),
    },
  } as ConstructorParameters<typeof Socket>[0]);
  return socket;
}

/** False when no more is to come for now. */
function deliver(socket: Socket, buffer: Buffer, count: number): boolean {
  const taker = takers.get(socket);
  const bytes = buffer.subarray(0, count);
  if (taker !== undefined && buffer !== small && count >= WORTH_KEEPING) {
    taker(bytes, once(buffer));
    return true;
  }
  const copy = Buffer.from(bytes);
  keep(buffer);
  if (taker === undefined) return socket.push(copy);
  taker(copy, nothing);
  return true;
}

function once(buffer: Buffer): () => void {
  let held = true;
  return () => {
    if (held) keep(buffer);
    held = false;
  };
}

function keep(buffer: Buffer): void {
  if (buffer !== small && free.length < KEPT) free.push(buffer);
}

function nothing(): void {}

/**
 * From now on what comes goes to the taker and not to the driver, until the result is called: then again to the driver,
 * beginning with `rest`.
 */
export function takeOver(socket: Socket, taker: Taker): (rest: Buffer) => void {
  const driver = socket.listeners('data')[0] as (bytes: Buffer) => void;
  const listener = (bytes: Buffer) => taker(bytes, nothing);
  takers.set(socket, taker);
  socket.removeListener('data', driver);
  socket.on('data', listener);
  return (rest) => {
    takers.delete(socket);
    socket.removeListener('data', listener);
    socket.on('data', driver);
    if (rest.length > 0) driver(Buffer.from(rest));
  };
}
