/** The highest rate at which something still holds, by halving what is between a rate that does and one that does not. */

/**
 * `limit` is a rate at which it does not hold; 0 is taken to hold. Gives the highest tried rate at which it held (0 where
 * none did), off by at most `limit` / 2^`steps`.
 */
export async function highestRate(
  limit: number,
  steps: number,
  holds: (rate: number) => Promise<boolean>,
): Promise<number> {
  let [low, high] = [0, limit];
  for (let step = 1; step <= steps; step++) {
    const rate = (low + high) / 2;
    if (await holds(rate)) low = rate;
    else high = rate;
  }
  return low;
}
