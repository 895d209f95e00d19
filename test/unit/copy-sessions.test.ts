/** Sessions that copy are opened as there is work, and closed when there is none. */
import { pino } from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { CopySessions } from '../../src/engine/copy-sessions.ts';
import type { Sessions } from '../../src/engine/sessions.ts';
import type { Session } from '../../src/postgres/session.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Sessions that know no server, but count themselves. */
function fakes() {
  const open = new Set<object>();
  const make = () => {
    const session = {
      broken: null,
      row: async () => ({ count: open.size / 2 }),
      close: async () => void open.delete(session),
      abandon: () => void open.delete(session),
    };
    open.add(session);
    return session as unknown as Session;
  };
  return { open, make, sessions: { open: async () => make() } as unknown as Sessions };
}

const common = {
  sync: 'main',
  part: 'copy',
  control: null,
  jobs: 3,
  maxSourceConnections: 6,
  replica: false,
  log: pino({ level: 'silent' }),
};

/** Has three pieces of work done at once. */
async function work(pairs: CopySessions): Promise<void> {
  let letGo = () => {};
  const held = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const works = [1, 2, 3].map(() => pairs.use(() => held));
  await vi.advanceTimersByTimeAsync(100);
  letGo();
  await Promise.all(works);
}

test.each([
  { whose: 'a worker', first: false, left: 0 },
  { whose: 'the daemon', first: true, left: 2 },
])('those of $whose that rest are closed but for $left', async ({ first, left }) => {
  const { open, make, sessions } = fakes();
  const pairs = new CopySessions({
    ...common,
    sessions,
    first: first ? { source: make(), target: make() } : null,
  });
  await work(pairs);
  expect(open.size).toBe(6);
  await vi.advanceTimersByTimeAsync(14_000);
  await work(pairs);
  await vi.advanceTimersByTimeAsync(14_000);
  expect(open.size).toBe(6);
  await vi.advanceTimersByTimeAsync(16_000);
  expect(open.size).toBe(left);
  await work(pairs);
  expect(open.size).toBe(6);
  pairs.close();
});
