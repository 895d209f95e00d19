/** Argv to a scenario and its options. Whatever it does not know is wrong usage, told with the whole list. */
import { parseArgs } from 'node:util';
import type { OptionSpecs, Scenario } from './scenario.ts';

export class UsageError extends Error {}

export interface Call {
  readonly scenario: Scenario;
  readonly options: Record<string, number | boolean>;
  /** Where the JSON document goes, if anywhere. */
  readonly json: string | undefined;
}

/** Throws `UsageError`; resolves to `undefined` when only help was asked for. */
export function parse(argv: readonly string[], scenarios: readonly Scenario[]): Call | undefined {
  const [name, ...rest] = argv;
  if (name === '--help' || name === '-h') return undefined;
  if (name === undefined) throw new UsageError('which scenario?');
  const scenario = scenarios.find((one) => one.name === name);
  if (scenario === undefined) throw new UsageError(`unknown scenario: ${name}`);
  const given = readFlags(rest, scenario.options);
  if (given.help === true) return undefined;
  const options: Record<string, number | boolean> = {};
  for (const [option, spec] of Object.entries(scenario.options)) {
    options[option] =
      spec.kind === 'flag' ? given[option] === true : toNumber(option, given[option], spec.default);
  }
  return { scenario, options, json: given.json as string | undefined };
}

function readFlags(
  argv: readonly string[],
  specs: OptionSpecs,
): Record<string, string | boolean | undefined> {
  const own = Object.entries(specs).map(([name, { kind }]) => [
    name,
    { type: kind === 'flag' ? 'boolean' : 'string' } as const,
  ]);
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        ...Object.fromEntries(own),
        json: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    return values as Record<string, string | boolean | undefined>;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function toNumber(option: string, given: string | boolean | undefined, fallback: number): number {
  if (given === undefined) return fallback;
  const value = Number(given);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${option} must be a whole number above 0`);
}

/** The list of scenarios and options. */
export function usage(scenarios: readonly Scenario[]): string {
  const lines = ['usage: npm run bench -- <scenario> [--json FILE] [options]', ''];
  for (const { name, summary, options } of scenarios) {
    lines.push(`  ${name.padEnd(10)} ${summary}`);
    for (const [option, spec] of Object.entries(options)) {
      const flag = spec.kind === 'flag' ? `--${option}` : `--${option} N`;
      lines.push(
        `${''.padEnd(13)}${flag.padEnd(17)} ${spec.help}${spec.kind === 'flag' ? '' : ` (${spec.default})`}`,
      );
    }
  }
  return `${lines.join('\n')}\n`;
}
