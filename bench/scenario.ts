/**
 * What a scenario is to the rest: a name, options with defaults, the peers it measures beside Ibex, and a run that ends
 * in figures and in what a person is shown. A run whose databases came out different has no figures: then `ok` is
 * false, and so is the exit code.
 */
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

/** How many times as much, or as fast, Ibex is as something else. */
export interface Ratio {
  readonly label: string;
  readonly value: number;
}

export interface Outcome {
  /** Versions and settings of the servers that ran. */
  readonly servers: object;
  /** Goes into the JSON document: every single measurement and what was made of them. */
  readonly figures: object;
  /** The same for a person: lines and tables. */
  readonly content: readonly (string | Table)[];
  /** What the chart shows, under a heading that says what is divided by what. */
  readonly chart?: { readonly heading: string; readonly ratios: readonly Ratio[] };
  readonly ok: boolean;
}

export interface Scenario<S extends OptionSpecs = OptionSpecs> {
  readonly name: string;
  readonly summary: string;
  readonly options: S;
  /** Whom it can measure beside Ibex. */
  readonly peers: readonly Peer[];
  /** `peers` has the names of those that are wanted and installed. */
  run(options: OptionValues<S>, peers: ReadonlySet<string>): Promise<Outcome>;
}

/** What every scenario that measures several times takes. */
export const REPEAT = { kind: 'number', default: 3, help: 'runs of each, in turns' } as const;

/** What every scenario that can go through Redis takes. */
export const REDIS = { kind: 'flag', help: 'Ibex through a private Redis as well' } as const;

/** Says on stderr what is being done; stdout is for the result. */
export function say(text: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
}
