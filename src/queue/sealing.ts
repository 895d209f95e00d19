/**
 * Encrypts frames on their way through Redis, so that rows can be read and changed by nobody there: AES-256-GCM, with a
 * key of its own for each batch, made from the one that is configured and a random salt. What is sealed is tied to its
 * batch and to its place in it. Neighbours: frames.ts (what a frame is), bullmq.ts and redis-batch.ts (who use this).
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { IbexError } from '../core/errors.ts';
import { FRAME_HEADER } from './frames.ts';

export interface FrameSeal {
  /** The frame as it goes to Redis. */
  seal(frame: Buffer): Buffer;
  /** The frame as it was. @throws IbexError `queue` when it was changed, or sealed with another key, or not at all. */
  open(entry: Buffer): Buffer;
}

/** What the first byte of a sealed frame has beside the kind. Then: the rest of the header, salt, tag, ciphertext. */
const SEALED = 0x80;
const SALT = 16;
const TAG = 16;
const BODY = FRAME_HEADER + SALT + TAG;
const NONCE = 12;
/** Where the header has the number of the frame within its batch: no two of them are sealed with the same nonce. */
const SEQUENCE_AT = 3;

/** @param name of the batch. @param key 32 bytes; without it frames go as they are. */
export function frameSeal(name: string, key: Buffer | undefined): FrameSeal {
  if (key === undefined) return { seal: (frame) => frame, open: requireOpen };
  const salt = randomBytes(SALT);
  const sealing = batchKey(key, salt, name);
  let known: { salt: Buffer; key: Buffer } = { salt, key: sealing };
  return {
    seal: (frame) => seal(frame, salt, sealing, name),
    open: (entry) => {
      if (entry.length < BODY || ((entry[0] as number) & SEALED) === 0) throw unopened();
      const theirs = entry.subarray(FRAME_HEADER, FRAME_HEADER + SALT);
      if (!known.salt.equals(theirs)) known = { salt: theirs, key: batchKey(key, theirs, name) };
      return open(entry, known.key, name);
    },
  };
}

function batchKey(key: Buffer, salt: Buffer, name: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, `ibex frames of ${name}`, 32));
}

function seal(frame: Buffer, salt: Buffer, key: Buffer, name: string): Buffer {
  const header = Buffer.from(frame.subarray(0, FRAME_HEADER));
  header[0] = (header[0] as number) | SEALED;
  const cipher = createCipheriv('aes-256-gcm', key, nonceOf(header));
  cipher.setAAD(Buffer.concat([header, Buffer.from(name)]));
  const body = cipher.update(frame.subarray(FRAME_HEADER));
  const rest = cipher.final();
  return Buffer.concat([header, salt, cipher.getAuthTag(), body, rest]);
}

function open(entry: Buffer, key: Buffer, name: string): Buffer {
  const header = Buffer.from(entry.subarray(0, FRAME_HEADER));
  const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(header), { authTagLength: TAG });
  decipher.setAAD(Buffer.concat([header, Buffer.from(name)]));
  decipher.setAuthTag(entry.subarray(FRAME_HEADER + SALT, BODY));
  header[0] = (header[0] as number) & ~SEALED;
  try {
    return Buffer.concat([header, decipher.update(entry.subarray(BODY)), decipher.final()]);
  } catch {
    throw unopened();
  }
}

function nonceOf(header: Buffer): Buffer {
  const nonce = Buffer.alloc(NONCE);
  header.copy(nonce, 0, SEQUENCE_AT, FRAME_HEADER);
  return nonce;
}

function requireOpen(entry: Buffer): Buffer {
  if (((entry[0] as number) & SEALED) !== 0) throw unopened();
  return entry;
}

function unopened(): IbexError {
  return new IbexError(
    'queue',
    'rows in Redis cannot be opened: they were changed there, or sealed with another key',
    {
      hint:
        'Give all daemons and workers of the sync the same redis_encryption_key. Nothing is lost: the batch is read ' +
        'from the source again.',
    },
  );
}
