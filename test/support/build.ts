/**
 * Compiles src/ once before a test run if dist/ is older: tests that run the command `ibex` run what is compiled.
 * Here and not in those tests, whose files run side by side.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

export default function build(): void {
  const script = join(import.meta.dirname, '..', '..', 'scripts', 'ready.mjs');
  execFileSync(process.execPath, [script], { stdio: ['ignore', 'inherit', 'inherit'] });
}
