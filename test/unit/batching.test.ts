import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Batching } from '../../src/engine/batching.ts';

/** A batching that notes what it was given at once. */
function noting(atMostMs: (waiting: number) => number) {
  const batches: (readonly number[])[] = [];
  const work = async (items: readonly number[]) => {
    batches.push(items);
    return items.map((item) => -item);
  };
  return { batches, batching: new Batching(work, { everyMs: 1, atMostMs }) };
}

test('what comes while more is to be expected is done together, and each gets its own result', async () => {
  let more = true;
  const { batches, batching } = noting(() => (more ? Number.POSITIVE_INFINITY : 0));
  const first = batching.add(1);
  await sleep(20);
  const second = batching.add(2);
  more = false;
  expect(await Promise.all([first, second])).toEqual([-1, -2]);
  expect(batches).toEqual([[1, 2]]);
});

test('what comes alone does not wait for others', async () => {
  const { batches, batching } = noting(() => 0);
  expect(await batching.add(1)).toBe(-1);
  expect(await batching.add(2)).toBe(-2);
  expect(batches).toEqual([[1], [2]]);
});

test('what fails concerns all that were done together, and nobody after them', async () => {
  let fails = true;
  const work = async (items: readonly number[]) => {
    if (fails) throw new Error('no');
    return items;
  };
  const batching = new Batching(work, { everyMs: 1, atMostMs: () => 0 });
  const results = await Promise.allSettled([batching.add(1), batching.add(2)]);
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  fails = false;
  expect(await batching.add(3)).toBe(3);
});

test('how long it waits may depend on how many wait already', async () => {
  const { batches, batching } = noting((waiting) => (waiting < 3 ? Number.POSITIVE_INFINITY : 0));
  await Promise.all([1, 2, 3].map((one) => batching.add(one)));
  expect(batches).toEqual([[1, 2, 3]]);
});
