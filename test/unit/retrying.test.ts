/** How long is waited before what failed is tried again. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { PAUSE_MAX_MS, pauseMs, TableRetries } from '../../src/engine/retrying.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'] });
});

afterEach(() => {
  vi.useRealTimers();
});

test('pauses grow up to half a minute, and up to five seconds where others are in the way for a moment', () => {
  expect(pauseMs(0)).toBeLessThanOrEqual(625);
  expect(pauseMs(20, PAUSE_MAX_MS, 'connection')).toBeGreaterThanOrEqual(22_500);
  for (const kind of ['lock', 'transient'] as const)
    expect(pauseMs(20, PAUSE_MAX_MS, kind)).toBeLessThanOrEqual(6_250);
  expect(pauseMs(20, 1_000, 'lock')).toBeLessThanOrEqual(1_250);
});

test('a table that fails again waits twice as long, up to the longest', () => {
  const retries = new TableRetries(1_000, 3_000);
  expect(retries.isDue('t')).toBe(true);
  for (const pause of [1_000, 2_000, 3_000, 3_000]) {
    retries.postpone('t');
    vi.advanceTimersByTime(pause - 1);
    expect(retries.isDue('t'), `${pause}`).toBe(false);
    vi.advanceTimersByTime(1);
    expect(retries.isDue('t'), `${pause}`).toBe(true);
    expect(retries.isSame('t')).toBe(true);
  }
  retries.forget('t');
  expect(retries.isSame('t')).toBe(false);
});

test('what happens to a table that has been well for long is another trouble', () => {
  const retries = new TableRetries(1_000, 3_000);
  for (let failure = 1; failure <= 3; failure++) {
    retries.postpone('t');
    vi.advanceTimersByTime(3_000);
  }
  vi.advanceTimersByTime(3_001);
  expect(retries.isSame('t')).toBe(false);
  retries.postpone('t');
  vi.advanceTimersByTime(1_000);
  expect(retries.isDue('t')).toBe(true);
});
