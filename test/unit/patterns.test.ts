import { describe, expect, it } from 'vitest';
import { isKind } from '../../src/core/errors.ts';
import { isExact, matches, parsePatterns } from '../../src/core/patterns.ts';

function covers(text: string, schema: string, table: string): boolean {
  return parsePatterns(text).some((pattern) => matches(pattern, schema, table));
}

describe('matching', () => {
  it.each([
    ['public.orders', 'public', 'orders', true],
    ['public.orders', 'public', 'orders2', false],
    ['public.orders', 'public2', 'orders', false],
    ['public.*', 'public', 'anything', true],
    ['*.*', 'any', 'thing', true],
    ['*.log_?', 'app', 'log_1', true],
    ['*.log_?', 'app', 'log_10', false],
    ['app.a*z', 'app', 'az', true],
    ['app.?', 'app', '😀', true],
    ['app.*', 'app', 'two\nlines', true],
    ['app.a+b(c)[d]|e^$\\/', 'app', 'a+b(c)[d]|e^$\\/', true],
  ])('%s and %s.%s: %s', (text, schema, table, expected) => {
    expect(covers(text, schema, table)).toBe(expected);
  });

  it('folds no case, with or without quotes', () => {
    expect(covers('public.Orders', 'public', 'Orders')).toBe(true);
    expect(covers('public.Orders', 'public', 'orders')).toBe(false);
    expect(covers('public."orders"', 'public', 'ORDERS')).toBe(false);
  });

  it('takes quoted dot, comma, star and question mark as they are', () => {
    expect(covers('"My.Schema"."a*b"', 'My.Schema', 'a*b')).toBe(true);
    expect(covers('"My.Schema"."a*b"', 'My.Schema', 'axb')).toBe(false);
    expect(covers('app."a,b?"', 'app', 'a,b?')).toBe(true);
    expect(covers('app."a,b?"', 'app', 'a,bc')).toBe(false);
    expect(covers('app."say ""hi"""', 'app', 'say "hi"')).toBe(true);
    expect(covers('app."."*', 'app', '.x')).toBe(true);
    expect(covers('app." x "', 'app', ' x ')).toBe(true);
  });
});

describe('lists', () => {
  it('are separated by commas outside quotes, blanks around them ignored', () => {
    expect(parsePatterns(' a.b , "c,d".e').map((pattern) => pattern.text)).toEqual(['a.b', '"c,d".e']);
  });

  it('tell patterns for one table from others', () => {
    const exact = parsePatterns('a.b, a."*", a.*, ?.b').map(isExact);
    expect(exact).toEqual([true, true, false, false]);
  });
});

describe('refusals', () => {
  it.each([
    ['orders', /write schema.table, such as public.orders/],
    ['*', /write schema.table/],
    ['db.public.orders', /more than one dot/],
    ['', /empty/],
    ['a.b,,c.d', /empty/],
    ['a.b,', /empty/],
    ['.b', /lacks a name/],
    ['a.', /lacks a name/],
    ['"".b', /lacks a name/],
    ['a."b', /not closed/],
  ])('%s', (text, message) => {
    expect(() => parsePatterns(text)).toThrow(message);
    try {
      parsePatterns(text);
    } catch (error) {
      expect(isKind(error, 'config')).toBe(true);
    }
  });

  it('do not repeat a URL that stands in the wrong place', () => {
    expect(() => parsePatterns('postgres://app:secret@a.b.c/db')).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('secret') }),
    );
  });
});
