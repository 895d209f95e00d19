/** What came of many rounds, in lines to read. */
import type { Failpoint } from '../../src/core/failpoints.ts';
import type { RoundResult } from './round.ts';

export class Report {
  #rounds = 0;
  #rows = 0;
  #looks = 0;
  readonly #struck = new Map<Failpoint, number>();
  readonly #recoveries = new Map<string, number[]>();
  readonly #kinds = new Map<string, number>();
  /** One for each thing that was not as it has to be, with the command that plays its round again. */
  readonly wrong: string[] = [];

  add(seed: number, kind: string, result: RoundResult): void {
    this.#rounds += 1;
    this.#rows += result.rows;
    this.#looks += result.looks;
    this.#kinds.set(kind, (this.#kinds.get(kind) ?? 0) + 1);
    for (const name of result.struck) this.#struck.set(name, (this.#struck.get(name) ?? 0) + 1);
    for (const { what, ms } of result.recoveries) {
      this.#recoveries.set(what, [...(this.#recoveries.get(what) ?? []), ms]);
    }
    for (const what of result.wrong) this.fail(seed, what);
  }

  fail(seed: number, what: string): void {
    this.wrong.push(`${what}\n  again: npm run faults -- --rounds 1 --seed ${seed}`);
  }

  /** Failpoints of `all` that no round came to. */
  missed(all: readonly Failpoint[]): Failpoint[] {
    return all.filter((name) => !this.#struck.has(name));
  }

  lines(unavailable: readonly string[]): string[] {
    const all = [...this.#recoveries.values()].flat();
    const faults = [...this.#kinds.values(), ...this.#struck.values()].reduce((sum, n) => sum + n, 0);
    return [
      `rounds ${this.#rounds}, faults ${faults}, rows compared ${this.#rows}, looks at the target ${this.#looks}, differences ${this.wrong.length}`,
      `time to recover: median ${seconds(median(all))}, longest ${seconds(Math.max(0, ...all))}`,
      'faults from outside:',
      ...[...this.#kinds]
        .sort()
        .map(
          ([kind, n]) =>
            `  ${String(n).padStart(4)}  ${kind}, recovered in ${range(this.#recoveries.get(kind) ?? [])}`,
        ),
      'failpoints:',
      ...[...this.#struck].sort().map(([name, n]) => `  ${String(n).padStart(4)}  ${name}`),
      ...(unavailable.length === 0 ? [] : [`not available here: ${unavailable.join(', ')}`]),
    ];
  }
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

function range(values: readonly number[]): string {
  if (values.length === 0) return 'no time';
  return `${seconds(Math.min(...values))} to ${seconds(Math.max(...values))}`;
}
