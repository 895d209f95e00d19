/**
 * Running out of patience, and the second try that CI gives to a test that did.
 *
 * What it waited for did not come: a halt of the machine explains that as well as a fault does, and a fault is there
 * the second time too. A test that saw something wrong, rows that differ above all, is never tried again: to be seen at
 * all such a fault may need luck.
 */
import type { Reporter, TestCase, TestModule } from 'vitest/node';

/** What was waited for did not come in time. */
export class OutOfPatience extends Error {
  override readonly name = 'OutOfPatience';

  constructor(timeoutMs: number, what: string, options?: ErrorOptions) {
    super(`waited ${timeoutMs} ms in vain for ${what}`, options);
  }
}

/**
 * The messages that allow a second try; messages are all that Vitest shows to a pattern. Those of `OutOfPatience` have
 * one line, and Vitest's own time-outs their advice; what tells how rows differ goes on in a second line.
 */
export const OUT_OF_PATIENCE =
  /^(waited \d+ ms in vain for .*|(Test|Hook) timed out in \d+ms\.\nIf this .*)$/;

/** Lists the tests that passed at the second try, with what they had waited for: nobody is to miss it. */
export class SecondTries implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const tests = modules.flatMap((module) =>
      [...module.children.allTests()].filter((test) => test.diagnostic()?.flaky),
    );
    if (tests.length > 0) console.log(`\n Passed at the second try:\n${tests.map(line).join('\n')}`);
  }
}

function line(test: TestCase): string {
  const why = (test.result().errors ?? []).map(({ message }) => message.split('\n')[0]);
  return `   ${test.module.relativeModuleId} > ${test.fullName}: ${why.join('; ')}`;
}
