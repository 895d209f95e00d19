/** `ibex schema ..` between the two databases of a test. */
import { type IbexResult, ibex } from '../support/ibex.ts';
import type { Pair } from '../support/pair.ts';

export function schemaCommand(pair: Pair, more: Record<string, string> = {}) {
  const text = (...args: string[]): Promise<IbexResult> => {
    const { sourceUrl, targetUrl } = pair.databases;
    const env = { IBEX_SOURCE_URL: sourceUrl, IBEX_TARGET_URL: targetUrl, ...more };
    return ibex(['schema', ...args], { env });
  };
  const json = async (...args: string[]) => {
    const { code, stdout, stderr } = await text(...args, '--json');
    if (stdout === '') throw new Error(stderr);
    return { ...JSON.parse(stdout), code };
  };
  return Object.assign(json, { text });
}
