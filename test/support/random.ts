/** Random numbers that can be had again: every test that uses them prints its seed. */

/** The seed of a test: `TEST_SEED` to replay one, otherwise a new one. Printed, so that a failure can be replayed. */
export function seedOf(name: string): number {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000_007);
  console.log(`${name}: TEST_SEED=${seed}`);
  return seed;
}

/** A generator of numbers in [0, 1): mulberry32. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
