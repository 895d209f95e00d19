import { performance } from 'node:perf_hooks';
import { expect, test } from 'vitest';
import { Bell } from '../../src/engine/bell.ts';

const LONG = 60_000;
const never = new AbortController().signal;

test('ends all pauses when it rings, and none before', async () => {
  const bell = new Bell();
  const ended: string[] = [];
  const pauses = ['a', 'b'].map((name) => bell.rest(LONG, never).then(() => ended.push(name)));
  await new Promise(setImmediate);
  expect(ended).toEqual([]);
  bell.ring();
  await Promise.all(pauses);
  expect(ended).toEqual(['a', 'b']);
});

test('ends a pause at once if it rang after what was heard', async () => {
  const bell = new Bell();
  const heard = bell.rung;
  bell.ring();
  await bell.rest(LONG, never, heard);
  let ended = false;
  const pause = bell.rest(LONG, never, bell.rung).then(() => {
    ended = true;
  });
  await new Promise(setImmediate);
  expect(ended).toBe(false);
  bell.ring();
  await pause;
});

test('otherwise a pause ends by itself, or with the signal', async () => {
  const bell = new Bell();
  const began = performance.now();
  await bell.rest(20, never);
  expect(performance.now() - began).toBeGreaterThan(15);
  const stop = new AbortController();
  const pause = bell.rest(LONG, stop.signal);
  stop.abort();
  await pause;
  await bell.rest(LONG, stop.signal);
});
