/** What keeps copying from being a burden: the limit of its rate, and what counts as a busy source. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Pace } from '../../src/backfill/pace.ts';
import { RateLimit } from '../../src/backfill/rate-limit.ts';
import { CALM, type Judgement, judgeLoad, type SourceLoad } from '../../src/backfill/source-load.ts';

describe('the limit of the rate', () => {
  test('never lets more through than its rate and the burst, however many share it', () => {
    const steps = fc.array(fc.tuple(fc.integer({ min: 0, max: 500 }), fc.integer({ min: 1, max: 3000 })), {
      maxLength: 200,
    });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4 }), steps, (jobs, takes) => {
        let now = 0;
        const limit = new RateLimit(10_000, () => now);
        const mayTakeAt = Array.from({ length: jobs }, () => 0);
        const taken: { at: number; bytes: number }[] = [];
        for (const [idle, bytes] of takes) {
          const job = mayTakeAt.indexOf(Math.min(...mayTakeAt));
          now = Math.max(now, mayTakeAt[job] as number) + idle;
          taken.push({ at: now, bytes });
          mayTakeAt[job] = now + limit.reserve(bytes);
        }
        for (const [i, first] of taken.entries()) {
          let before = 0;
          for (const [j, { at, bytes }] of taken.slice(i).entries()) {
            // All but the last that each job took has had its time, the burst apart.
            const open = Math.min(j, jobs - 1) * 3000;
            expect(before - open).toBeLessThanOrEqual(((at - first.at + 100) * 10_000) / 1000 + 1e-6);
            before += bytes;
          }
        }
      }),
    );
  });

  test('is used up to the full by those who always want more', () => {
    let now = 0;
    const limit = new RateLimit(1_000_000, () => now);
    let bytes = 0;
    while (now < 10_000) {
      now += limit.reserve(64_000);
      bytes += 64_000;
    }
    expect(bytes).toBeGreaterThanOrEqual(10_000_000);
    expect(bytes).toBeLessThanOrEqual(10_300_000);
  });
});

describe('a busy source', () => {
  const load = (active: number, standby: Partial<SourceLoad> = {}): SourceLoad => ({
    active,
    standbyBytes: 0,
    standbySeconds: 0,
    ...standby,
  });
  const judged = (loads: readonly SourceLoad[], from: Judgement = CALM) =>
    loads.reduce((judgement, one) => judgeLoad(judgement, one, 16), from).busy;

  test('is one that is found so twice in a row', () => {
    expect(judged([load(17)])).toBeNull();
    expect(judged([load(17), load(16), load(17)])).toBeNull();
    expect(judged([load(17), load(20)])).toBe('20 sessions are active there');
  });

  test('is calm again once it is clearly below, twice in a row', () => {
    const busy = { busy: 'for some reason', doubts: 0 };
    expect(judged([load(13), load(13), load(13)], busy)).toBe('for some reason');
    expect(judged([load(12)], busy)).toBe('for some reason');
    expect(judged([load(12), load(0)], busy)).toBeNull();
  });

  test('is also one whose standby does not keep up', () => {
    const slow = load(0, { standbySeconds: 11.4 });
    const far = load(0, { standbyBytes: 100 * 1024 * 1024 });
    expect(judged([slow, slow])).toBe('a standby is 11 s behind');
    expect(judged([far, far])).toBe('a standby is 100 MiB behind');
  });

  test('changes nothing where that is switched off', () => {
    expect(judgeLoad({ busy: null, doubts: 1 }, load(1000), 0).busy).toBeNull();
  });
});

describe('the pace', () => {
  /** Chunks that end when they are told to. */
  function start(pace: Pace, signal: AbortSignal) {
    const chunk = { begun: false, end: () => {} };
    const done = pace.within(signal, () => {
      chunk.begun = true;
      return new Promise<void>((resolve) => {
        chunk.end = resolve;
      });
    });
    return Object.assign(chunk, { done });
  }

  test('is that of the jobs, until the source is busy: then one chunk follows the other', async () => {
    let busy = false;
    const pace = new Pace({ isPaused: () => false, isBusy: () => busy });
    const { signal } = new AbortController();
    const [first, second] = [start(pace, signal), start(pace, signal)];
    expect([first.begun, second.begun]).toEqual([true, true]);
    busy = true;
    const [third, fourth] = [start(pace, signal), start(pace, signal)];
    first.end();
    await first.done;
    expect([third.begun, fourth.begun]).toEqual([false, false]);
    second.end();
    await expect.poll(() => [third.begun, fourth.begun].filter((begun) => begun)).toHaveLength(1);
    third.end();
    fourth.end();
    await expect.poll(() => [third.begun, fourth.begun]).toEqual([true, true]);
    third.end();
    fourth.end();
    await Promise.all([third.done, fourth.done]);
  });

  test('is none while the sync is paused, and a stop does not wait for it', async () => {
    let paused = true;
    const pace = new Pace({ isPaused: () => paused, isBusy: () => false });
    const stop = new AbortController();
    const [kept, stopped] = [start(pace, new AbortController().signal), start(pace, stop.signal)];
    stop.abort();
    await expect(stopped.done).rejects.toMatchObject({ name: 'AbortError' });
    expect(kept.begun).toBe(false);
    paused = false;
    await expect.poll(() => kept.begun).toBe(true);
    kept.end();
    await kept.done;
  });
});
