/**
 * What a scenario is to the rest: a name, options with defaults, the peers it measures beside Ibex, its sizes in the
 * passes `smoke` and `all`, and a run that ends in figures and in what a person is shown. A run whose databases came
 * out different has no figures: then `ok` is false, and so is the exit code.
 */
import type { Plot } from './charts/plot.ts';
import type { ContractRow } from './contract.ts';
import type { Pair } from './pair.ts';
import type { Peer } from './peers.ts';

export type OptionSpec =
  | { readonly kind: 'number'; readonly default: number; readonly help: string }
  | { readonly kind: 'flag'; readonly help: string }
  /** Comma-separated names; all of them by default. */
  | { readonly kind: 'list'; readonly of: readonly string[]; readonly help: string };

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

interface Values {
  readonly number: number;
  readonly flag: boolean;
  readonly list: readonly string[];
}

export type OptionValue = Values[keyof Values];

export type OptionValues<S extends OptionSpecs> = { readonly [K in keyof S]: Values[S[K]['kind']] };

/** Rows of equal length, the first of which is the head; its first cell may be empty. */
export type Table = readonly (readonly string[])[];

export interface Outcome {
  /** Versions and settings of the servers that ran. */
  readonly servers: object;
  /** Goes into the JSON document: every single measurement and what was made of them. */
  readonly figures: object;
  /** The same for a person: lines and tables. */
  readonly content: readonly (string | Table)[];
  /** Pictures of it, each a file of `--out`; names are unique within the scenario. */
  readonly plots?: readonly Plot[];
  /** What it measured of the contract, medians in the unit of the row. Of several values of a row the worst counts. */
  readonly contract?: readonly { readonly row: ContractRow; readonly value: number }[];
  readonly ok: boolean;
}

/** What a call of the benchmark gives each of its scenarios. */
export interface Bench {
  /** The names of those of its peers that are wanted and installed. */
  readonly peers: ReadonlySet<string>;
  /**
   * The two servers, for `await using`: what is made there goes with it. With `distribution` the distribution's own
   * where they are installed, which its pg_dump can read, whatever the others get.
   */
  servers(which?: 'usual' | 'distribution'): Promise<Pair>;
}

/** The calls without names of scenarios: a quick look whether all works, the report, the report without a limit. */
export type Pass = 'smoke' | 'all' | 'full';

/** One run of a scenario in a pass: the options that differ from their defaults, and the minutes that it takes. */
export interface Size<S extends OptionSpecs = OptionSpecs> {
  readonly options: Partial<OptionValues<S>>;
  /** On two cores, with all peers; rounded up. */
  readonly minutes: number;
}

export interface Scenario<S extends OptionSpecs = OptionSpecs> {
  readonly name: string;
  readonly summary: string;
  readonly options: S;
  /** Whom it can measure beside Ibex. */
  readonly peers: readonly Peer[];
  /**
   * Its runs in each pass, one after the other; none where it is left out. More than one where, say, what the contract
   * is about is run three times and the rest once.
   */
  readonly sizes: Readonly<Record<Pass, readonly Size<S>[]>>;
  run(options: OptionValues<S>, bench: Bench): Promise<Outcome>;
}

/** What every scenario that measures several times takes. */
export const REPEAT = { kind: 'number', default: 3, help: 'runs of each, in turns' } as const;

/** What every scenario on pgbench's tables takes. */
export const SCALE = { kind: 'number', default: 10, help: 'of the pgbench tables' } as const;

/** What every scenario that can go through Redis takes. */
export const REDIS = { kind: 'flag', help: 'Ibex through a private Redis as well' } as const;

/** Says on stderr what is being done; stdout is for the result. */
export function say(text: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
}
