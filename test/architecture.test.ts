/**
 * The plan of the house, as a test: who may know whom, that nothing goes round in circles, and that what is
 * written down stays readable. Types count like values: who imports one has heard of the other.
 * There is no list of exceptions; a rule that stands in the way is changed here, for all.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ERROR_KINDS } from '../src/core/errors.ts';

const root = join(import.meta.dirname, '..');

/** The parts that may import these parts, besides themselves, and no others. */
const ONLY: Record<string, string[]> = {
  // Settings hold URLs, and how a URL reads is one matter with how it is used.
  config: ['core', 'postgres'],
  postgres: ['core'],
  queue: ['core'],
};

/** The parts that must not have heard of these. */
const NEVER: Record<string, string[]> = {
  apply: ['capture', 'backfill', 'engine', 'cli', 'setup'],
  capture: ['apply', 'backfill', 'engine', 'cli', 'setup'],
  observe: ['engine', 'cli'],
};

const LONGEST_FILE = 400;

/** What must not be left behind in any text, cut in two so as not to be found in this file. */
const FORBIDDEN = ['../' + 'shared', 'DESIGN' + ' §', '/work' + '/'];

/** What else is written by hand. */
const OTHER_PLACES = [
  'bin',
  'scripts',
  'docker',
  'demo',
  '.ci',
  'Dockerfile',
  'docker-compose.yml',
  'package.json',
];

/** Paths relative to the root, with slashes, of the given files and all files below the given directories, packages left out. */
function filesBelow(...places: string[]): string[] {
  return places.flatMap((place) => {
    const found = statSync(join(root, place), { throwIfNoEntry: false });
    if (!found?.isDirectory()) return found ? [place] : [];
    const ours = readdirSync(join(root, place)).filter((name) => name !== 'node_modules');
    return filesBelow(...ours.map((name) => posix.join(place, name)));
  });
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

/** All that a module names in import and export declarations and in import(..). */
function importsOf(text: string): string[] {
  const declared = /^\s*(?:import|export)\s+(?:type\s+)?(?:[\w$*{][^;'"`]*?\sfrom\s*)?['"]([^'"]+)['"]/gm;
  const dynamic = /\bimport\(\s*['"`]([^'"`]+)['"`]/g;
  return [declared, dynamic].flatMap((pattern) =>
    Array.from(text.matchAll(pattern), (match) => match[1] ?? ''),
  );
}

interface Import {
  readonly from: string;
  /** A file below src/, or the name of a package. */
  readonly to: string;
}

const sources = filesBelow('src').filter((file) => file.endsWith('.ts'));

const imports: Import[] = sources.flatMap((from) =>
  importsOf(read(from)).map((name) => ({
    from,
    to: name.startsWith('.') ? posix.join(posix.dirname(from), name) : name,
  })),
);

/** The part of the house a file is in, or `undefined` for a package. */
function partOf(file: string): string | undefined {
  return /^src\/([^/.]+)/.exec(file)?.[1];
}

function show({ from, to }: Import): string {
  return `${from} imports ${to}`;
}

describe('imports', () => {
  test('are found in all their forms', () => {
    const text = [
      "import a from 'a';",
      "import * as b from 'b';",
      "import type { C } from './c.ts';",
      "import {\n  type D,\n  e,\n} from '../d.ts';",
      "import 'f';",
      "export * from 'g';",
      "export { h } from 'h';",
      "const i = await import('./i.ts');",
      "export function from(text: string) {\n  return 'nothing';\n}",
      "export const sql = `select 1 from 'nothing'`;",
    ].join('\n');
    expect(importsOf(text)).toEqual(['a', 'b', './c.ts', '../d.ts', 'f', 'g', 'h', './i.ts']);
    expect(imports.map(show)).toContain('src/postgres/errors.ts imports src/core/errors.ts');
  });

  test('stay inside the project', () => {
    const outside = imports.filter(
      ({ to }) => to.startsWith('.') || (to.startsWith('src/') && !sources.includes(to)),
    );
    expect(outside.map(show)).toEqual([]);
  });

  test('of core are in core: no other part, no package, nothing of Node', () => {
    const wrong = imports.filter(({ from, to }) => partOf(from) === 'core' && partOf(to) !== 'core');
    expect(wrong.map(show)).toEqual([]);
  });

  test.each(Object.entries(ONLY))('of %s lead to %j only', (part, allowed) => {
    const wrong = imports.filter(({ from, to }) => {
      const other = partOf(to);
      return partOf(from) === part && other !== undefined && other !== part && !allowed.includes(other);
    });
    expect(wrong.map(show)).toEqual([]);
  });

  test.each(Object.entries(NEVER))('of %s do not lead to %j', (part, forbidden) => {
    const wrong = imports.filter(
      ({ from, to }) => partOf(from) === part && forbidden.includes(partOf(to) ?? ''),
    );
    expect(wrong.map(show)).toEqual([]);
  });

  test('lead to cli from cli only', () => {
    const wrong = imports.filter(({ from, to }) => partOf(to) === 'cli' && partOf(from) !== 'cli');
    expect(wrong.map(show)).toEqual([]);
  });

  test('form no cycle', () => {
    expect(findCycles()).toEqual([]);
  });
});

/** Groups of files that all reach each other; each is one or more cycles. */
function findCycles(): string[][] {
  const reach = new Map(sources.map((file) => [file, reachableFrom(file)]));
  const groups = sources
    .filter((file) => reach.get(file)?.has(file))
    .map((file) => sources.filter((other) => reach.get(file)?.has(other) && reach.get(other)?.has(file)));
  return groups.filter((group, index) => groups.findIndex(([first]) => first === group[0]) === index);
}

function reachableFrom(start: string): Set<string> {
  const reached = new Set<string>();
  const visit = (file: string) => {
    for (const { to } of imports.filter(({ from }) => from === file)) {
      if (reached.has(to)) continue;
      reached.add(to);
      visit(to);
    }
  };
  visit(start);
  return reached;
}

describe('errors', () => {
  test('of the server are told apart in one file', () => {
    const files = sources.filter((file) => read(file).includes('DatabaseError'));
    expect(files).toEqual(['src/postgres/errors.ts']);
  });

  test.each(Object.entries(ERROR_KINDS))('of kind %s have a doc comment and a hint', (kind, { hint }) => {
    const documented = new RegExp(String.raw`/\*\* \S[^\n]*\S \*/\n {2}${kind}: \{`);
    expect(read('src/core/errors.ts')).toMatch(documented);
    expect(hint).toMatch(/^[A-Z`].{8,}\.$/);
  });
});

describe('files', () => {
  test(`have ${LONGEST_FILE} lines at most`, () => {
    const lines = (file: string) => read(file).trimEnd().split('\n').length;
    const long = sources.filter((file) => lines(file) > LONGEST_FILE);
    expect(long.map((file) => `${file}: ${lines(file)} lines`)).toEqual([]);
  });

  test('leave nothing for later', () => {
    const mark = new RegExp(`\\b${'TO'}${'DO'}\\b`);
    expect(filesBelow('src', 'triggers', 'test', 'bench').filter((file) => mark.test(read(file)))).toEqual(
      [],
    );
  });

  test('do not speak of notes that are not part of the project', () => {
    const files = filesBelow(...['src', 'triggers', 'test', 'bench', 'docs', 'README.md'], ...OTHER_PLACES);
    const found = files.flatMap((file) =>
      FORBIDDEN.filter((text) => read(file).includes(text)).map((text) => `${file}: ${text}`),
    );
    expect(found).toEqual([]);
  });
});
