/** Argv to scenarios and their options. Whatever it does not know is wrong usage. */
import { parseArgs } from 'node:util';
import type { OptionSpec, OptionValue, Scenario } from './scenario.ts';

export class UsageError extends Error {}

/** Where the report goes beside the screen. */
const FILES = ['json', 'markdown', 'svg'] as const;
export type Files = Partial<Readonly<Record<(typeof FILES)[number], string>>>;

export interface Call {
  readonly scenarios: readonly {
    readonly scenario: Scenario;
    readonly options: Readonly<Record<string, OptionValue>>;
  }[];
  /** Names of peers; `undefined` for all. */
  readonly peers: readonly string[] | undefined;
  readonly files: Files;
}

type Given = Readonly<Record<string, string | boolean | undefined>>;

/** Throws `UsageError`; `undefined` when only help was asked for. Without a name all scenarios are meant. */
export function parse(argv: readonly string[], scenarios: readonly Scenario[]): Call | undefined {
  const { names, given } = readArguments(argv, scenarios);
  if (given.help === true) return undefined;
  const unknown = names.find((name) => scenarios.every((one) => one.name !== name));
  if (unknown !== undefined) throw new UsageError(`unknown scenario: ${unknown}`);
  const chosen = scenarios.filter(({ name }) => names.length === 0 || names.includes(name));
  requireUse(given, chosen);
  return {
    scenarios: chosen.map((scenario) => ({
      scenario,
      options: Object.fromEntries(
        Object.entries(scenario.options).map(([name, spec]) => [name, optionValue(name, spec, given[name])]),
      ),
    })),
    peers: peersOf(given.peers, chosen),
    files: Object.fromEntries(FILES.flatMap((name) => (given[name] ? [[name, given[name]]] : []))),
  };
}

function readArguments(argv: readonly string[], scenarios: readonly Scenario[]) {
  const own = scenarios.flatMap(({ options }) =>
    Object.entries(options).map(
      ([name, { kind }]) => [name, { type: kind === 'flag' ? 'boolean' : 'string' } as const] as const,
    ),
  );
  const common = ['peers', ...FILES].map((name) => [name, { type: 'string' } as const] as const);
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: { ...Object.fromEntries([...own, ...common]), help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
    });
    return { names: positionals, given: values as Given };
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0]);
  }
}

/** An option that none of the scenarios has would be ignored. */
function requireUse(given: Given, chosen: readonly Scenario[]): void {
  const common = new Set<string>(['peers', 'help', ...FILES]);
  const idle = Object.keys(given).find(
    (name) => !common.has(name) && chosen.every(({ options }) => options[name] === undefined),
  );
  if (idle !== undefined) {
    throw new UsageError(`--${idle} is no option of ${chosen.map(({ name }) => name).join(' or ')}`);
  }
}

function optionValue(name: string, spec: OptionSpec, given: string | boolean | undefined): OptionValue {
  if (spec.kind === 'flag') return given === true;
  if (spec.kind === 'list') return given === undefined ? spec.of : namesIn(name, given, spec.of);
  if (given === undefined) return spec.default;
  const value = Number(given);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${name} must be a whole number above 0`);
}

function peersOf(given: string | boolean | undefined, chosen: readonly Scenario[]): string[] | undefined {
  if (given === undefined) return undefined;
  const known = [...new Set(chosen.flatMap(({ peers }) => peers.map(({ name }) => name)))];
  return given === 'none' ? [] : namesIn('peers', given, [...known, 'none']);
}

function namesIn(option: string, given: string | boolean, known: readonly string[]): string[] {
  const names = String(given).split(',');
  if (names.every((name) => known.includes(name))) return names;
  throw new UsageError(`--${option} takes ${known.join(', ')}`);
}

/** The list of scenarios and options. */
export function usage(scenarios: readonly Scenario[]): string {
  const lines = [
    'Usage: ibex bench [options] [scenario..]',
    '',
    'Without a name all scenarios run, one after the other. An option goes to every scenario that has it.',
    '',
    '  --peers A,B      whom to measure beside Ibex; none for nobody (all that are installed)',
    '  --json FILE      every single measurement, with machine, versions, settings and commit',
    '  --markdown FILE  what the screen shows, as Markdown',
    '  --svg FILE       the ratios as a chart',
    '',
  ];
  for (const { name, summary, options, peers } of scenarios) {
    const beside = peers.length === 0 ? '' : `; peers: ${peers.map((peer) => peer.name).join(', ')}`;
    lines.push(`  ${name.padEnd(10)} ${summary}${beside}`);
    for (const [option, spec] of Object.entries(options)) lines.push(optionLine(option, spec));
  }
  return `${lines.join('\n')}\n`;
}

function optionLine(name: string, spec: OptionSpec): string {
  const flag = { flag: `--${name}`, number: `--${name} N`, list: `--${name} A,B` }[spec.kind];
  const standard = { flag: '', number: ` (${'default' in spec ? spec.default : ''})`, list: ' (all)' }[
    spec.kind
  ];
  const of = spec.kind === 'list' ? `: ${spec.of.join(', ')}` : '';
  return `${''.padEnd(13)}${flag.padEnd(17)} ${spec.help}${of}${standard}`;
}
