/** What this process holds in buffers and cannot let go of. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes in buffers after a collection, which V8 itself puts off until some 64 MiB of them are garbage. */
export function heldBytes(): number {
  collect();
  return process.memoryUsage().arrayBuffers;
}
