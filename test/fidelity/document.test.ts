/** That docs/fidelity.md names tests that exist and run. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

interface Claim {
  readonly what: string;
  readonly how: string;
  /** Each as `file` › "title". */
  readonly tests: readonly { readonly file: string; readonly title: string }[];
}

const root = new URL('../../', import.meta.url);

/** The rows of all tables in the document, whose columns are what, how, test. */
function readClaims(): Claim[] {
  const lines = readFileSync(new URL('docs/fidelity.md', root), 'utf8').split('\n');
  return lines
    .filter((line) => line.startsWith('| ') && !line.startsWith('| what |'))
    .map((line) => {
      const [what = '', how = '', named = ''] = line.slice(2, -2).split(' | ');
      const tests = [...named.matchAll(/`([^`]+)` › "([^"]+)"/g)];
      return { what, how, tests: tests.map(([, file = '', title = '']) => ({ file, title })) };
    });
}

/** How a title is declared in a test file: `test('title'`, `it.each(..)('title'`, `test.skipIf(..)(..`. */
function declarations(file: string): { readonly title: string; readonly declared: string }[] {
  const text = readFileSync(new URL(file, root), 'utf8');
  const found = text.matchAll(
    /\b((?:test|it)(?:\.\w+)*)(?:\((?:[^()]|\([^()]*\))*\)|<[^>]*>)*\(\s*(['"`])((?:\\.|(?!\2).)+)\2/g,
  );
  return [...found].map(([, declared = '', , title = '']) => ({
    declared,
    title: title.replace(/\\(.)/g, '$1'),
  }));
}

/** Null, or why this cannot stand for a claim. `skipIf` may: what it waits for is there in CI. */
function fault({ file, title }: { readonly file: string; readonly title: string }): string | null {
  const around = /\bdescribe\.(skip|todo|only)\b/.exec(readFileSync(new URL(file, root), 'utf8'));
  if (around !== null) return `${file} has a ${around[0]}`;
  const named = declarations(file).filter((declaration) => declaration.title === title);
  if (named.length === 0) return `${file} has no test "${title}"`;
  const idle = named.find(({ declared }) => /\.(skip|todo|fails|only)$/.test(declared));
  return idle === undefined ? null : `${file}: "${title}" is ${idle.declared}`;
}

describe('docs/fidelity.md', () => {
  const claims = readClaims();

  test('every row says what, how, and names a test', () => {
    expect(claims.filter(({ how, tests }) => how === '' || tests.length === 0)).toEqual([]);
  });

  test('every test it names exists and runs', () => {
    const faults = claims.flatMap(({ tests }) => tests.map(fault)).filter((problem) => problem !== null);
    expect(faults).toEqual([]);
  });
});
