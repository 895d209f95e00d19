/**
 * The driver, node-postgres. As it is loaded it asks which runtime it is in: by `navigator` where there is
 * one, and in Node 20, which has none, by making a `Response`. That loads the HTTP client of Node, half of all that
 * loading the driver takes. So meanwhile there is the `navigator` that later versions of Node have.
 */
import { createRequire } from 'node:module';

function load(): typeof import('pg') {
  const require = createRequire(import.meta.url);
  if ('navigator' in globalThis) return require('pg');
  const value = { userAgent: `Node.js/${process.versions.node.split('.')[0]}` };
  Object.defineProperty(globalThis, 'navigator', { value, configurable: true });
  try {
    return require('pg');
  } finally {
    Reflect.deleteProperty(globalThis, 'navigator');
  }
}

export const driver = load();
