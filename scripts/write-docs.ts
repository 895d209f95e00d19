/** Writes docs/configuration.md: `npx tsx scripts/write-docs.ts`. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { configurationMarkdown } from '../src/config/docs.ts';

const directory = new URL('../docs/', import.meta.url);
mkdirSync(directory, { recursive: true });
writeFileSync(new URL('configuration.md', directory), configurationMarkdown());
