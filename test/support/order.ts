/**
 * In which order test files start. Left to itself Vitest begins with the largest files, as it knows no durations on a
 * fresh clone; some small ones take minutes, and would keep everybody waiting at the end.
 */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const LONG =
  /\/test\/(faults|property|story|cutover|convergence)\/|\/test\/e2e\/(bench|crash|two-daemons)\.test\.ts$/;

export class LongFilesFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification) => LONG.test(moduleId);
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}
