/** Argv to scenarios and their options. Whatever it does not know is wrong usage. */
import { parseArgs } from 'node:util';
import type { OptionSpec, OptionValue, Pass, Scenario, Size } from './scenario.ts';

export class UsageError extends Error {}

/** One run of a scenario. */
export interface Planned {
  readonly scenario: Scenario;
  readonly options: Readonly<Record<string, OptionValue>>;
  /** What it takes; `undefined` outside a pass, where it depends on the options. */
  readonly minutes: number | undefined;
}

export interface Call {
  readonly pass: Pass | undefined;
  readonly planned: readonly Planned[];
  /** Names of peers; `undefined` for those that are measured without being asked for. */
  readonly peers: readonly string[] | undefined;
  /** The URLs of two servers; `undefined` for servers of our own. */
  readonly against: readonly [string, string] | undefined;
  /** Where the report goes beside the screen. */
  readonly json: string | undefined;
  readonly out: string | undefined;
}

type Given = Readonly<Record<string, string | boolean | undefined>>;

const TEXTS = ['peers', 'against', 'json', 'out'] as const;
const FLAGS = ['full', 'help'] as const;

/** Throws `UsageError`; `undefined` when only help was asked for. Without a name it is the pass `all`. */
export function parse(argv: readonly string[], scenarios: readonly Scenario[]): Call | undefined {
  const { names, given } = readArguments(argv, scenarios);
  if (given.help === true) return undefined;
  const pass = passOf(names, given.full === true);
  const chosen = scenarios.filter((one) =>
    pass === undefined ? names.includes(one.name) : one.sizes[pass].length > 0,
  );
  const unknown = pass === undefined && names.find((name) => chosen.every((one) => one.name !== name));
  if (unknown) throw new UsageError(`unknown scenario: ${unknown}`);
  requireUse(given, chosen);
  const planned = chosen.flatMap((scenario) =>
    (pass === undefined ? [undefined] : scenario.sizes[pass]).map((size) => plan(scenario, size, given)),
  );
  const text = (name: (typeof TEXTS)[number]) => given[name] as string | undefined;
  return {
    pass,
    planned,
    peers: peersOf(text('peers'), chosen),
    against: urlsOf(text('against')),
    json: text('json'),
    out: text('out'),
  };
}

function readArguments(argv: readonly string[], scenarios: readonly Scenario[]) {
  const own = scenarios.flatMap(({ options }) =>
    Object.entries(options).map(
      ([name, { kind }]) => [name, { type: kind === 'flag' ? 'boolean' : 'string' } as const] as const,
    ),
  );
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: {
        ...Object.fromEntries(own),
        ...Object.fromEntries(TEXTS.map((name) => [name, { type: 'string' } as const])),
        ...Object.fromEntries(FLAGS.map((name) => [name, { type: 'boolean' } as const])),
        help: { type: 'boolean', short: 'h' },
      },
      allowPositionals: true,
    });
    return { names: positionals, given: values as Given };
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0]);
  }
}

function passOf(names: readonly string[], full: boolean): Pass | undefined {
  const wanted = names.length === 0 ? ['all'] : names;
  const pass = (['smoke', 'all'] as const).find((one) => wanted.includes(one));
  if (pass !== undefined && wanted.length > 1) throw new UsageError(`${pass} stands alone`);
  if (full && pass !== 'all') throw new UsageError('--full goes with all');
  return full ? 'full' : pass;
}

/** What is given on the command line goes before the size of a pass, and that before the default. */
function plan(scenario: Scenario, size: Size | undefined, given: Given): Planned {
  const options = Object.entries(scenario.options).map(([name, spec]) => {
    const ofSize = size?.options[name];
    return [
      name,
      given[name] === undefined && ofSize !== undefined ? ofSize : optionValue(name, spec, given[name]),
    ];
  });
  return { scenario, options: Object.fromEntries(options), minutes: size?.minutes };
}

/** An option that none of the scenarios has would be ignored. */
function requireUse(given: Given, chosen: readonly Scenario[]): void {
  const common = new Set<string>([...TEXTS, ...FLAGS]);
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

function peersOf(given: string | undefined, chosen: readonly Scenario[]): string[] | undefined {
  if (given === undefined) return undefined;
  const known = [...new Set(chosen.flatMap(({ peers }) => peers.map(({ name }) => name)))];
  return given === 'none' ? [] : namesIn('peers', given, [...known, 'none']);
}

function urlsOf(given: string | undefined): [string, string] | undefined {
  if (given === undefined) return undefined;
  const [source, target, ...more] = given.split(/,(?=postgres(?:ql)?:)/);
  if (source !== undefined && target !== undefined && more.length === 0) {
    if ([source, target].every((url) => /^postgres(ql)?:/.test(url) && URL.canParse(url)))
      return [source, target];
  }
  throw new UsageError(
    '--against takes SOURCE_URL,TARGET_URL, such as postgres://u:p@a/db,postgres://u:p@b/db',
  );
}

function namesIn(option: string, given: string | boolean, known: readonly string[]): string[] {
  const names = String(given).split(',');
  if (names.every((name) => known.includes(name))) return names;
  throw new UsageError(`--${option} takes ${known.join(', ')}`);
}

/** The list of scenarios and options. */
export function usage(scenarios: readonly Scenario[]): string {
  const lines = [
    'Usage: ibex bench [options] [scenario.. | smoke | all]',
    '',
    'smoke looks in under a minute whether everything works; all, which is meant without a name, makes the report,',
    'at sizes that fit 45 minutes on two cores. An option goes to every scenario that has it.',
    '',
    '  --peers A,B      whom to measure beside Ibex; none for nobody (all that are installed, bucardo only when',
    '                   named). native and pipe come along with any other',
    '  --against URLS   SOURCE_URL,TARGET_URL: on these servers instead of private ones, in databases of its own, by',
    '                   roles that may create some. What others have there is not touched',
    '  --full           all, at full size: hours',
    '  --json FILE      every single measurement, with machine, versions, settings and commit',
    '  --out DIR        the same as report.json, what the screen shows as report.md, and the plots as SVG',
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
